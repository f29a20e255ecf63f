// Linears on a graphics card (CUDA, compute capability 8.0 and newer). Built with LIGHTEN_CUDA; without it every function
// throws.
//
// Activations are rounded to binary16 (each token times a power of two, so that none overflows), codes are exact, sums are
// float. Few tokens go through a kernel that reads every weight once (bound by the card's memory), many through one that keeps
// 128 rows x 64 or 128 tokens on the tensor cores; both take the codes apart in registers.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/kernels/linear.h"

namespace lighten {

/// Whether this build has the code and this machine a card.
bool has_accelerator();
/// Its name. Throws OptionError if there is none, saying whether the build or the machine lacks it.
std::string accelerator_name();

/// A weight in the card's memory, in the order of kernels/device_layout.h.
class DeviceWeight {
 public:
  virtual ~DeviceWeight() = default;
  virtual size_t bytes() const = 0;  ///< that a product reads
};

/// Copies a weight to the card. Null for kinds without a kernel there (levels, planes, floats): those stay on the processor.
/// Throws OptionError without a card, ModelError if its memory is full.
std::shared_ptr<const DeviceWeight> to_device(const LinearSpec& spec, const std::byte* packed, ThreadPool& pool);

/// linear() on the card for tasks that all have `device`; `arithmetic` does not matter. Input and results are in the
/// processor's memory. Serialised: one call at a time.
void device_linear(std::span<const LinearTask> tasks, const LinearInput& input, int64_t tokens);

/// Weights that share an input, at most three: one launch.
struct DeviceStep {
  std::vector<std::shared_ptr<const DeviceWeight>> weights;
};
/// For benchmarks: another copy of the same numbers, in memory of its own.
std::shared_ptr<const DeviceWeight> duplicate(const DeviceWeight& weight);
/// Seconds that the card takes for one pass over `steps` with everything in its memory: median of `repeats` replays of one
/// recorded graph of launches, each step waiting for the one before.
double device_pass_seconds(std::span<const DeviceStep> steps, int64_t tokens, int repeats);
/// What the card can do at most, measured: bytes read from memory per second, and operations per second (two per multiply-add)
/// of mma.m16n8k16 on registers alone.
struct DeviceRoofs {
  double read_gb_per_s = 0, tensor_tflops = 0;
};
DeviceRoofs measure_device_roofs();

}  // namespace lighten
