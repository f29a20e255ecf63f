#include "lighten/systems/labels/bebr/lsa.h"

#include <torch/torch.h>

#include <numeric>

#include "lighten/features/bag_of_words.h"
#include "lighten/nn/product.h"

namespace lighten::bebr {
namespace {

std::vector<float> unit_values(const torch::Tensor& x) {
  const torch::Tensor unit =
      torch::nn::functional::normalize(x, torch::nn::functional::NormalizeFuncOptions().dim(1)).contiguous();
  return {unit.data_ptr<float>(), unit.data_ptr<float>() + unit.numel()};
}

}  // namespace

LsaVectors lsa_vectors(const std::vector<std::string>& queries, const std::vector<std::string>& documents, int64_t dimensions,
                       int64_t buckets) {
  const torch::NoGradGuard no_gradients;
  std::vector<std::string> texts = documents;
  texts.insert(texts.end(), queries.begin(), queries.end());
  const auto count = static_cast<int64_t>(documents.size());
  std::vector<int64_t> counted(documents.size());
  std::iota(counted.begin(), counted.end(), 0);
  Features words = bag_of_words(texts, buckets, counted);
  const torch::Tensor all = torch::from_blob(words.values.data(), {words.rows, buckets}), d = all.slice(0, 0, count);
  // The largest eigenvectors of D^T D are the first right singular vectors of D.
  const torch::Tensor columns = d.t().contiguous();
  const torch::Tensor axes = std::get<1>(torch::linalg_eigh(product(columns, columns))).slice(1, buckets - dimensions);
  return {dimensions, unit_values(all.slice(0, count).matmul(axes)), unit_values(d.matmul(axes))};
}

}  // namespace lighten::bebr
