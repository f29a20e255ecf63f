// Pictures with a caption and keywords each: emoji and drawings. Stored as a set of pictures with captions.tsv beside it.
#pragma once
#include <string>
#include <vector>

#include "lighten/data/card.h"
#include "lighten/data/dataset.h"

namespace lighten {

struct CaptionedSet {
  ImageSet pictures;
  std::vector<std::string> captions;           ///< of every picture; "" where none is known
  std::vector<std::vector<int32_t>> keywords;  ///< of every picture: ascending indices into keyword_names
  std::vector<std::string> keyword_names;
};

/// "emoji" or "clipart", split by key as the set of pictures of that id. Keywords that fewer than `least_samples` training
/// pictures carry are left out. Throws OptionError for another id.
CaptionedSet captioned_set(const std::string& id, const DataOptions& options = {}, int64_t least_samples = 5);
const std::vector<std::string>& captioned_set_ids();

DataCard card_of(const CaptionedSet& set);

/// Fills keywords and keyword_names from words; repeats of one picture count once.
void set_keywords(CaptionedSet& set, const std::vector<std::vector<std::string>>& words);
/// Leaves out the keywords that fewer than `least` training pictures carry.
void keep_frequent_keywords(CaptionedSet& set, int64_t least);

/// pixels.npy, samples.tsv, classes.txt and captions.tsv (id, caption, keywords separated by '|'). Throws FormatError, naming
/// the line, where captions.tsv does not fit samples.tsv.
void save_captioned_set(const CaptionedSet& set, const fs::path& folder);
CaptionedSet load_captioned_set(const fs::path& folder);

/// "a | b|c" -> a, b, c in lower case, without spaces around them, empty ones and line ends.
std::vector<std::string> split_keywords(const std::string& text, char separator);

}  // namespace lighten
