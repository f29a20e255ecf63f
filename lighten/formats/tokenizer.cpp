#include "lighten/formats/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <variant>

#include "lighten/base/error.h"
#include "lighten/formats/bpe.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/pretokenizer.h"
#include "lighten/formats/tokenizer_decoder.h"
#include "lighten/formats/tokenizer_normalizer.h"
#include "lighten/formats/tokenizer_parts.h"
#include "lighten/formats/unicode.h"
#include "lighten/formats/wordpiece.h"

namespace lighten {
namespace formats {
namespace {

constexpr size_t kCachedFrom = 1024;  // bytes of text from which on remembering words pays
constexpr size_t kLongestCached = 48, kCacheSlots = 4096, kMostCachedText = 1 << 20;

/// Words of one text and their ids; a newer word takes the place of an older one.
class WordCache {
 public:
  template <typename Encode>
  void encode(std::string_view word, std::vector<int32_t>& ids, Encode&& encode) {
    if (word.size() > kLongestCached) return encode();
    if (slots_.empty() || text_.size() > kMostCachedText) {
      slots_.assign(kCacheSlots, {});
      text_.clear();
      ids_.clear();
    }
    const uint64_t hash = hash_of(word);
    Slot& slot = slots_[(hash ^ hash >> 32) % kCacheSlots];
    if (slot.length == word.size() && std::string_view(text_).substr(slot.text, slot.length) == word) {
      ids.insert(ids.end(), ids_.begin() + slot.ids, ids_.begin() + slot.ids + slot.count);
      return;
    }
    const size_t before = ids.size();
    encode();
    slot = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(word.size()), static_cast<uint32_t>(ids_.size()),
            static_cast<uint32_t>(ids.size() - before)};
    text_ += word;
    ids_.insert(ids_.end(), ids.begin() + before, ids.end());
  }

 private:
  struct Slot {
    uint32_t text = 0, length = 0, ids = 0, count = 0;
  };
  std::vector<Slot> slots_;
  std::string text_;
  std::vector<int32_t> ids_;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerParts parts);

  std::vector<int32_t> encode(std::string_view text, bool special) const override;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override;
  std::string piece(int32_t id, bool skip_special) const override;
  int32_t size() const override { return size_; }
  int32_t id(std::string_view token) const override;
  std::string token(int32_t id) const override;
  bool is_special(int32_t id) const override {
    const AddedToken* added = find_added(id);
    return added && added->special;
  }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }
  bool adds_bos() const override { return adds_bos_; }
  Json to_json() const override;

 private:
  struct Encoder;

  void build_model(TokenizerParts& parts);
  void build_bpe(const Fields& model, const TokenizerParts& parts);
  std::vector<Merge> resolve_merges(const TokenizerParts& parts, const std::string& prefix) const;
  void check_added(std::vector<AddedToken>& added);
  std::string numbering_fault(const std::vector<AddedToken>& added) const;
  const AddedToken* find_added(int32_t id) const;
  /// The token as the decoder takes it, "" if there is none.
  std::string decoded_form(int32_t id) const;

  std::string file_;
  Json rest_;
  bool merge_pairs_;
  int32_t bos_, eos_, size_ = 0;
  bool adds_bos_;
  Vocabulary vocabulary_;
  std::variant<Bpe, WordPiece> model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  std::vector<AddedToken> added_;                        // by id
  std::unordered_map<int32_t, std::string> normalized_;  // of added tokens that normalization changes
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
};

