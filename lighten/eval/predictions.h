// What a classifier says about samples, as the files that the verbs write.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

namespace lighten {

/// "id,label,probability", a line a sample with its likeliest class; with `top` above 1 "id,rank,label,probability", so many
/// lines a sample, the likeliest class first (the first class on ties). probabilities [n, classes]; without `ids` a sample's id
/// is its row.
std::string predictions_csv(const torch::Tensor& probabilities, const std::vector<std::string>& class_names,
                            const std::vector<std::string>& ids = {}, int64_t top = 1);

}  // namespace lighten
