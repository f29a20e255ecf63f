// The C++ half of tests/interop/tokenizers_interop.py, which runs this with LIGHTEN_TOKENIZER_CASES set. Without it it is
// skipped.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "lighten/formats/chat_template.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/tokenizer.h"

namespace lighten {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void append_number(std::string& out, uint32_t value) { out.append(reinterpret_cast<const char*>(&value), 4); }

/// Texts as they were written: a 32-bit length, then the bytes.
std::vector<std::string> read_texts(const fs::path& path) {
  const std::string bytes = read_file(path);
  std::vector<std::string> texts;
  for (size_t at = 0; at + 4 <= bytes.size();) {
    uint32_t length;
    std::memcpy(&length, bytes.data() + at, 4);
    texts.push_back(bytes.substr(at + 4, length));
    at += 4 + length;
  }
  return texts;
}

std::shared_ptr<const Tokenizer> open_tokenizer(const fs::path& path) {
  if (path.extension() != ".gguf") return Tokenizer::from_file(path);
  const GgufFile file(path);
  return Tokenizer::from_gguf(file.metadata(), path.string());
}

void run_case(const Json& test) {
  const auto start = Clock::now();
  const auto tokenizer = open_tokenizer(test["tokenizer"].get<std::string>());
  const double load = seconds_since(start);
  const std::vector<std::string> texts = read_texts(test["texts"].get<std::string>());
  size_t bytes = 0;
  std::vector<std::vector<int32_t>> ids;
  const auto encode_start = Clock::now();
  for (const std::string& text : texts) {
    bytes += text.size();
    ids.push_back(tokenizer->encode(text, test.value("special", true)));
  }
  const double encode = seconds_since(encode_start);
  std::string numbers, decoded;
  for (const auto& each : ids) {
    append_number(numbers, static_cast<uint32_t>(each.size()));
    numbers.append(reinterpret_cast<const char*>(each.data()), each.size() * 4);
    const std::string text = tokenizer->decode(each);
    append_number(decoded, static_cast<uint32_t>(text.size()));
    decoded += text;
  }
  write_file(test["ids"].get<std::string>(), numbers);
  write_file(test["decoded"].get<std::string>(), decoded);
  if (test.contains("json")) write_file(test["json"].get<std::string>(), tokenizer->to_json().dump());
  std::cout << fmt::format("{}: loaded in {:.1f} ms, {:.2f} MB in {:.3f} s, {:.1f} MB/s\n", test["name"].get<std::string>(),
                           load * 1e3, bytes / 1e6, encode, bytes / 1e6 / encode);
}

TEST(TokenizerInterop, WritesIdsOfEveryCase) {
  const char* cases = std::getenv("LIGHTEN_TOKENIZER_CASES");
  if (cases == nullptr || *cases == '\0') GTEST_SKIP() << "run by tests/interop/tokenizers_interop.py";
  for (const Json& test : formats::parse_json<Json>(read_file(cases), cases)) run_case(test);
}

TEST(TokenizerInterop, RendersChats) {
  const char* file = std::getenv("LIGHTEN_CHAT_CASES");
  if (file == nullptr || *file == '\0') GTEST_SKIP() << "run by tests/interop/tokenizers_interop.py";
  const Json json = formats::parse_json<Json>(read_file(file), file);
  Json rendered = Json::array();
  for (const Json& test : json["cases"]) {
    std::vector<ChatMessage> messages;
    for (const Json& message : test["messages"]) messages.push_back({message["role"], message["content"]});
    rendered.push_back(render_chat(test["template"], messages, test["prompt"]));
  }
  write_file(json["out"].get<std::string>(), rendered.dump());
}

}  // namespace
}  // namespace lighten
