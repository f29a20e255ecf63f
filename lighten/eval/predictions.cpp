#include "lighten/eval/predictions.h"

#include <algorithm>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/formats/csv.h"

namespace lighten {

std::string predictions_csv(const torch::Tensor& probabilities, const std::vector<std::string>& class_names,
                            const std::vector<std::string>& ids, int64_t top) {
  const torch::Tensor values = probabilities.to(torch::kFloat).contiguous();
  const int64_t rows = values.size(0), classes = values.size(1);
  if (std::ssize(class_names) != classes || (!ids.empty() && std::ssize(ids) != rows))
    throw_error<OptionError>("predictions: {} names for {} classes, {} ids for {} samples", class_names.size(), classes,
                             ids.size(), rows);
  const int64_t listed = std::clamp<int64_t>(top, 1, classes);
  std::string table = top > 1 ? "id,rank,label,probability\n" : "id,label,probability\n";
  std::vector<int64_t> order(static_cast<size_t>(classes));
  for (int64_t i = 0; i < rows; ++i) {
    const float* p = values.const_data_ptr<float>() + i * classes;
    std::iota(order.begin(), order.end(), int64_t{0});
    std::partial_sort(order.begin(), order.begin() + listed, order.end(),
                      [p](int64_t a, int64_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    const std::string id = ids.empty() ? std::to_string(i) : csv_field(ids[static_cast<size_t>(i)]);
    for (int64_t r = 0; r < listed; ++r) {
      const auto best = static_cast<size_t>(order[static_cast<size_t>(r)]);
      table +=
          id + (top > 1 ? fmt::format(",{}", r + 1) : "") + fmt::format(",{},{:.6f}\n", csv_field(class_names[best]), p[best]);
    }
  }
  return table;
}

}  // namespace lighten
