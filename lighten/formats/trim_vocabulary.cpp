#include "lighten/formats/trim_vocabulary.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>

#include "lighten/base/error.h"
#include "lighten/formats/bpe.h"
#include "lighten/formats/chat_template.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/tokenizer_parts.h"
#include "lighten/formats/unicode.h"

namespace lighten {
namespace formats {
namespace {

/// "<unused12>", "<|reserved_special_token_7|>": numbered places for tokens that a user may add some day.
bool is_placeholder(std::string content) {
  if (content.find_first_of("0123456789") == std::string::npos) return false;
  std::transform(content.begin(), content.end(), content.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr const char* kWords[] = {"unused", "reserved", "placeholder", "dummy"};
  return std::any_of(std::begin(kWords), std::end(kWords),
                     [&](const char* word) { return content.find(word) != std::string::npos; });
}

/// Every token id that a post-processor holds (TemplateProcessing, BertProcessing and RobertaProcessing, sequences of them).
void each_processor_id(Json& processor, const std::function<void(Json&)>& use) {
  if (!processor.is_object()) return;
  if (const auto list = processor.find("processors"); list != processor.end() && list->is_array())
    for (Json& each : *list)
      if (each.is_object() && !each.contains("processors")) each_processor_id(each, use);
  for (const char* end : {"sep", "cls"})
    if (const auto pair = processor.find(end); pair != processor.end() && pair->is_array() && pair->size() == 2)
      use((*pair)[1]);
  const auto specials = processor.find("special_tokens");
  if (specials == processor.end() || !specials->is_object()) return;
  for (auto& special : *specials)
    if (const auto ids = special.is_object() ? special.find("ids") : special.end(); special.is_object() && ids != special.end())
      for (Json& id : *ids) use(id);
}

class Trimmer {
 public:
  Trimmer(const Tokenizer& tokenizer, const TrimVocabularyOptions& options, const std::string& file)
      : tokenizer_(tokenizer),
        options_(options),
        parts_(take_tokenizer_json(tokenizer.to_json(), file)),
        known_(static_cast<size_t>(std::max<int64_t>(options.rows, 0))),
        keep_(known_.size()) {
    check_model();
    vocabulary_ = Vocabulary(parts_.vocabulary, file + ": model.vocab");
    parts_.added = parse_added_tokens(parts_.rest["added_tokens"], file + ": added_tokens");
    parts_.rest["added_tokens"] = nullptr;
    for (const TokenList::Entry& entry : parts_.vocabulary.entries) know(entry.id);
    for (const AddedToken& token : parts_.added) know(token.id);
    resolve_merges();
  }

  TrimmedVocabulary trim(std::span<const int64_t> counts) {
    for (size_t id = 0; id < counts.size(); ++id)
      if (counts[id] >= options_.min_count) keep(static_cast<int64_t>(id));
    keep_named();
    keep_added();
    keep_spelling();
    close_over_merges();
    fill_up(counts);
    number();
    take_out_vocabulary();
    take_out_added();
    renumber_rest();
    return {make_tokenizer(std::move(parts_)), std::move(kept_)};
  }

 private:
  Json& model() { return parts_.rest["model"]; }
  bool kept(int64_t id) const { return has_row(id) && keep_[id]; }
  bool has_row(int64_t id) const { return id >= 0 && id < static_cast<int64_t>(keep_.size()); }
  void know(int64_t id) {
    if (has_row(id)) known_[id] = true;
  }
  void keep(int64_t id) {
    if (has_row(id)) keep_[id] = known_[id];
  }

  void check_model() {
    const Fields fields = Fields(parts_.rest, parts_.file).object("model");
    if (const std::string type = fields.text("type", "BPE"); type != "BPE")
      throw_error<FormatError>(
          "{}: the vocabulary cannot be trimmed: model.type is {}, and only BPE (byte-level or with byte fallback) can be; "
          "leave out --trim-vocab",
          parts_.file, printable(type));
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const std::string mark = fields.text(name, ""); !mark.empty())
        throw_error<FormatError>(
            "{}: the vocabulary cannot be trimmed: model.{} is {}, and only BPE without it can be; leave out --trim-vocab",
            parts_.file, name, printable(mark));
  }

  void resolve_merges() {
    std::string whole;
    for (size_t i = 0; i < parts_.merges.entries.size(); ++i) {
      const std::string_view left = parts_.merges.left(i), right = parts_.merges.right(i);
      whole.assign(left).append(right);
      merges_.push_back({vocabulary_.find(left), vocabulary_.find(right), vocabulary_.find(whole)});
    }
  }

  void keep_named() {
    keep(tokenizer_.bos());
    keep(tokenizer_.eos());
    for (const int64_t id : options_.required) keep(id);
    const auto unknown = model().find("unk_token");
    if (unknown != model().end() && unknown->is_string()) keep(vocabulary_.find(unknown->get_ref<const std::string&>()));
    each_processor_id(parts_.rest["post_processor"], [&](Json& id) {
      if (id.is_number_integer()) keep(id.get<int64_t>());
    });
    for (const int32_t id : tokenizer_.encode(sample_chats(options_.chat_template))) keep(id);
  }

  void keep_added() {
    for (const AddedToken& token : parts_.added)
      if (!is_placeholder(token.content) || options_.chat_template.find(token.content) != std::string::npos) keep(token.id);
  }

  /// What spells a text for which there is no token.
  void keep_spelling() {
    bool all_bytes = Fields(model(), parts_.file).boolean("byte_fallback", false);
    for (int byte = 0; byte < 256; ++byte) {
      const int32_t id = vocabulary_.find(fmt::format("<0x{:02X}>", byte));
      all_bytes = all_bytes && has_row(id);
      keep(id);
    }
    const std::string decoder = json_text(parts_.rest["decoder"]);
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      if (!vocabulary_.has(id)) continue;
      const std::string_view token = vocabulary_.token(id);
      if (token.empty() || character_bytes(token[0]) != token.size()) continue;
      if (!all_bytes || token.size() == 1 || decoder.find(token) != std::string::npos) keep(id);
    }
  }