const Json& field_or_null(const Json& object, const char* name) {
  static const Json null;
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

PipelineTokenizer::PipelineTokenizer(TokenizerParts parts)
    : file_(parts.file),
      merge_pairs_(parts.pairs),
      bos_(parts.bos),
      eos_(parts.eos),
      adds_bos_(parts.adds_bos),
      normalizer_(field_or_null(parts.rest, "normalizer"), parts.file + ": normalizer"),
      pre_tokenizer_(field_or_null(parts.rest, "pre_tokenizer"), parts.file + ": pre_tokenizer"),
      decoder_(field_or_null(parts.rest, "decoder"), parts.file + ": decoder") {
  build_model(parts);
  check_added(parts.added);
  added_ = std::move(parts.added);
  rest_ = std::move(parts.rest);
  for (size_t i = 0; i < added_.size(); ++i) {
    const AddedToken& token = added_[i];
    if (!token.normalized) {
      raw_matcher_.add(token.content, static_cast<int32_t>(i));
      continue;
    }
    std::string content = normalizer_.apply(token.content);
    normalized_matcher_.add(content, static_cast<int32_t>(i));
    if (content != token.content) normalized_.emplace(token.id, std::move(content));
  }
}

void PipelineTokenizer::build_model(TokenizerParts& parts) {
  const Fields model = Fields(parts.rest, file_).object("model");
  const std::string type = model.text("type", parts.has_merges ? "BPE" : "");
  if (type != "BPE" && type != "WordPiece")
    throw_error<FormatError>("{}: model.type \"{}\" is not supported; supported are BPE and WordPiece", file_, printable(type));
  if (!parts.has_vocabulary) throw_error<FormatError>("{}: model.vocab is missing or no object; fetch the file again", file_);
  vocabulary_ = Vocabulary(std::move(parts.vocabulary), file_ + ": model.vocab");
  if (type == "BPE") return build_bpe(model, parts);
  WordPieceOptions options;
  const std::string unknown = model.text("unk_token", "[UNK]");
  options.unknown = vocabulary_.find(unknown);
  if (options.unknown < 0)
    throw_error<FormatError>("{}: model.unk_token {} is not in model.vocab; add it", file_, printable(unknown));
  options.subword_prefix = model.text("continuing_subword_prefix", "##");
  const int64_t longest = model.integer("max_input_chars_per_word", 100);
  if (longest < 1 || longest > 1'000'000)
    throw_error<FormatError>("{}: model.max_input_chars_per_word is {}; it must lie between 1 and 1000000", file_, longest);
  options.longest_word = static_cast<size_t>(longest);
  model_.emplace<WordPiece>(vocabulary_, std::move(options));
}

void PipelineTokenizer::build_bpe(const Fields& model, const TokenizerParts& parts) {
  if (!parts.has_merges && parts.scores.empty())
    throw_error<FormatError>("{}: model.merges is missing or no list; fetch the file again", file_);
  BpeOptions options;
  if (model.has("unk_token")) {
    options.unknown = vocabulary_.find(model.text("unk_token"));
    if (options.unknown < 0)
      throw_error<FormatError>("{}: model.unk_token {} is not in model.vocab; add it or set null", file_,
                               printable(model.text("unk_token")));
  }
  options.fuse_unknown = model.boolean("fuse_unk", false);
  options.byte_fallback = model.boolean("byte_fallback", false);
  options.ignore_merges = model.boolean("ignore_merges", false);
  options.subword_prefix = model.text("continuing_subword_prefix", "");
  options.word_suffix = model.text("end_of_word_suffix", "");
  std::vector<Merge> merges = parts.scores.empty() ? resolve_merges(parts, options.subword_prefix)
                                                   : merges_from_scores(vocabulary_, parts.scores, parts.merges_into);
  merges.shrink_to_fit();
  model_.emplace<Bpe>(vocabulary_, std::move(merges), std::move(options));
}

std::vector<Merge> PipelineTokenizer::resolve_merges(const TokenizerParts& parts, const std::string& prefix) const {
  std::vector<Merge> merges;
  merges.reserve(parts.merges.entries.size());
  const auto require = [&](std::string_view token, size_t i) {
    const int32_t id = vocabulary_.find(token);
    if (id < 0)
      throw_error<FormatError>("{}: model.merges[{}] needs token {}, which is not in model.vocab; fetch the file again", file_,
                               i, printable(token));
    return id;
  };
  std::string whole;
  for (size_t i = 0; i < parts.merges.entries.size(); ++i) {
    const std::string_view left = parts.merges.left(i), right = parts.merges.right(i);
    if (left.empty() || !right.starts_with(prefix) || right.size() == prefix.size())
      throw_error<FormatError>("{}: model.merges[{}] joins {} and {}, which adds nothing; remove it", file_, i, printable(left),
                               printable(right));
    whole.assign(left).append(right.substr(prefix.size()));
    merges.push_back({require(left, i), require(right, i), require(whole, i)});
  }
  return merges;
}

/// Sorts added tokens by id and refuses those that contradict the vocabulary or each other.
/// `tokenizers` takes no notice of the ids of added tokens that model.vocab does not hold: it counts on from the vocabulary's
/// size in the order of the file. "" where that gives the same ids, else what is wrong.
std::string PipelineTokenizer::numbering_fault(const std::vector<AddedToken>& added) const {
  auto next = static_cast<int64_t>(vocabulary_.count());
  for (const AddedToken& token : added) {
    if (vocabulary_.find(token.content) < 0 && token.id != next)
      return fmt::format(
          "{}: added token {} has id {}, but {} is the next free one; number added tokens without gaps, in order", file_,
          printable(token.content), token.id, next);
    next = std::max(next, int64_t{token.id} + 1);
  }
  return "";
}

void PipelineTokenizer::check_added(std::vector<AddedToken>& added) {
  const std::string fault = numbering_fault(added);
  std::stable_sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  size_ = vocabulary_.size();
  for (size_t i = 0; i < added.size(); ++i) {
    const AddedToken& token = added[i];
    const int32_t known = vocabulary_.find(token.content);
    if (known >= 0 && known != token.id)
      throw_error<FormatError>("{}: added token {} has id {}, but model.vocab gives it {}; make them equal", file_,
                               printable(token.content), token.id, known);
    if (known < 0 && vocabulary_.has(token.id))
      throw_error<FormatError>("{}: added token {} has id {}, which model.vocab gives to {}; give each its own", file_,
                               printable(token.content), token.id, printable(vocabulary_.token(token.id)));
    if (i > 0 && added[i - 1].id == token.id)
      throw_error<FormatError>("{}: added tokens {} and {} share the id {}; give each its own", file_,
                               printable(added[i - 1].content), printable(token.content), token.id);
    size_ = std::max(size_, token.id + 1);
  }
  if (!fault.empty()) throw FormatError(fault);
}

const AddedToken* PipelineTokenizer::find_added(int32_t id) const {
  const auto found =
      std::lower_bound(added_.begin(), added_.end(), id, [](const AddedToken& a, int32_t b) { return a.id < b; });
  return found != added_.end() && found->id == id ? &*found : nullptr;
}

/// One encode() under way.
struct PipelineTokenizer::Encoder final : WordSink {
  const PipelineTokenizer& tokenizer;
  std::vector<int32_t> ids;
  WordCache cache;
  bool cached;

  Encoder(const PipelineTokenizer& tokenizer, size_t text_bytes) : tokenizer(tokenizer), cached(text_bytes >= kCachedFrom) {
    ids.reserve(text_bytes / 3);
  }

  void section(std::string_view text, bool first, bool special) {
    std::string normalized;
    if (!tokenizer.normalizer_.empty()) {
      normalized = tokenizer.normalizer_.apply(std::string(text));
      text = normalized;
    }
    if (tokenizer.normalized_matcher_.empty()) return tokenizer.pre_tokenizer_.split(text, first, *this);
    pieces(tokenizer.normalized_matcher_, text, special, [&](size_t start, size_t end) {
      tokenizer.pre_tokenizer_.split(text.substr(start, end - start), first && start == 0, *this);
    });
  }

  template <typename Gap>
  void pieces(const AddedTokenMatcher& matcher, std::string_view text, bool special, Gap&& gap) {
    matcher.pieces(
        text, tokenizer.added_, [&](int32_t i) { return !special && tokenizer.added_[i].special; }, gap,
        [&](int32_t i) { ids.push_back(tokenizer.added_[i].id); });
  }

  void word(std::string_view text) override {
    if (const Bpe* bpe = std::get_if<Bpe>(&tokenizer.model_)) {
      bpe->each_part(text, [&](std::string_view part) { remember(part, *bpe); });
    } else {
      remember(text, std::get<WordPiece>(tokenizer.model_));
    }
  }

  template <typename Model>
  void remember(std::string_view text, const Model& model) {
    if (!cached) return model.encode(text, ids);
    cache.encode(text, ids, [&] { model.encode(text, ids); });
  }
};

std::vector<int32_t> PipelineTokenizer::encode(std::string_view text, bool special) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    append_valid_utf8(repaired, text);
    text = repaired;
  }
  Encoder encoder(*this, text.size());
  encoder.pieces(raw_matcher_, text, special,
                 [&](size_t start, size_t end) { encoder.section(text.substr(start, end - start), start == 0, special); });
  return std::move(encoder.ids);
}

