#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/tokenizer_parts.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr size_t kDeepest = 64;
constexpr size_t kMostFields = 10'000;  // outside of the vocabulary; look-up among them is linear

std::string vocabulary_field(const std::string& file) { return file + ": model.vocab"; }
std::string merges_field(const std::string& file) { return file + ": model.merges"; }

[[noreturn]] void bad_id(const std::string& file, std::string_view token) {
  throw_error<FormatError>("{}: the id of token {} must be a whole number that is not negative; fetch the file again",
                           vocabulary_field(file), printable(token));
}
[[noreturn]] void bad_merge(const std::string& file, size_t i) {
  throw_error<FormatError>("{}[{}] must be \"left right\" or [\"left\", \"right\"]; fetch the file again", merges_field(file),
                           i);
}

/// Reads a tokenizer.json event by event: the vocabulary and the merges go to flat lists, everything else to a small tree.
class Reader : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(const std::string& file) { parts_.file = file; }
  TokenizerParts take() { return std::move(parts_); }

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return number(v, v); }
  bool number_unsigned(number_unsigned_t v) override {
    return number(static_cast<int64_t>(std::min<uint64_t>(v, INT64_MAX)), v);
  }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool binary(binary_t&) override { return false; }

  bool string(string_t& v) override {
    if (place_ == Place::merges && !in_pair_)
      return add_merge(parts_.merges, v, merge_count(), merges_field(parts_.file)), true;
    if (place_ == Place::merges) {
      if (pair_.size() == 2) bad_merge(parts_.file, merge_count());
      pair_.push_back(std::move(v));
      return true;
    }
    return value(std::move(v));
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::vocabulary) bad_id(parts_.file, key_);
    if (place_ == Place::merges) bad_merge(parts_.file, merge_count());
    if (at_model() && key_ == "vocab") {
      if (parts_.has_vocabulary) repeated();
      parts_.has_vocabulary = true;
      place_ = Place::vocabulary;
      return true;
    }
    return open(Json::object());
  }

  bool key(string_t& v) override {
    key_ = std::move(v);
    if (place_ != Place::rest) return true;
    if (stack_.back()->contains(key_)) repeated();
    if (stack_.back()->size() >= kMostFields)
      throw_error<FormatError>("{}: an object of more than {} fields; this is no tokenizer.json", parts_.file, kMostFields);
    return true;
  }

  bool end_object() override {
    if (place_ == Place::vocabulary) {
      place_ = Place::rest;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::vocabulary) bad_id(parts_.file, key_);
    if (place_ == Place::merges) {
      if (in_pair_) bad_merge(parts_.file, merge_count());
      in_pair_ = true;
      pair_.clear();
      return true;
    }
    if (at_model() && key_ == "merges") {
      if (parts_.has_merges) repeated();
      parts_.has_merges = true;
      place_ = Place::merges;
      return true;
    }
    return open(Json::array());
  }

  bool end_array() override {
    if (place_ != Place::merges) {
      stack_.pop_back();
    } else if (in_pair_) {
      if (pair_.size() != 2) bad_merge(parts_.file, merge_count());
      parts_.merges.add(pair_[0], pair_[1]);
      parts_.pairs = true;
      in_pair_ = false;
    } else {
      place_ = Place::rest;
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const Json::exception& error) override {
    throw_error<FormatError>("{}: not valid JSON at byte {} ({}); the file is damaged, fetch it again", parts_.file, position,
                             printable(error.what()));
  }

 private:
  enum class Place { rest, vocabulary, merges };

  size_t merge_count() const { return parts_.merges.entries.size(); }
  bool at_model() const {
    return place_ == Place::rest && stack_.size() == 2 && stack_[0]->contains("model") && stack_[1] == &(*stack_[0])["model"];
  }
  [[noreturn]] void repeated() const {
    throw_error<FormatError>("{}: field {} is there twice; remove one", parts_.file, printable(key_));
  }

  bool number(int64_t as_id, Json v) {
    if (place_ != Place::vocabulary) return value(std::move(v));
    parts_.vocabulary.add(key_, as_id);
    return true;
  }

  bool value(Json v) {
    if (place_ == Place::vocabulary) bad_id(parts_.file, key_);
    if (place_ == Place::merges) bad_merge(parts_.file, merge_count());
    if (stack_.empty()) throw_error<FormatError>("{}: must hold a JSON object; this is no tokenizer.json", parts_.file);
    put(std::move(v));
    return true;
  }

  Json* put(Json v) {
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    // Members' addresses must stay while a child is being filled, so only finished members may move: children close first.
    return &(parent[key_] = std::move(v));
  }

  bool open(Json v) {
    if (stack_.size() >= kDeepest) throw_error<FormatError>("{}: nested deeper than {} levels", parts_.file, kDeepest);
    if (stack_.empty()) {
      if (!v.is_object()) throw_error<FormatError>("{}: must hold a JSON object; this is no tokenizer.json", parts_.file);
      stack_.push_back(&parts_.rest);
    } else {
      stack_.push_back(put(std::move(v)));
    }
    return true;
  }

  TokenizerParts parts_;
  Place place_ = Place::rest;
  bool in_pair_ = false;
  std::string key_;
  std::vector<std::string> pair_;
  std::vector<Json*> stack_;
};

