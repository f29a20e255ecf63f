// Tokenizers in the metadata of GGUF files, put into the form of a tokenizer.json.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/pretokenizer_regex.h"
#include "lighten/formats/tokenizer_parts.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr std::string_view kMark = "\u2581";
constexpr size_t kLongestMerged = 1024;  // bytes of a token; real ones have less than 100
enum TokenType { kOrdinary = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// How a byte-level vocabulary splits text, by the names that "tokenizer.ggml.pre" uses.
struct PreTokenizerName {
  const char* names;  // separated by spaces
  const char* pattern;
  bool digits, nfc, llama3;  // llama3: whole words first, BOS by default
};

constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<PreTokenizerName> pre_tokenizer_names() {
  static const std::string gpt2(pattern_text(KnownPattern::gpt2)), llama3(pattern_text(KnownPattern::llama3)),
      qwen2(pattern_text(KnownPattern::qwen2));
  return {{"default gpt-2 phi-2 mpt olmo jais trillion granite-docling", gpt2.c_str(), false, false, false},
          {"smollm starcoder refact command-r codeshell exaone", gpt2.c_str(), true, false, false},
          {"llama-bpe llama3 llama-v3 falcon3 pixtral lfm2 midm-2.0 smaug-bpe dbrx", llama3.c_str(), false, false, true},
          {"qwen2 deepseek-r1-qwen kormo megrez stablelm2", qwen2.c_str(), false, true, false},
          {"tekken", kTekken, false, false, true},
          {"gpt-4o llama4 kanana2", kGpt4o, false, false, false}};
}

PreTokenizerName find_pre_tokenizer(const std::string& name, const std::string& where) {
  std::string known;
  for (const PreTokenizerName& row : pre_tokenizer_names()) {
    std::istringstream names(row.names);
    for (std::string each; names >> each;) {
      if (each == name) return row;
      known.append(known.empty() ? "" : ", ").append(each);
    }
  }
  throw_error<FormatError>("{}: pre-tokenizer \"{}\" is not supported; supported are {}", where, printable(name), known);
}

class GgufTokenizer {
 public:
  GgufTokenizer(const Json& metadata, const std::string& file) : fields_(metadata, file) { parts_.file = file; }

  TokenizerParts take() {
    const std::string model = fields_.text("tokenizer.ggml.model");
    if (model != "gpt2" && model != "llama")
      throw_error<FormatError>(
          "{}: tokenizer model \"{}\" (tokenizer.ggml.model) is not supported; supported are gpt2 (byte-level BPE) and llama "
          "(SentencePiece BPE)",
          parts_.file, printable(model));
    read_tokens();
    read_types();
    parts_.rest["version"] = "1.0";
    parts_.rest["truncation"] = parts_.rest["padding"] = nullptr;
    if (model == "gpt2") {
      byte_level();
    } else {
      sentence_piece();
    }
    parts_.bos = special_id("tokenizer.ggml.bos_token_id");
    parts_.eos = special_id("tokenizer.ggml.eos_token_id");
    if (model == "llama" && parts_.bos < 0 && count() > 2) parts_.bos = 1, parts_.eos = parts_.eos < 0 ? 2 : parts_.eos;
    parts_.adds_bos = fields_.boolean("tokenizer.ggml.add_bos_token", model == "llama" || llama3_) && parts_.bos >= 0;
    add_tokens();
    finish_rest();
    return std::move(parts_);
  }

 private:
  size_t count() const { return parts_.vocabulary.entries.size(); }
  std::string_view token(size_t id) const { return parts_.vocabulary.token(parts_.vocabulary.entries[id]); }

  const Json& list(const std::string& name) const {
    const Json* found = fields_.find(name);
    if (!found || !found->is_array())
      throw_error<FormatError>("{}: list {} is missing; fetch the file again", parts_.file, name);
    return *found;
  }

  void read_tokens() {
    const Json& tokens = list("tokenizer.ggml.tokens");
    if (tokens.empty()) throw_error<FormatError>("{}: tokenizer.ggml.tokens is empty; fetch the file again", parts_.file);
    parts_.has_vocabulary = true;
    parts_.vocabulary.entries.reserve(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!tokens[i].is_string())
        throw_error<FormatError>("{}: tokenizer.ggml.tokens[{}] is no text; fetch the file again", parts_.file, i);
      parts_.vocabulary.add(tokens[i].get_ref<const std::string&>(), static_cast<int64_t>(i));
    }
  }

