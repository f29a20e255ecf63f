// A tiny model on disk and a request for it: what the tests of quantize() share.
#pragma once
#include "lighten/base/progress.h"
#include "lighten/compress/pipeline.h"
#include "lighten/compress/test_model.h"

namespace lighten::test {

inline QuantizeRequest request_in(const fs::path& folder, const std::string& output, std::vector<MethodEntry> methods) {
  QuantizeRequest request;
  request.model = folder / "model";
  request.output = folder / output;
  request.methods = std::move(methods);
  for (const MethodEntry& method : request.methods)
    request.method_name += (request.method_name.empty() ? "" : "+") + method.name;
  request.bits = 4;
  request.group_size = 32;
  request.calibration = {folder / "text.txt"};
  request.calibration_tokens = 640;
  request.calibration_row = 64;
  request.threads = 2;
  request.checkpoint_seconds = 0;
  return request;
}

inline fs::path new_model(const std::string& name, const ModelConfig& config = tiny_llama_linear()) {
  set_quiet(true);
  const fs::path folder = scratch("pipeline-" + name);
  write_test_model(folder, config);
  return folder;
}

}  // namespace lighten::test
