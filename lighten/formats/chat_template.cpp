#include "lighten/formats/chat_template.h"

#include <fmt/format.h>

#include <string_view>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::string trimmed(const std::string& text) {
  constexpr const char* spaces = " \t\r\n\v\f";
  const size_t start = text.find_first_not_of(spaces);
  return start == std::string::npos ? "" : text.substr(start, text.find_last_not_of(spaces) + 1 - start);
}

/// A string literal's text from `at` to `end_mark`, escapes resolved. False if the literal ends before.
bool read_literal(const std::string& text, size_t at, char quote, std::string_view end_mark, std::string& out) {
  out.clear();
  for (; at < text.size(); ++at) {
    if (text.compare(at, end_mark.size(), end_mark) == 0) return true;
    if (text[at] == quote) return false;
    if (text[at] != '\\' || at + 1 == text.size()) {
      out += text[at];
      continue;
    }
    const char next = text[++at];
    out += next == 'n' ? '\n' : next == 't' ? '\t' : next;
  }
  return false;
}

/// The system message that a ChatML template writes when the conversation has none: '<|im_start|>system\nTEXT<|im_end|>' in one
/// literal. "" if there is none.
std::string default_system(const std::string& jinja) {
  constexpr std::string_view start = "<|im_start|>system";
  for (size_t at = jinja.find(start); at != std::string::npos; at = jinja.find(start, at + 1)) {
    size_t text = at + start.size();
    if (jinja.compare(text, 1, "\n") == 0) {
      text += 1;
    } else if (jinja.compare(text, 2, "\\n") == 0) {
      text += 2;
    } else {
      continue;
    }
    const char quote = at > 0 && jinja[at - 1] == '"' ? '"' : '\'';
    std::string found;
    if (read_literal(jinja, text, quote, "<|im_end|>", found) && !found.empty()) return found;
  }
  return "";
}

std::string render_chatml(const std::string& jinja, const std::vector<ChatMessage>& messages, bool open_answer) {
  std::string out;
  const auto turn = [&](const std::string& role, const std::string& content) {
    out += "<|im_start|>" + role + "\n" + content + "<|im_end|>\n";
  };
  if (!messages.empty() && messages[0].role != "system")
    if (const std::string system = default_system(jinja); !system.empty()) turn("system", system);
  const bool trims = has(jinja, "| trim") || has(jinja, "|trim");
  for (const ChatMessage& message : messages) turn(message.role, trims ? trimmed(message.content) : message.content);
  if (open_answer) out += "<|im_start|>assistant\n";
  return out;
}

std::string render_llama3(const std::string& jinja, const std::vector<ChatMessage>& messages, bool open_answer) {
  std::string out = has(jinja, "bos_token") || has(jinja, "<|begin_of_text|>") ? "<|begin_of_text|>" : "";
  const auto header = [](const std::string& role) { return "<|start_header_id|>" + role + "<|end_header_id|>\n\n"; };
  for (const ChatMessage& message : messages) out += header(message.role) + trimmed(message.content) + "<|eot_id|>";
  return open_answer ? out + header("assistant") : out;
}

std::string render_llama2(const std::vector<ChatMessage>& messages) {
  std::string out, system;
  for (const ChatMessage& message : messages) {
    if (message.role == "system") {
      system = "<<SYS>>\n" + message.content + "\n<</SYS>>\n\n";
    } else if (message.role == "user") {
      out += "<s>[INST] " + trimmed(system + message.content) + " [/INST]";
      system.clear();
    } else {
      out.append(" ").append(trimmed(message.content)).append(" </s>");
    }
  }
  return out;
}

std::string render_gemma(const std::string& jinja, const std::vector<ChatMessage>& messages, bool open_answer) {
  std::string out = has(jinja, "bos_token") ? "<bos>" : "", system;
  for (const ChatMessage& message : messages) {
    if (message.role == "system") {
      system = message.content + "\n\n";
      continue;
    }
    const std::string role = message.role == "assistant" ? "model" : message.role;
    out += fmt::format("<start_of_turn>{}\n{}{}<end_of_turn>\n", role, system, trimmed(message.content));
    system.clear();
  }
  return open_answer ? out + "<start_of_turn>model\n" : out;
}

}  // namespace

std::string read_chat_template(const fs::path& folder) {
  using formats::Fields;
  const fs::path own = folder / "chat_template.jinja", settings = folder / "tokenizer_config.json";
  if (fs::exists(own)) return read_file(own);
  if (!fs::exists(settings)) return "";
  const Json json = formats::parse_json(read_file(settings), settings.string());
  const Json* found = Fields(json, settings.string()).find("chat_template");
  if (found == nullptr) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array())  // several templates by name
    for (const Json& item : *found)
      if (item.is_object() && item.value("name", Json()) == "default") return Fields(item, settings.string()).text("template");
  throw_error<FormatError>("{}: chat_template must be a text, or a list with one that is named \"default\"", settings.string());
}

ChatFormat detect_chat_format(const std::string& jinja_template) {
  if (has(jinja_template, "<|im_start|>")) return ChatFormat::chatml;
  if (has(jinja_template, "<|start_header_id|>")) return ChatFormat::llama3;
  if (has(jinja_template, "<start_of_turn>")) return ChatFormat::gemma;
  if (has(jinja_template, "[INST]")) return ChatFormat::llama2;
  return ChatFormat::none;
}

std::string render_chat(const std::string& jinja_template, const std::vector<ChatMessage>& messages,
                        bool add_generation_prompt) {
  switch (detect_chat_format(jinja_template)) {
    case ChatFormat::chatml:
      return render_chatml(jinja_template, messages, add_generation_prompt);
    case ChatFormat::llama3:
      return render_llama3(jinja_template, messages, add_generation_prompt);
    case ChatFormat::llama2:
      return render_llama2(messages);  // the user's turn ends where the answer starts
    case ChatFormat::gemma:
      return render_gemma(jinja_template, messages, add_generation_prompt);
    case ChatFormat::none:
      break;
  }
  throw FormatError(
      "the model has no chat template of a known format (ChatML, Llama 3, Llama 2, Gemma); give a plain prompt instead");
}

std::vector<std::string> chat_stop_strings(ChatFormat format) {
  switch (format) {
    case ChatFormat::chatml:
      return {"<|im_end|>"};
    case ChatFormat::llama3:
      return {"<|eot_id|>"};
    case ChatFormat::llama2:
      return {"</s>"};
    case ChatFormat::gemma:
      return {"<end_of_turn>"};
    case ChatFormat::none:
      break;
  }
  return {};
}

std::string sample_chats(const std::string& jinja_template) {
  if (detect_chat_format(jinja_template) == ChatFormat::none) return "";
  const std::vector<ChatMessage> exchange = {{"user", "."}, {"assistant", "."}, {"user", "."}};
  std::vector<ChatMessage> with_system = exchange;
  with_system.insert(with_system.begin(), {"system", "."});
  return render_chat(jinja_template, exchange) + render_chat(jinja_template, with_system);
}

}  // namespace lighten