  void read_types() {
    types_.assign(count(), kOrdinary);
    if (!fields_.has("tokenizer.ggml.token_type")) return;
    const Json& types = list("tokenizer.ggml.token_type");
    check_length(types, "tokenizer.ggml.token_type");
    for (size_t i = 0; i < types.size(); ++i) {
      if (!types[i].is_number_integer() || types[i] < kOrdinary - 1 || types[i] > kByte)
        throw_error<FormatError>("{}: tokenizer.ggml.token_type[{}] must be 0 to 6; fetch the file again", parts_.file, i);
      types_[i] = static_cast<uint8_t>(types[i].get<int>());
    }
  }

  void check_length(const Json& values, const std::string& name) const {
    if (values.size() != count())
      throw_error<FormatError>("{}: {} has {} entries, but there are {} tokens; fetch the file again", parts_.file, name,
                               values.size(), count());
  }

  void read_merges() {
    parts_.has_merges = true;
    const Json& merges = list("tokenizer.ggml.merges");
    for (size_t i = 0; i < merges.size(); ++i) {
      if (!merges[i].is_string())
        throw_error<FormatError>("{}: tokenizer.ggml.merges[{}] is no text; fetch the file again", parts_.file, i);
      add_merge(parts_.merges, merges[i].get_ref<const std::string&>(), i, parts_.file + ": tokenizer.ggml.merges");
    }
  }

  void read_scores() {
    const Json& scores = list("tokenizer.ggml.scores");
    check_length(scores, "tokenizer.ggml.scores");
    parts_.scores.reserve(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      if (!scores[i].is_number() || std::isnan(scores[i].get<double>()))
        throw_error<FormatError>("{}: tokenizer.ggml.scores[{}] is no number; fetch the file again", parts_.file, i);
      parts_.scores.push_back(scores[i].get<float>());
    }
    parts_.merges_into.resize(count());
    for (size_t i = 0; i < count(); ++i) parts_.merges_into[i] = types_[i] <= kOrdinary || types_[i] == kUnused;
  }

