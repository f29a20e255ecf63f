// Text <-> token ids, equal to the reference libraries.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"

namespace lighten {

/// A trained tokenizer: byte-level BPE (GPT-2, SmolLM, Llama 3, Qwen 2), SentencePiece-style BPE with byte fallback (Gemma,
/// Llama 2) or WordPiece (BERT). Immutable; safe to use from several threads.
class Tokenizer {
 public:
  /// From a `tokenizer.json` (fast tokenizers of Hugging Face). Throws FormatError that names the missing or wrong field.
  static std::shared_ptr<const Tokenizer> from_json(const Json& json, const std::string& file);
  static std::shared_ptr<const Tokenizer> from_file(const fs::path& tokenizer_json);
  /// From the "tokenizer.ggml.*" metadata of a GGUF file, handed over as JSON {"tokenizer.ggml.model": "gpt2", ...}.
  static std::shared_ptr<const Tokenizer> from_gguf(const Json& metadata, const std::string& file);
  virtual ~Tokenizer() = default;

  /// Token ids of `text`. Special tokens in the text ("<|im_start|>") are recognised unless `special` is false; none are added.
  /// Invalid UTF-8 is read as Python's errors="replace" would. Time is linear in the length.
  virtual std::vector<int32_t> encode(std::string_view text, bool special = true) const = 0;
  /// Text of the ids; special tokens are left out when `skip_special`.
  virtual std::string decode(const std::vector<int32_t>& ids, bool skip_special = false) const = 0;
  /// The raw bytes that one id adds when it follows others ("" for skipped special tokens when `skip_special`).
  virtual std::string piece(int32_t id, bool skip_special = false) const = 0;

  virtual int32_t size() const = 0;                      ///< number of ids, added tokens included
  virtual int32_t id(std::string_view token) const = 0;  ///< -1 if unknown
  virtual std::string token(int32_t id) const = 0;       ///< as written in the vocabulary
  virtual bool is_special(int32_t id) const = 0;
  virtual int32_t bos() const = 0;    ///< -1: none
  virtual int32_t eos() const = 0;    ///< -1: none
  virtual bool adds_bos() const = 0;  ///< the model expects BOS before a text (Gemma: yes, SmolLM2: no)
  /// The same tokenizer as a tokenizer.json that from_json and Hugging Face's `tokenizers` read.
  virtual Json to_json() const = 0;
};

/// Decodes a stream of ids and never hands out half a UTF-8 character.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}
  /// Text that became complete with this id (maybe "").
  std::string add(int32_t id);
  /// What is left: an incomplete character becomes U+FFFD.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  bool first_ = true;
  std::string pending_;
};

}  // namespace lighten