  void close_over_merges() {
    const Bpe bpe(vocabulary_, merges_, {});
    std::vector<int32_t> path;
    const auto wanted = keep_;
    for (int32_t id = 0; id < static_cast<int32_t>(wanted.size()); ++id) {
      if (!wanted[id] || !vocabulary_.has(id)) continue;
      path.clear();
      bpe.merge_path(vocabulary_.token(id), path);
      if (path.empty() || path.back() != id) continue;  // not built by merges: a byte token, a marker, a word looked up whole
      for (const int32_t step : path) keep(step);
    }
  }

  /// Characters of the tokens that the corpus needs.
  std::set<char32_t> alphabet(std::span<const int64_t> counts) const {
    std::set<char32_t> characters;
    for (size_t id = 0; id < counts.size(); ++id) {
      if (counts[id] < options_.min_count || !vocabulary_.has(static_cast<int32_t>(id))) continue;
      const std::string_view token = vocabulary_.token(static_cast<int32_t>(id));
      for (size_t at = 0; at < token.size();) characters.insert(next_character(token, at));
    }
    return characters;
  }

  void fill_up(std::span<const int64_t> counts) {
    auto room = options_.tokens - std::count(keep_.begin(), keep_.end(), true);
    if (room <= 0) return;
    const std::set<char32_t> characters = alphabet(counts);
    const auto spelled = [&](std::string_view token) {
      for (size_t at = 0; at < token.size();)
        if (!characters.contains(next_character(token, at))) return false;
      return true;
    };
    const Bpe bpe(vocabulary_, merges_, {});
    std::vector<int32_t> path;
    for (const Merge& merge : merges_) {
      if (kept(merge.whole) || !has_row(merge.whole) || !spelled(vocabulary_.token(merge.whole))) continue;
      path.clear();
      bpe.merge_path(vocabulary_.token(merge.whole), path);
      if (path.empty() || path.back() != merge.whole) continue;  // another order of merges: no text gives this token
      std::sort(path.begin(), path.end());
      path.erase(std::unique(path.begin(), path.end()), path.end());
      std::erase_if(path, [&](int32_t id) { return kept(id); });
      room -= static_cast<int64_t>(path.size());
      if (room < 0) return;
      for (const int32_t id : path) keep(id);
    }
  }