  void byte_level() {
    const std::string where = parts_.file + ": tokenizer.ggml.pre";
    const PreTokenizerName pre = find_pre_tokenizer(fields_.text("tokenizer.ggml.pre", "default"), where);
    read_merges();
    llama3_ = pre.llama3;
    const bool space = fields_.boolean("tokenizer.ggml.add_space_prefix", false);
    const bool plain = known_pattern(pre.pattern) == KnownPattern::gpt2;  // ByteLevel holds this pattern itself
    Json steps = Json::array();
    if (pre.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    if (!plain)
      steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pre.pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
    steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", space}, {"trim_offsets", true}, {"use_regex", plain}});
    parts_.rest["normalizer"] = pre.nfc ? Json{{"type", "NFC"}} : Json(nullptr);
    parts_.rest["pre_tokenizer"] = steps.size() == 1 ? steps[0] : Json{{"type", "Sequence"}, {"pretokenizers", steps}};
    parts_.rest["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    set_model(nullptr, false, false, pre.llama3);
  }

  void sentence_piece() {
    space_prefix_ = fields_.boolean("tokenizer.ggml.add_space_prefix", true);
    if (fields_.has("tokenizer.ggml.merges")) {
      read_merges();
    } else {
      read_scores();
    }
    if (!space_prefix_) respell_spaces();
    const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}};
    const Json prepend = {{"type", "Prepend"}, {"prepend", kMark}};
    parts_.rest["normalizer"] =
        space_prefix_ ? Json{{"type", "Sequence"}, {"normalizers", Json::array({prepend, replace})}} : replace;
    parts_.rest["pre_tokenizer"] = nullptr;
    Json decoders = Json::array({{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
                                 {{"type", "ByteFallback"}},
                                 {{"type", "Fuse"}}});
    if (space_prefix_) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    parts_.rest["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
    const int32_t unknown = special_id("tokenizer.ggml.unknown_token_id");
    const bool bytes = std::find(types_.begin(), types_.end(), kByte) != types_.end();
    set_model(unknown < 0 ? Json(nullptr) : Json(std::string(token(unknown))), true, bytes, false);
  }

  void set_model(Json unknown, bool fuse_unknown, bool byte_fallback, bool ignore_merges) {
    model_ = {{"type", "BPE"},
              {"dropout", nullptr},
              {"unk_token", std::move(unknown)},
              {"continuing_subword_prefix", nullptr},
              {"end_of_word_suffix", nullptr},
              {"fuse_unk", fuse_unknown},
              {"byte_fallback", byte_fallback},
              {"ignore_merges", ignore_merges}};
  }

  /// Runs of spaces are stored as spaces in GGUF, but text reaches the model with U+2581 in their place.
  void respell_spaces() {
    TokenList respelled;
    const auto is_spaces = [](std::string_view text) { return !text.empty() && text.find_first_not_of(' ') == text.npos; };
    for (size_t i = 0; i < count(); ++i) {
      std::string text(token(i));
      if (types_[i] == kUserDefined && is_spaces(text)) {
        const size_t width = text.size();
        text.clear();
        for (size_t k = 0; k < width; ++k) text += kMark;
        in_normalized_.push_back(static_cast<int32_t>(i));
      }
      respelled.add(text, static_cast<int64_t>(i));
    }
    parts_.vocabulary = std::move(respelled);
  }

  int32_t special_id(const std::string& name) const {
    const int64_t id = fields_.integer(name, -1);
    if (id == -1 || id == UINT32_MAX) return -1;
    if (id < 0 || id >= static_cast<int64_t>(count()))
      throw_error<FormatError>("{}: {} is {}, but there are {} tokens; fetch the file again", parts_.file, name, id, count());
    return static_cast<int32_t>(id);
  }

  void add_tokens() {
    if (!fields_.has("tokenizer.ggml.token_type"))
      for (const int32_t id : {parts_.bos, parts_.eos, special_id("tokenizer.ggml.unknown_token_id")})
        if (id >= 0) types_[id] = kControl;
    for (size_t i = 0; i < count(); ++i) {
      const bool special = types_[i] == kControl || types_[i] == kUnknown;
      if ((!special && types_[i] != kUserDefined) || token(i).empty()) continue;
      AddedToken added{.id = static_cast<int32_t>(i), .content = std::string(token(i))};
      added.special = special;
      added.normalized = std::binary_search(in_normalized_.begin(), in_normalized_.end(), added.id);
      parts_.added.push_back(std::move(added));
    }
  }

  void finish_rest() {
    Json& rest = parts_.rest;
    rest["post_processor"] = nullptr;
    if (parts_.adds_bos) {
      const std::string bos(token(parts_.bos));
      const Json first = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
      const auto sequence = [](const char* id, int type) { return Json{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
      const Json second = {{"SpecialToken", {{"id", bos}, {"type_id", 1}}}};
      rest["post_processor"] = {
          {"type", "TemplateProcessing"},
          {"single", Json::array({first, sequence("A", 0)})},
          {"pair", Json::array({first, sequence("A", 0), second, sequence("B", 1)})},
          {"special_tokens", {{bos, {{"id", bos}, {"ids", Json::array({parts_.bos})}, {"tokens", Json::array({bos})}}}}}};
    }
    rest["model"] = std::move(model_);
  }

  Fields fields_;
  TokenizerParts parts_;
  std::vector<uint8_t> types_;
  std::vector<int32_t> in_normalized_;
  Json model_;
  bool space_prefix_ = false, llama3_ = false;
};

}  // namespace

TokenizerParts take_gguf_metadata(const Json& metadata, const std::string& file) {
  return GgufTokenizer(metadata, file).take();
}

std::vector<Merge> merges_from_scores(const Vocabulary& vocabulary, const std::vector<float>& scores,
                                      const std::vector<bool>& ordinary) {
  std::vector<int32_t> order;
  for (int32_t id = 0; id < vocabulary.size(); ++id)
    if (ordinary[id]) order.push_back(id);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  std::vector<Merge> merges;
  std::vector<Merge> of_token;
  for (const int32_t whole : order) {
    const std::string_view text = vocabulary.token(whole);
    if (text.size() > kLongestMerged) continue;
    of_token.clear();
    uint64_t hash = kHashStart;
    for (size_t at = 0; at < text.size();) {
      for (const size_t end = at + character_bytes(text[at]); at < end; ++at) hash = hash_byte(hash, text[at]);
      if (at == text.size()) break;
      const int32_t left = vocabulary.find(text.substr(0, at), hash);
      if (left < 0 || !ordinary[left]) continue;
      const int32_t right = vocabulary.find(text.substr(at));
      if (right >= 0 && ordinary[right]) of_token.push_back({left, right, whole});
    }
    merges.insert(merges.end(), of_token.rbegin(), of_token.rend());  // the reference tries the longer left part first
  }
  return merges;
}

}  // namespace lighten::formats
