// Activations of all calibration rows, in chunks, in memory or (past a limit) in a temporary file.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// How many bytes of activations may stay in memory, counted over all stores that share it; the rest is spilled into `folder`.
struct SpillBudget {
  uint64_t limit = 4ull << 30;
  fs::path folder;  ///< empty: never spill
  uint64_t used = 0, spilled = 0;
};

/// A sequence of float32 chunks [rows, row, width]. A chunk that does not fit the budget lies in an unlinked temporary file
/// that is mapped, so the kernel writes it out when memory is short. Throws FileError when the disk is full.
class ActivationStore {
 public:
  explicit ActivationStore(std::shared_ptr<SpillBudget> budget);
  ~ActivationStore();
  ActivationStore(ActivationStore&&) noexcept;
  ActivationStore& operator=(ActivationStore&&) noexcept;

  int64_t chunks() const { return static_cast<int64_t>(chunks_.size()); }
  /// The chunk itself (no copy): writing to it writes to the store.
  const torch::Tensor& at(int64_t chunk) const { return chunks_[static_cast<size_t>(chunk)]; }
  void append(const torch::Tensor& values);
  void clear();
  uint64_t bytes() const;

 private:
  struct Mapping;
  std::shared_ptr<SpillBudget> budget_;
  std::vector<torch::Tensor> chunks_;
  std::vector<std::unique_ptr<Mapping>> mappings_;
  uint64_t in_memory_ = 0;
};

}  // namespace lighten