  void number() {
    new_ids_.assign(keep_.size(), -1);
    for (size_t id = 0; id < keep_.size(); ++id) {
      if (!keep_[id]) continue;
      new_ids_[id] = static_cast<int32_t>(kept_.size());
      kept_.push_back(static_cast<int32_t>(id));
    }
  }

  void take_out_vocabulary() {
    MergeList merges;
    for (size_t i = 0; i < merges_.size(); ++i)
      if (kept(merges_[i].left) && kept(merges_[i].right) && kept(merges_[i].whole))
        merges.add(parts_.merges.left(i), parts_.merges.right(i));
    parts_.merges = std::move(merges);
    TokenList vocabulary;
    for (const TokenList::Entry& entry : parts_.vocabulary.entries)
      if (kept(entry.id)) vocabulary.add(parts_.vocabulary.token(entry), new_ids_[entry.id]);
    parts_.vocabulary = std::move(vocabulary);
  }

  void take_out_added() {
    std::erase_if(parts_.added, [&](const AddedToken& token) { return !kept(token.id); });
    for (AddedToken& token : parts_.added) token.id = new_ids_[token.id];
  }

  void renumber_rest() {
    const auto renumbered = [&](int64_t id) { return kept(id) ? new_ids_[id] : -1; };
    parts_.bos = renumbered(tokenizer_.bos());
    parts_.eos = renumbered(tokenizer_.eos());
    parts_.adds_bos = tokenizer_.adds_bos() && parts_.bos >= 0;
    each_processor_id(parts_.rest["post_processor"], [&](Json& id) {
      const int64_t old_id = id.is_number_integer() ? id.get<int64_t>() : -1;
      if (!kept(old_id))
        throw_error<FormatError>("{}: post_processor needs token {}, for which the model has no row; fetch the file again",
                                 parts_.file, json_text(id));
      id = new_ids_[old_id];
    });
    Json& padding = parts_.rest["padding"];
    if (!padding.is_object()) return;
    const auto pad = padding.find("pad_id");
    const int64_t old_id = pad != padding.end() && pad->is_number_integer() ? pad->get<int64_t>() : -1;
    if (kept(old_id)) {
      padding["pad_id"] = new_ids_[old_id];
    } else {
      padding = nullptr;
    }
  }

  const Tokenizer& tokenizer_;
  const TrimVocabularyOptions& options_;
  TokenizerParts parts_;
  Vocabulary vocabulary_;
  std::vector<Merge> merges_;       // by old ids, in the order of parts_.merges
  std::vector<bool> known_, keep_;  // by old id: there is such a token; it stays
  std::vector<int32_t> new_ids_, kept_;
};

}  // namespace
}  // namespace formats

int32_t TrimmedVocabulary::new_id(int64_t old_id) const {
  const auto found = std::lower_bound(kept.begin(), kept.end(), old_id);
  return found != kept.end() && *found == old_id ? static_cast<int32_t>(found - kept.begin()) : -1;
}

TrimmedVocabulary trim_vocabulary(const Tokenizer& tokenizer, std::span<const int64_t> counts,
                                  const TrimVocabularyOptions& options, const std::string& file) {
  return formats::Trimmer(tokenizer, options, file).trim(counts);
}

}  // namespace lighten
