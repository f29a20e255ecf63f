#include "lighten/data/label_census.h"

#include <fmt/format.h>

#include "lighten/base/options.h"
#include "lighten/base/progress.h"

namespace lighten {
namespace {

constexpr int64_t kFew = 3;
constexpr size_t kMostListed = 10;

}  // namespace

void LabelCensus::add(const std::string& label, const std::string& file, int64_t line) {
  Count& count = counts_[label];
  if (++count.number < kFew) count.first.emplace_back(file, line);
}

std::string LabelCensus::rare_classes() const {
  std::vector<std::string> frequent;
  for (const auto& [label, count] : counts_)
    if (count.number >= kFew) frequent.push_back(label);
  const size_t rare = counts_.size() - frequent.size();
  if (rare == 0) return "";
  std::string text = fmt::format("{} of {} classes {} fewer than {} labels; misspelt?", rare, counts_.size(),
                                 rare == 1 ? "has" : "have", kFew);
  size_t listed = 0;
  for (const auto& [label, count] : counts_) {
    if (count.number >= kFew) continue;
    if (++listed > kMostListed) return text + fmt::format("\n  and {} more", rare - kMostListed);
    text += fmt::format("\n  '{}' (", label);
    for (size_t i = 0; i < count.first.size(); ++i)
      text += fmt::format("{}{}: line {}", i == 0 ? "" : ", ", count.first[i].first, count.first[i].second);
    const std::string nearest = nearest_name(label, frequent);
    text += nearest.empty() ? ")" : fmt::format("); did you mean '{}'?", nearest);
  }
  return text;
}

void LabelCensus::warn_of_rare_classes() const {
  if (const std::string text = rare_classes(); !text.empty()) warn(text);
}

}  // namespace lighten
