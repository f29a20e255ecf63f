#include "lighten/features/bag_of_words.h"

#include <cctype>
#include <cmath>
#include <map>

#include "lighten/base/error.h"
#include "lighten/data/dataset.h"

namespace lighten {
namespace {

std::map<int64_t, double> counts_of(const std::string& text, int64_t columns) {
  std::map<int64_t, double> counts;
  std::string word;
  const auto close = [&] {
    if (word.size() >= 2) ++counts[static_cast<int64_t>(stable_hash(word) % static_cast<uint64_t>(columns))];
    word.clear();
  };
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || byte >= 0x80)
      word += static_cast<char>(std::tolower(byte));
    else
      close();
  }
  close();
  return counts;
}

}  // namespace

Features bag_of_words(const std::vector<std::string>& texts, int64_t columns, const std::vector<int64_t>& fitted) {
  if (columns < 1) throw_error<OptionError>("a bag of words with {} columns", columns);
  std::vector<std::map<int64_t, double>> counts;
  for (const std::string& text : texts) counts.push_back(counts_of(text, columns));
  std::vector<double> holding(static_cast<size_t>(columns));
  const auto count_in = [&](size_t i) {
    for (const auto& [place, count] : counts[i]) ++holding[static_cast<size_t>(place)];
  };
  if (fitted.empty())
    for (size_t i = 0; i < texts.size(); ++i) count_in(i);
  for (const int64_t i : fitted) count_in(static_cast<size_t>(i));
  const auto n = static_cast<double>(fitted.empty() ? texts.size() : fitted.size());
  Features features;
  features.rows = static_cast<int64_t>(texts.size());
  features.columns = columns;
  features.values.assign(texts.size() * static_cast<size_t>(columns), 0.0F);
  for (size_t i = 0; i < texts.size(); ++i) {
    double square = 0;
    for (auto& [place, count] : counts[i]) {
      count = (1 + std::log(count)) * (1 + std::log((1 + n) / (1 + holding[static_cast<size_t>(place)])));
      square += count * count;
    }
    for (const auto& [place, value] : counts[i])
      features.values[i * static_cast<size_t>(columns) + static_cast<size_t>(place)] =
          static_cast<float>(value / std::sqrt(square));
  }
  return features;
}

}  // namespace lighten
