// A small random model with a tokenizer and text, as a folder, for tests of the whole way.
#pragma once
#include <functional>
#include <map>
#include <string>

#include "lighten/runtime/tiny_model_test.h"

namespace lighten::test {

/// Byte-level tokenizer of the 94 printable ASCII characters, space and newline: 96 ids, one a byte.
inline Json byte_tokenizer() {
  Json vocabulary = Json::object();
  for (int c = 33; c < 127; ++c) vocabulary[std::string(1, static_cast<char>(c))] = vocabulary.size();
  vocabulary["\u0120"] = 94;
  vocabulary["\u010a"] = 95;
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}}};
}

/// Words of random letters: `bytes` of text that the tokenizer above reads as as many tokens.
inline std::string random_text(size_t bytes, uint64_t seed) {
  Random random(seed);
  std::string text;
  while (text.size() < bytes) {
    for (uint64_t n = 1 + random.below(8); n > 0; --n)
      text += static_cast<char>('a' + random.below(26) * random.below(26) / 25);
    text += random.below(12) == 0 ? '\n' : ' ';
  }
  text.resize(bytes);
  return text;
}

/// folder/model (config, weights, tokenizer) and folder/text.txt.
inline void write_test_model(const fs::path& folder, const ModelConfig& config, uint64_t seed = 1) {
  fs::create_directories(folder / "model");
  write_hf_folder(folder / "model", config, random_tensors(config, seed));
  write_file(folder / "model" / "tokenizer.json", byte_tokenizer().dump());
  write_file(folder / "text.txt", random_text(4000, 7));
}

/// Every file of a folder by relative name.
inline std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
  return files;
}

/// What the E that `work` throws says.
template <typename E>
std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const E& error) {
    return error.what();
  }
  return "not the expected error";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace lighten::test
