// Chat messages -> the text that the model was trained on.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

/// The template of a model's folder, "" if it has none: chat_template.jinja, else tokenizer_config.json's chat_template (a
/// text, or a list with one that is named "default"). Throws FormatError for anything else there.
std::string read_chat_template(const fs::path& folder);

/// The formats that are recognised from a model's Jinja template text (by the markers it writes).
enum class ChatFormat { none, chatml, llama3, llama2, gemma };
ChatFormat detect_chat_format(const std::string& jinja_template);

/// Renders the conversation and opens the assistant's turn if `add_generation_prompt`. SmolLM2's template puts its default
/// system message first when the conversation brings none; that text is read from the template. Equal to transformers'
/// apply_chat_template for SmolLM2.
std::string render_chat(const std::string& jinja_template, const std::vector<ChatMessage>& messages,
                        bool add_generation_prompt = true);
/// A short conversation with a system message and one without, as the model will read them: what every chat consists of. ""
/// without a known template.
std::string sample_chats(const std::string& jinja_template);
/// Texts that end the assistant's turn ("<|im_end|>").
std::vector<std::string> chat_stop_strings(ChatFormat format);

}  // namespace lighten
