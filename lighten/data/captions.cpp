#include "lighten/data/captions.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/packages.h"
#include "lighten/formats/csv.h"

namespace lighten {

namespace {

/// On one line, without tabs.
std::string field(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  return csv_field(text);
}

}  // namespace

const std::vector<std::string>& captioned_set_ids() {
  static const std::vector<std::string> ids = {"clipart", "emoji"};
  return ids;
}

std::vector<std::string> split_keywords(const std::string& text, char separator) {
  std::vector<std::string> words;
  std::string word;
  const auto finish = [&] {
    while (!word.empty() && word.back() == ' ') word.pop_back();
    if (!word.empty()) words.push_back(word);
    word.clear();
  };
  for (const char c : text) {
    if (c == separator) {
      finish();
      continue;
    }
    const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (space && (word.empty() || word.back() == ' ')) continue;
    word += space ? ' ' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  finish();
  return words;
}

void set_keywords(CaptionedSet& set, const std::vector<std::vector<std::string>>& words) {
  std::map<std::string, int32_t> place;
  for (const auto& of_picture : words)
    for (const std::string& word : of_picture) place.emplace(word, 0);
  set.keyword_names.clear();
  for (auto& [word, index] : place) {
    index = static_cast<int32_t>(set.keyword_names.size());
    set.keyword_names.push_back(word);
  }
  set.keywords.assign(words.size(), {});
  for (size_t i = 0; i < words.size(); ++i) {
    std::set<int32_t> distinct;
    for (const std::string& word : words[i]) distinct.insert(place.at(word));
    set.keywords[i].assign(distinct.begin(), distinct.end());
  }
}

void keep_frequent_keywords(CaptionedSet& set, int64_t least) {
  std::vector<int64_t> counts(set.keyword_names.size());
  for (size_t i = 0; i < set.keywords.size(); ++i)
    if (set.pictures.splits[i] == Split::train)
      for (const int32_t k : set.keywords[i]) ++counts[k];
  std::vector<int32_t> renumbered(counts.size(), -1);
  std::vector<std::string> names;
  for (size_t k = 0; k < counts.size(); ++k) {
    if (counts[k] < least) continue;
    renumbered[k] = static_cast<int32_t>(names.size());
    names.push_back(set.keyword_names[k]);
  }
  set.keyword_names = std::move(names);
  for (std::vector<int32_t>& of_picture : set.keywords) {
    std::erase_if(of_picture, [&](int32_t k) { return renumbered[k] < 0; });
    for (int32_t& k : of_picture) k = renumbered[k];
  }
}

void save_captioned_set(const CaptionedSet& set, const fs::path& folder) {
  save_image_set(set.pictures, folder);
  std::string rows = "id\tcaption\tkeywords\n";
  for (int64_t i = 0; i < set.pictures.size(); ++i) {
    std::string words;
    for (const int32_t k : set.keywords[i]) words += (words.empty() ? "" : "|") + set.keyword_names[k];
    rows += set.pictures.ids[i] + "\t" + field(set.captions[i]) + "\t" + field(words) + "\n";
  }
  write_file(folder / "captions.tsv", rows);
}

CaptionedSet load_captioned_set(const fs::path& folder) {
  CaptionedSet set{.pictures = load_image_set(folder), .captions = {}, .keywords = {}, .keyword_names = {}};
  const CsvTable table = read_csv(folder / "captions.tsv", {.separator = '\t'});
  const size_t id = table.column("id"), caption = table.column("caption"), keywords = table.column("keywords");
  if (table.size() != set.pictures.size())
    throw_error<FormatError>("{}: {} rows for {} pictures", table.file, table.size(), set.pictures.size());
  std::vector<std::vector<std::string>> words;
  for (int64_t row = 0; row < table.size(); ++row) {
    if (table.text(row, id) != set.pictures.ids[row])
      throw_error<FormatError>("{}: '{}' where samples.tsv has '{}'", table.where(row), table.text(row, id),
                               set.pictures.ids[row]);
    set.captions.push_back(table.text(row, caption));
    words.push_back(split_keywords(table.text(row, keywords), '|'));
  }
  set_keywords(set, words);
  return set;
}

CaptionedSet captioned_set(const std::string& id, const DataOptions& options, int64_t least_samples) {
  const auto& ids = captioned_set_ids();
  if (std::find(ids.begin(), ids.end(), id) == ids.end())
    throw OptionError(unknown_name_message("set of pictures with captions", id, ids));
  CaptionedSet set = load_captioned_set(data_path(id, options.fetch));
  set.pictures.splits = split_all(set.pictures.keys, {}, options.split_seed);
  keep_frequent_keywords(set, least_samples);
  if (options.limit <= 0) return set;
  const std::vector<int64_t> samples = limit_samples(set.pictures.ids, set.pictures.splits, options.limit);
  CaptionedSet part{
      .pictures = subset(set.pictures, samples), .captions = {}, .keywords = {}, .keyword_names = set.keyword_names};
  for (const int64_t i : samples) {
    part.captions.push_back(set.captions[i]);
    part.keywords.push_back(set.keywords[i]);
  }
  return part;
}

}  // namespace lighten
