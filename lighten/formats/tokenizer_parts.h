// A tokenizer as its file describes it, read but not yet built.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"
#include "lighten/formats/bpe.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/tokenizer_added.h"
#include "lighten/formats/tokenizer_vocabulary.h"

namespace lighten::formats {

/// Merges by text, in order of rank.
struct MergeList {
  std::string text;  ///< left and right of all merges, one after another
  struct Entry {
    uint32_t offset, left, right;  // lengths of the two
  };
  std::vector<Entry> entries;

  void add(std::string_view left, std::string_view right);
  std::string_view left(size_t i) const { return std::string_view(text).substr(entries[i].offset, entries[i].left); }
  std::string_view right(size_t i) const {
    return std::string_view(text).substr(entries[i].offset + entries[i].left, entries[i].right);
  }
};

/// The long lists of a tokenizer.json apart, in flat memory, and the rest as JSON ("model" without "vocab" and "merges").
struct TokenizerParts {
  std::string file;  ///< for messages
  Json rest = Json::object();
  TokenList vocabulary;
  MergeList merges;
  bool has_vocabulary = false, has_merges = false;
  bool pairs = false;  ///< merges are written as ["a", "b"], not as "a b"
  std::vector<AddedToken> added;
  std::vector<float> scores;      ///< by id: merges are to be made from them (SentencePiece)
  std::vector<bool> merges_into;  ///< by id, with scores: ordinary tokens, which merges may use
  int32_t bos = -1, eos = -1;     ///< -1: none, or not said
  bool adds_bos = false;
};

/// Reads the text of a tokenizer.json in one pass. Throws FormatError.
TokenizerParts read_tokenizer_json(std::string_view text, const std::string& file);
/// The same from JSON that is in memory already.
TokenizerParts take_tokenizer_json(const Json& json, const std::string& file);
/// From the metadata of a GGUF file.
TokenizerParts take_gguf_metadata(const Json& metadata, const std::string& file);

/// Throws FormatError that names the missing or wrong field. `added`, `bos`, `eos` and `adds_bos` are as they shall be.
std::shared_ptr<const Tokenizer> make_tokenizer(TokenizerParts parts);

/// The merges that a SentencePiece vocabulary implies: every way to cut a token in two tokens, best score first.
std::vector<Merge> merges_from_scores(const Vocabulary& vocabulary, const std::vector<float>& scores,
                                      const std::vector<bool>& ordinary);

/// What the "added_tokens" of a tokenizer.json hold. Throws FormatError.
std::vector<AddedToken> parse_added_tokens(const Json& json, const std::string& where);
Json to_json(const AddedToken& token);
/// BOS, EOS and whether BOS is put first, as far as the post-processor, the names of tokens and tokenizer_config.json (null:
/// none) tell.
void find_bos_and_eos(TokenizerParts& parts, const Json& settings, const std::string& settings_file);

/// Splits "a b" at its space and adds it. Throws FormatError that names merge `i`.
void add_merge(MergeList& merges, std::string_view text, size_t i, const std::string& where);

}  // namespace lighten::formats