std::string PipelineTokenizer::decoded_form(int32_t id) const {
  if (const auto found = normalized_.find(id); found != normalized_.end()) return found->second;
  return token(id);
}

std::string PipelineTokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids)
    if ((find_added(id) || vocabulary_.has(id)) && !(skip_special && is_special(id))) tokens.push_back(decoded_form(id));
  return decoder_.decode(std::move(tokens));
}

std::string PipelineTokenizer::piece(int32_t id, bool skip_special) const {
  if (!(find_added(id) || vocabulary_.has(id)) || (skip_special && is_special(id))) return "";
  return decoder_.piece(decoded_form(id));
}

int32_t PipelineTokenizer::id(std::string_view token) const {
  if (const int32_t found = vocabulary_.find(token); found >= 0) return found;
  for (const AddedToken& added : added_)
    if (added.content == token) return added.id;
  return -1;
}

std::string PipelineTokenizer::token(int32_t id) const {
  if (const AddedToken* added = find_added(id)) return added->content;
  return vocabulary_.has(id) ? std::string(vocabulary_.token(id)) : "";
}

Json PipelineTokenizer::to_json() const {
  Json json = rest_;
  Json& added = json["added_tokens"] = Json::array();
  for (const AddedToken& token : added_) added.push_back(formats::to_json(token));
  // emplace_back of the underlying vector: the object's own insertion looks at every key first.
  Json vocabulary = Json::object();
  auto& members = vocabulary.get_ref<Json::object_t&>();
  using Members = Json::object_t::Container;
  members.Members::reserve(vocabulary_.count());
  for (int32_t id = 0; id < vocabulary_.size(); ++id)
    if (vocabulary_.has(id)) members.Members::emplace_back(std::string(vocabulary_.token(id)), id);
  json["model"]["vocab"] = std::move(vocabulary);
  const Bpe* bpe = std::get_if<Bpe>(&model_);
  if (!bpe) return json;
  const auto text = [&](int32_t id) { return std::string(vocabulary_.token(id)); };
  const bool pairs = merge_pairs_ || std::any_of(bpe->merges().begin(), bpe->merges().end(), [&](const Merge& merge) {
                       return vocabulary_.token(merge.whole).find(' ') != std::string_view::npos;
                     });
  Json merges = Json::array();
  merges.get_ref<Json::array_t&>().reserve(bpe->merges().size());
  for (const Merge& merge : bpe->merges()) {
    if (pairs) {
      merges.push_back(Json::array({text(merge.left), text(merge.right)}));
    } else {
      merges.push_back(text(merge.left) + " " + text(merge.right));
    }
  }
  json["model"]["merges"] = std::move(merges);
  return json;
}

