#include "lighten/nn/knn.h"

#include <algorithm>
#include <map>

#include "lighten/base/error.h"
#include "lighten/nn/product.h"

namespace lighten {

KnnGraph knn_graph(const torch::Tensor& x, int64_t k, double longest) {
  if (x.dim() != 2 || k < 1) throw_error<OptionError>("{} nearest neighbours of a tensor of {} dimensions", k, x.dim());
  const torch::NoGradGuard no_grad;
  const int64_t n = x.size(0), neighbours = std::min(k, n - 1);
  const torch::Tensor unit = x / x.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
  std::vector<std::pair<std::pair<int32_t, int32_t>, double>> found;
  constexpr int64_t kRows = 1024;
  for (int64_t begin = 0; begin < n && neighbours > 0; begin += kRows) {
    const int64_t end = std::min(begin + kRows, n);
    torch::Tensor cosine = product(unit.slice(0, begin, end), unit);
    cosine.diagonal(begin).fill_(-2);  // nobody is its own neighbour
    const auto [best, place] = cosine.topk(neighbours, 1);
    const torch::Tensor values = best.contiguous(), places = place.contiguous();
    for (int64_t i = begin; i < end; ++i)
      for (int64_t c = 0; c < neighbours; ++c) {
        const double distance = 1 - static_cast<double>(values[i - begin].data_ptr<float>()[c]);
        const auto j = static_cast<int32_t>(places[i - begin].data_ptr<int64_t>()[c]);
        if (distance < longest) found.push_back({std::minmax(static_cast<int32_t>(i), j), distance});
      }
  }
  std::sort(found.begin(), found.end());
  KnnGraph graph;
  for (const auto& [edge, distance] : found)
    if (graph.edges.empty() || graph.edges.back() != edge) {
      graph.edges.push_back(edge);
      graph.distances.push_back(distance);
    }
  return graph;
}

}  // namespace lighten
