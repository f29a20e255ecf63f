// The special tokens of a tokenizer.json, and which of them start and end a text.
#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/tokenizer_parts.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

int32_t id_of(const TokenizerParts& parts, const std::string& content) {
  for (const AddedToken& token : parts.added)
    if (token.content == content) return token.id;
  return -1;
}

int32_t first_known(const TokenizerParts& parts, std::initializer_list<const char*> contents) {
  for (const char* content : contents)
    if (const int32_t id = id_of(parts, content); id >= 0) return id;
  return -1;
}

/// The token that a TemplateProcessing puts before a text, "" if there is none.
std::string template_start(const Json& processor) {
  if (!processor.is_object()) return "";
  const Fields fields(processor, "post_processor");
  if (const Json* list = fields.find("processors"); list && list->is_array()) {
    for (const Json& each : *list)
      if (each.is_object() && !each.contains("processors"))
        if (std::string found = template_start(each); !found.empty()) return found;
    return "";
  }
  const Json* single = fields.find("single");
  if (!single || !single->is_array() || single->empty() || !(*single)[0].is_object()) return "";
  const Json* special = Fields((*single)[0], "post_processor").find("SpecialToken");
  return special && special->is_object() ? Fields(*special, "post_processor.single[0].SpecialToken").text("id", "") : "";
}

/// A token of tokenizer_config.json: its text, or an object that holds it.
std::string token_setting(const Json& settings, const std::string& name, const std::string& file) {
  const Json* found = Fields(settings, file).find(name);
  if (!found) return "";
  if (found->is_object()) return Fields(*found, file + ": " + name).text("content", "");
  if (!found->is_string()) throw_error<FormatError>("{}: field {} must be a token's text", file, name);
  return found->get<std::string>();
}

}  // namespace

std::vector<AddedToken> parse_added_tokens(const Json& json, const std::string& where) {
  std::vector<AddedToken> tokens;
  if (json.is_null()) return tokens;
  if (!json.is_array()) throw_error<FormatError>("{}: must be a list", where);
  for (size_t i = 0; i < json.size(); ++i) {
    const Fields fields(json[i], fmt::format("{}[{}]", where, i));
    AddedToken token;
    const int64_t id = fields.integer("id");
    token.content = fields.text("content");
    if (id < 0 || id >= Vocabulary::kMostIds)
      throw_error<FormatError>("{}: id {} is out of range; ids lie between 0 and {}", fields.where(), id,
                               Vocabulary::kMostIds - 1);
    if (!is_valid_utf8(token.content))
      throw_error<FormatError>("{}: content is not UTF-8; fetch the file again", fields.where());
    token.id = static_cast<int32_t>(id);
    token.single_word = fields.boolean("single_word", false);
    token.lstrip = fields.boolean("lstrip", false);
    token.rstrip = fields.boolean("rstrip", false);
    token.special = fields.boolean("special", false);
    token.normalized = fields.boolean("normalized", !token.special);
    if (!token.content.empty()) tokens.push_back(std::move(token));
  }
  return tokens;
}

Json to_json(const AddedToken& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

void find_bos_and_eos(TokenizerParts& parts, const Json& settings, const std::string& settings_file) {
  parts.bos = first_known(parts, {"<bos>", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|endoftext|>", "[CLS]"});
  parts.eos = first_known(parts, {"<|im_end|>", "<|eot_id|>", "<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>", "[SEP]"});
  if (parts.rest.contains("post_processor")) {
    const std::string first = template_start(parts.rest["post_processor"]);
    if (const int32_t id = first.empty() ? -1 : id_of(parts, first); id >= 0) {
      parts.bos = id;
      parts.adds_bos = true;
    }
  }
  if (!settings.is_object()) return;
  const auto take = [&](const char* name, int32_t& id) {
    if (settings.contains(name) && settings[name].is_null()) id = -1;
    const std::string content = token_setting(settings, name, settings_file);
    if (const int32_t found = content.empty() ? -1 : id_of(parts, content); found >= 0) id = found;
  };
  take("bos_token", parts.bos);
  take("eos_token", parts.eos);
  parts.adds_bos = parts.bos >= 0 && Fields(settings, settings_file).boolean("add_bos_token", parts.adds_bos);
}

}  // namespace lighten::formats
