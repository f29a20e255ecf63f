#include "lighten/compress/in_memory.h"

#include <algorithm>

#include "lighten/base/file.h"
#include "lighten/base/progress.h"
#include "lighten/runtime/light_model.h"

namespace lighten {

RoundedModel round_in_memory(Decoder& model, const CalibrationRows& rows, Transform* transform, Rounding& rounding,
                             const GridOptions& grid, const InMemoryOptions& options) {
  torch::NoGradGuard no_grad;
  StreamNeeds needs = rounding.needs();
  if (transform) {
    const StreamNeeds more = transform->needs();
    needs.float_statistics |= more.float_statistics;
    needs.float_inputs |= more.float_inputs;
    needs.quantized_stream |= more.quantized_stream;
  }
  CalibrationStreams streams =
      start_streams(model->config, model->embedding, model->embedding, rows, needs, std::make_shared<SpillBudget>());
  RoundedModel result;
  const auto all = static_cast<int64_t>(model->blocks.size());
  const int64_t count = options.blocks == 0 ? all : std::min(all, options.blocks);
  for (int64_t layer = 0; layer < count; ++layer) {
    check_interrupt();
    BlockView view = view_block(model->blocks[static_cast<size_t>(layer)], layer);
    BlockCalibration calibration(view, streams);
    if (transform) transform->apply(view, calibration, grid);
    for (auto& [name, tensor] : rounding.round(view, calibration, grid))
      result.tensors.emplace(block_tensor(layer, name + ".weight"), std::move(tensor));
    if (calibration.available()) {
      double error = 0;
      for (const LinearView& linear : view.linears)
        error += calibration.relative_error(linear.name) / static_cast<double>(view.linears.size());
      result.block_errors.push_back(error);
    }
    calibration.finish();
    if (options.on_block) options.on_block(layer + 1);
  }
  return result;
}

void save_light(Decoder& model, const RoundedModel& rounded, const Tokenizer& tokenizer, const std::string& chat_template,
                const Json& method, const fs::path& folder) {
  AtomicFolder output(folder, /*force=*/false, /*keep_partial=*/false);
  LightWriter writer(output.path(), model->config);
  const auto write = [&](const std::string& piece, const std::vector<NamedTensor>& tensors) {
    std::map<std::string, QuantTensor> quantized;
    std::map<std::string, std::vector<float>> floats;
    for (const NamedTensor& tensor : tensors) {
      if (const auto found = rounded.tensors.find(tensor.name); found != rounded.tensors.end()) {
        quantized.insert(*found);
        continue;
      }
      const torch::Tensor flat = tensor.tensor->detach().to(torch::kFloat).contiguous();
      floats[tensor.name] = {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
    }
    writer.add_piece(piece, quantized, floats);
  };
  write("model", tensors(model));
  writer.finish(method, tokenizer, chat_template);
  output.commit();
}

}  // namespace lighten