std::shared_ptr<const Tokenizer> build(TokenizerParts parts, const Json& settings, const std::string& settings_file) {
  parts.added = parse_added_tokens(field_or_null(parts.rest, "added_tokens"), parts.file + ": added_tokens");
  parts.rest["added_tokens"] = nullptr;
  find_bos_and_eos(parts, settings, settings_file);
  return make_tokenizer(std::move(parts));
}

}  // namespace

std::shared_ptr<const Tokenizer> make_tokenizer(TokenizerParts parts) {
  return std::make_shared<PipelineTokenizer>(std::move(parts));
}

}  // namespace formats

std::shared_ptr<const Tokenizer> Tokenizer::from_json(const Json& json, const std::string& file) {
  return formats::build(formats::take_tokenizer_json(json, file), nullptr, "");
}

std::shared_ptr<const Tokenizer> Tokenizer::from_file(const fs::path& tokenizer_json) {
  const MappedFile file(tokenizer_json);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  formats::TokenizerParts parts = formats::read_tokenizer_json(text, tokenizer_json.string());
  const fs::path settings = tokenizer_json.parent_path() / "tokenizer_config.json";
  Json json;
  if (fs::is_regular_file(settings)) json = formats::parse_json<Json>(read_file(settings), settings.string());
  return formats::build(std::move(parts), json, settings.string());
}

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const Json& metadata, const std::string& file) {
  return formats::make_tokenizer(formats::take_gguf_metadata(metadata, file));
}

std::string StreamDecoder::add(int32_t id) {
  std::string bytes = tokenizer_->piece(id, skip_special_);
  if (first_ && !bytes.empty()) {
    first_ = false;
    // Decoders may drop the space before the first token; decode() knows.
    if (bytes[0] == ' ' && !tokenizer_->decode({id}, skip_special_).starts_with(' ')) bytes.erase(0, 1);
  }
  pending_ += bytes;
  std::string text;
  pending_.erase(0, formats::append_valid_utf8(text, pending_, true));
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  formats::append_valid_utf8(text, pending_);
  pending_.clear();
  first_ = true;
  return text;
}

}  // namespace lighten