/// What the parser of a file guarantees, for JSON that comes from elsewhere: text is UTF-8, nesting has an end.
void check_rest(const Json& json, const std::string& where, size_t limit) {
  if (json.is_string() && !is_valid_utf8(json.get_ref<const std::string&>()))
    throw_error<FormatError>("{}: text {} is not UTF-8; fetch the file again", where,
                             printable(json.get_ref<const std::string&>()));
  if (!json.is_structured()) return;
  if (limit == 0) throw_error<FormatError>("{}: nested deeper than {} levels", where, kDeepest);
  for (const Json& child : json) check_rest(child, where, limit - 1);
}

void take_vocabulary(const Json& vocabulary, TokenizerParts& parts) {
  parts.has_vocabulary = true;
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_integer()) bad_id(parts.file, token);
    parts.vocabulary.add(token, id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX ? INT64_MAX : id.get<int64_t>());
  }
}

void take_merges(const Json& merges, TokenizerParts& parts) {
  parts.has_merges = true;
  for (size_t i = 0; i < merges.size(); ++i) {
    const Json& merge = merges[i];
    if (merge.is_string()) {
      add_merge(parts.merges, merge.get_ref<const std::string&>(), i, merges_field(parts.file));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      parts.merges.add(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
      parts.pairs = true;
    } else {
      bad_merge(parts.file, i);
    }
  }
}

}  // namespace

void MergeList::add(std::string_view left, std::string_view right) {
  if (text.size() + left.size() + right.size() >= UINT32_MAX)
    throw FormatError("a list of merges of more than 4 GB is not sensible");
  entries.push_back(
      {static_cast<uint32_t>(text.size()), static_cast<uint32_t>(left.size()), static_cast<uint32_t>(right.size())});
  text.append(left).append(right);
}

void add_merge(MergeList& merges, std::string_view text, size_t i, const std::string& where) {
  const size_t space = text.find(' ', 1);
  if (space == std::string_view::npos || space + 1 == text.size() || text.find(' ', space + 1) != std::string_view::npos)
    throw_error<FormatError>("{}[{}] must be two tokens with one space between, found {}; fetch the file again", where, i,
                             printable(text));
  merges.add(text.substr(0, space), text.substr(space + 1));
}

TokenizerParts read_tokenizer_json(std::string_view text, const std::string& file) {
  Reader reader(file);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) throw_error<FormatError>("{}: not valid JSON; fetch it again", file);
  return reader.take();
}

TokenizerParts take_tokenizer_json(const Json& json, const std::string& file) {
  TokenizerParts parts;
  parts.file = file;
  if (!json.is_object()) throw_error<FormatError>("{}: must hold a JSON object; this is no tokenizer.json", file);
  for (const auto& [name, value] : json.items()) {
    if (name != "model" || !value.is_object()) {
      check_rest(value, fmt::format("{}: {}", file, name), kDeepest);
      parts.rest[name] = value;
      continue;
    }
    Json& model = parts.rest["model"] = Json::object();
    for (const auto& [field, member] : value.items()) {
      if (field == "vocab" && member.is_object()) {
        take_vocabulary(member, parts);
      } else if (field == "merges" && member.is_array()) {
        take_merges(member, parts);
      } else {
        check_rest(member, fmt::format("{}: model.{}", file, field), kDeepest);
        model[field] = member;
      }
    }
  }
  return parts;
}

}  // namespace lighten::formats
