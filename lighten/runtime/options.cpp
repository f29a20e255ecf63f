// The words of the command line for what RuntimeOptions holds.
#include "lighten/base/error.h"
#include "lighten/runtime/model.h"

namespace lighten {

KvFormat kv_format(const std::string& name) {
  if (name == "f16") return KvFormat::f16;
  if (name == "i8") return KvFormat::i8;
  throw_error<OptionError>("--kv-cache {}: must be f16 or i8", name);
}

Device device(const std::string& name) {
  if (name == "cpu") return Device::cpu;
  if (name == "cuda") return Device::cuda;
  throw_error<OptionError>("--device {}: must be cpu or cuda", name);
}

Activations activations(const std::string& name) {
  if (name == "auto") return Activations::automatic;
  if (name == "8") return Activations::bits8;
  if (name == "adaptive") return Activations::adaptive;
  if (name == "16") return Activations::bits16;
  throw_error<OptionError>("--activations {}: must be auto, 8, adaptive or 16", name);
}

}  // namespace lighten
