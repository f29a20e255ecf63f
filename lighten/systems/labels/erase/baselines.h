// What ERASE is measured against: the same graph, the same labels, the same rule for the epoch that is kept.
#pragma once
#include "lighten/systems/labels/erase/erase.h"

namespace lighten {

/// Two GCNs, each trained on the labels whose loss is small for the other (Han et al., "Co-teaching");
/// their mean. `forget`: share of the labels with the largest loss that are left out in the end.
torch::Tensor train_coteaching(const GraphTask& task, const GraphTrainOptions& options, double forget, const std::string& title,
                               const TrainPlace& place = {});
/// Labels spread by (1 - alpha) D^-1/2 A D^-1/2 Y + alpha Y0; alpha of 0.02 to 0.5 by validation accuracy.
torch::Tensor label_propagation(const GraphTask& task);

}  // namespace lighten
