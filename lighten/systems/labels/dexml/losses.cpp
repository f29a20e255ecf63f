#include "lighten/systems/labels/dexml/losses.h"

#include "lighten/base/error.h"

namespace lighten {
namespace {

/// Row, column and weight (1 / positives of the row / rows that have any) of every positive.
struct Flat {
  torch::Tensor row, column, weight;
};
Flat flat(const Positives& positives) {
  std::vector<int64_t> rows, columns;
  std::vector<float> weights;
  int64_t filled = 0;
  for (const auto& list : positives) filled += !list.empty();
  for (size_t i = 0; i < positives.size(); ++i)
    for (const int64_t column : positives[i]) {
      rows.push_back(static_cast<int64_t>(i));
      columns.push_back(column);
      weights.push_back(1.0F / static_cast<float>(positives[i].size()) / static_cast<float>(filled));
    }
  return {torch::tensor(rows, torch::kInt64), torch::tensor(columns, torch::kInt64), torch::tensor(weights)};
}

torch::Tensor mean_over(const Flat& f, const torch::Tensor& losses) { return (losses * f.weight.to(losses.dtype())).sum(); }

/// True at the positives.
torch::Tensor mask_of(const torch::Tensor& scores, const Flat& f) {
  torch::Tensor mask = torch::zeros(scores.sizes(), torch::kBool);
  mask.index_put_({f.row, f.column}, torch::ones({f.row.size(0)}, torch::kBool));
  return mask;
}

struct SoftTopK : torch::autograd::Function<SoftTopK> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& scores, double k,
                               double sharpness) {
    // sum_l sigma(a (s_l + t)) grows with t, from nearly 0 at the lower end to nearly all labels at the upper.
    torch::Tensor low = -std::get<0>(scores.max(1, true)) - 10 / sharpness,
                  high = -std::get<0>(scores.min(1, true)) + 10 / sharpness;
    for (int step = 0; step < 32; ++step) {
      const torch::Tensor middle = (low + high) / 2;
      const torch::Tensor too_few = torch::sigmoid(sharpness * (scores + middle)).sum(1, true) < k;
      low = torch::where(too_few, middle, low);
      high = torch::where(too_few, high, middle);
    }
    const torch::Tensor p = torch::sigmoid(sharpness * (scores + (low + high) / 2));
    context->save_for_backward({p});
    context->saved_data["sharpness"] = sharpness;
    return p;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const torch::Tensor p = context->get_saved_variables()[0];
    const torch::Tensor v = context->saved_data["sharpness"].toDouble() * p * (1 - p);
    const torch::Tensor mean = (gradients[0] * v).sum(1, true) / v.sum(1, true).clamp_min(1e-30);
    return {v * (gradients[0] - mean), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor infonce_loss(const torch::Tensor& scores, const Positives& positives) {
  const Flat f = flat(positives);
  return mean_over(f, torch::logsumexp(scores, 1).index_select(0, f.row) - scores.index({f.row, f.column}));
}

torch::Tensor decoupled_softmax_loss(const torch::Tensor& scores, const Positives& positives) {
  const Flat f = flat(positives);
  // ln sum over the negatives of each row; a row without negatives has none to compete with.
  const torch::Tensor negatives = torch::logsumexp(scores.masked_fill(mask_of(scores, f), -1e30), 1);
  const torch::Tensor own = scores.index({f.row, f.column});
  return mean_over(f, torch::logaddexp(own, negatives.index_select(0, f.row)) - own);
}

torch::Tensor one_vs_rest_loss(const torch::Tensor& scores, const Positives& positives) {
  const torch::Tensor targets = mask_of(scores, flat(positives)).to(scores.dtype());
  return torch::binary_cross_entropy_with_logits(scores, targets, {}, {}, at::Reduction::Sum) / scores.size(0);
}

torch::Tensor soft_top_k(const torch::Tensor& scores, double k, double sharpness) {
  if (k <= 0 || k >= static_cast<double>(scores.size(1)))
    throw_error<OptionError>("soft top-{} of {} labels", k, scores.size(1));
  return SoftTopK::apply(scores, k, sharpness);
}

torch::Tensor soft_top_k_loss(const torch::Tensor& scores, const Positives& positives, double k, double sharpness) {
  const Flat f = flat(positives);
  return mean_over(f, -soft_top_k(scores, k, sharpness).index({f.row, f.column}).clamp_min(1e-12).log());
}

torch::Tensor match_loss(const std::string& name, const torch::Tensor& scores, const Positives& positives) {
  if (name == "decoupled") return decoupled_softmax_loss(scores, positives);
  if (name == "soft-topk") return soft_top_k_loss(scores, positives);
  if (name == "infonce") return infonce_loss(scores, positives);
  if (name == "one-vs-rest") return one_vs_rest_loss(scores, positives);
  throw_error<OptionError>("a loss '{}': decoupled, soft-topk, infonce or one-vs-rest", name);
}

}  // namespace lighten
