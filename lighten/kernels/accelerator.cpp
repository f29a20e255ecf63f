// What a build without CUDA says.
#include "lighten/kernels/accelerator.h"

#include "lighten/base/error.h"

#ifndef LIGHTEN_CUDA

namespace lighten {

namespace {
[[noreturn]] void refuse() {
  throw OptionError("this build has no code for graphics cards: configure with -DLIGHTEN_CUDA=ON, or leave --device at cpu");
}
}  // namespace

bool has_accelerator() { return false; }
std::string accelerator_name() { refuse(); }
std::shared_ptr<const DeviceWeight> to_device(const LinearSpec&, const std::byte*, ThreadPool&) { refuse(); }
void device_linear(std::span<const LinearTask>, const LinearInput&, int64_t) { refuse(); }
std::shared_ptr<const DeviceWeight> duplicate(const DeviceWeight&) { refuse(); }
double device_pass_seconds(std::span<const DeviceStep>, int64_t, int) { refuse(); }
DeviceRoofs measure_device_roofs() { refuse(); }

}  // namespace lighten

#endif
