#include "lighten/compress/pipeline.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/compress/accounting.h"
#include "lighten/compress/calibration.h"
#include "lighten/compress/checkpoint.h"
#include "lighten/compress/head.h"
#include "lighten/compress/plan.h"
#include "lighten/compress/quantizer.h"
#include "lighten/formats/chat_template.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

using namespace compress;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<float> values_of(const torch::Tensor& tensor) {
  const torch::Tensor flat = tensor.detach().to(torch::kFloat).contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

std::string block_piece(int64_t layer) { return fmt::format("block-{:04d}", layer); }

/// One run, from an opened model to pieces.
class Run {
 public:
  Run(const QuantizeRequest& request, Decided& decided, const CalibrationRows& rows, const fs::path& folder)
      : request_(request),
        decided_(decided),
        rows_(rows),
        config_(decided.source->config()),
        folder_(folder),
        writer_(folder, config_),
        read_([this](const std::string& name) { return decided_.source->read(name); }) {}

  std::vector<LayerError> blocks() {
    Checkpoint checkpoint = start();
    Progress progress("quantize", config_.layers, "blocks");
    progress.skip(checkpoint.layer);
    Clock::time_point saved = Clock::now();
    for (int64_t layer = checkpoint.layer; layer < config_.layers; ++layer) {
      progress.advance(0);
      if (request_.on_block) request_.on_block(layer);
      checkpoint.layer = layer;
      if (layer > 0 && seconds_since(saved) >= request_.checkpoint_seconds) {
        save_checkpoint(folder_, checkpoint, streams_);
        saved = Clock::now();
      }
      one_block(layer, checkpoint.errors);
      progress.advance(1);
    }
    progress.finish();
    return checkpoint.errors;
  }
  LightWriter& writer() { return writer_; }

 private:
  /// Takes up the checkpoint if its pieces are all there, else rounds embedding and head and embeds the calibration rows.
  Checkpoint start() {
    auto budget = std::make_shared<SpillBudget>();
    budget->limit = request_.spill_bytes;
    budget->folder = folder_ / "spill";
    streams_ = plan_streams(rows_, decided_.needs, budget);
    const std::optional<Checkpoint> found = load_checkpoint(folder_, streams_);
    if (found && pieces_before(found->layer)) {
      info(fmt::format("going on in {}: {} of {} blocks are done", folder_.string(), found->layer, config_.layers));
      return *found;
    }
    const Decoder ends = load_ends(config_, read_);
    torch::Tensor rounded = round_ends(ends);
    streams_ = start_streams(config_, ends->embedding, rounded, rows_, decided_.needs, budget);
    // A calibrated head takes as long as many blocks: a stop must not lose it.
    if (decided_.calibrated && decided_.low_bit_head) save_checkpoint(folder_, {}, streams_);
    return {};
  }

  bool pieces_before(int64_t layer) const {
    bool all = writer_.has_piece("ends");
    for (int64_t l = 0; all && l < layer; ++l) all = writer_.has_piece(block_piece(l));
    return all;
  }

  /// What round_ends() is told of.
  int64_t end_steps(Decoder ends) const {
    int64_t steps = 0;
    for (const NamedTensor& tensor : tensors(ends))
      if (tensor.tensor->dim() > 1)
        steps += head_steps(tensor.tensor->size(0), decided_.bands) + (reads_hidden(tensor.name) ? config_.layers : 0);
    return steps;
  }
  bool reads_hidden(const std::string& tensor) const { return config_.tied_head || tensor == "lm_head.weight"; }
  void warn_of_rare_bands() const {
    std::vector<bool> held(static_cast<size_t>(config_.vocab_size));
    for (size_t id = 0; id < rows_.counts.size() && id < held.size(); ++id) held[id] = rows_.counts[id] > 0;
    for (const int64_t id : named_tokens())
      if (id >= 0 && id < config_.vocab_size) held[static_cast<size_t>(id)] = true;
    const int64_t known = std::count(held.begin(), held.end(), true);
    int64_t wanted = 0;
    for (size_t band = 0; band + 1 < decided_.bands.size(); ++band) wanted += decided_.bands[band].tokens;
    if (wanted > known)
      warn(
          fmt::format("--head-frequent asks for {} tokens, but --calib holds {} different ones only: the other {} rows that "
                      "get more bits are taken by number; give more text, or ask for fewer",
                      wanted, known, wanted - known));
  }

  /// Writes the piece of embedding, head and final norm; returns the embedding as the light model will see it.
  torch::Tensor round_ends(const Decoder& ends) {
    std::map<std::string, QuantTensor> quantized;
    std::map<std::string, std::vector<float>> floats;
    std::map<std::string, BandedTensor> banded;
    torch::Tensor embedding = ends->embedding.to(torch::kHalf).to(torch::kFloat);
    Decoder decoder = ends;
    std::optional<Progress> progress;
    if (decided_.calibrated && decided_.low_bit_head) progress.emplace("embedding and head", end_steps(ends), "steps");
    const HeadStep step = [&] {
      if (progress) progress->advance(1);
    };
    for (const NamedTensor& tensor : tensors(decoder)) {
      if (tensor.tensor->dim() == 1 || !decided_.low_bit_head) {
        floats[tensor.name] = values_of(*tensor.tensor);
        continue;
      }
      torch::Tensor hessian;
      if (reads_hidden(tensor.name) && decided_.calibrated)
        hessian = head_hessian(ends, read_, rows_, kSampleTokens / rows_.row, step);
      const bool embeds = tensor.name == "model.embed_tokens.weight";
      if (!decided_.bands.empty()) {
        if (embeds) warn_of_rare_bands();
        const std::vector<int32_t> order = by_frequency(rows_.counts, named_tokens(), config_.vocab_size);
        BandedTensor codes = round_bands(*tensor.tensor, hessian, decided_.head, decided_.bands, order, step);
        if (embeds) {
          std::vector<float> values = dequantize(codes);
          embedding = torch::from_blob(values.data(), tensor.tensor->sizes(), torch::kFloat).clone();
        }
        banded.emplace(tensor.name, std::move(codes));
        continue;
      }
      QuantTensor codes = round_head(*tensor.tensor, hessian, decided_.head, {}, step);
      if (embeds) embedding = dequantized(codes);
      quantized.emplace(tensor.name, std::move(codes));
    }
    if (progress) progress->finish();
    writer_.add_piece("ends", quantized, floats, banded);
    return embedding;
  }

  /// What texts need that hold no chat: BOS, ends and what a rendered chat consists of.
  std::vector<int64_t> named_tokens() const {
    const std::shared_ptr<const Tokenizer> tokenizer = decided_.source->tokenizer();
    std::vector<int64_t> ids = config_.end_tokens;
    ids.insert(ids.end(), {config_.bos_token, tokenizer->bos(), tokenizer->eos()});
    for (const int32_t id : tokenizer->encode(sample_chats(decided_.source->chat_template()))) ids.push_back(id);
    return ids;
  }

  void one_block(int64_t layer, std::vector<LayerError>& errors) {
    torch::NoGradGuard no_grad;
    Block block = load_block(config_, read_, layer);
    BlockView view = view_block(block, layer);
    BlockCalibration calibration(view, streams_);
    std::map<std::string, torch::Tensor> original;
    if (!calibration.available())
      for (const LinearView& linear : view.linears) original[linear.name] = linear.module->weight.clone();

    if (decided_.transform) decided_.transform->apply(view, calibration, decided_.grid);
    std::map<std::string, QuantTensor> rounded = decided_.rounding->round(view, calibration, decided_.grid);

    std::map<std::string, QuantTensor> quantized;
    for (LinearView& linear : view.linears) {
      const auto found = rounded.find(linear.name);
      if (found == rounded.end())
        throw_error<ModelError>("method {} left {} of block {} unrounded", request_.method_name, linear.name, layer);
      if (!torch::isfinite(linear.module->weight).all().item<bool>())
        throw_error<ModelError>("block {}, {}: rounding gave NaN or infinity", layer, linear.name);
      errors.push_back({layer, linear.name, relative_error(linear, calibration, original)});
      quantized.emplace(block_tensor(layer, linear.name + ".weight"), std::move(found->second));
    }
    std::map<std::string, std::vector<float>> floats;
    for (const NamedTensor& tensor : tensors(block))
      if (!quantized.contains(tensor.name)) floats[tensor.name] = values_of(*tensor.tensor);
    calibration.finish();
    writer_.add_piece(block_piece(layer), quantized, floats);
  }

  static double relative_error(const LinearView& linear, const BlockCalibration& calibration,
                               const std::map<std::string, torch::Tensor>& original) {
    if (calibration.available()) return calibration.relative_error(linear.name);
    const torch::Tensor& w = original.at(linear.name);
    const double whole = w.square().sum(torch::kDouble).item<double>();
    return whole > 0 ? (w - linear.module->weight).square().sum(torch::kDouble).item<double>() / whole : 0.0;
  }

  const QuantizeRequest& request_;
  Decided& decided_;
  const CalibrationRows& rows_;
  const ModelConfig& config_;
  fs::path folder_;
  LightWriter writer_;
  TensorReader read_;
  CalibrationStreams streams_;
};

/// Sums over what lies on disk.
void measure(QuantizeReport& report, const fs::path& folder) {
  const LightModel light(folder);
  BitAccount account;
  for (const auto& [name, weight] : light.packed())
    if (name.starts_with("model.layers.")) account.add(unpack(weight));
  report.linear_bits = account.effective_bits();
  report.bits_per_weight =
      8.0 * static_cast<double>(light.tensor_bytes()) / static_cast<double>(parameter_count(light.config()));
  report.size_after = size_on_disk(folder);
}

Json mean_errors(const std::vector<LayerError>& errors) {
  std::map<std::string, std::pair<double, int>> sums;
  for (const LayerError& e : errors) sums[e.linear].first += e.relative_error, ++sums[e.linear].second;
  Json json = Json::object();
  for (const auto& [name, sum] : sums) json[name] = sum.first / sum.second;
  return json;
}

/// What quantize() needs, checked; nothing is written yet.
struct Prepared {
  Decided decided;
  Footprint needed;
  CalibrationRows rows;
};

Prepared prepare(const QuantizeRequest& request) {
  check_output(request);
  Prepared prepared{decide(request), {}, {}};
  const Decided& decided = prepared.decided;
  if (decided.trim && request.trim_tokens > 0 && decided.trim->after > request.trim_tokens)
    warn(fmt::format("--trim-tokens {}: the texts and what must stay need {} tokens; all of these are kept",
                     request.trim_tokens, decided.trim->after));
  prepared.needed = footprint(request, decided);
  if (prepared.needed.disk > prepared.needed.disk_free)
    throw_error<FileError>(
        "{}: {} of disk are needed while the work runs, {} are free; free some, or choose another output folder",
        request.output.string(), human_bytes(static_cast<double>(prepared.needed.disk)),
        human_bytes(static_cast<double>(prepared.needed.disk_free)));
  if (decided.calibrated)
    prepared.rows =
        read_calibration(request.calibration, *decided.source->tokenizer(),
                         {.tokens = request.calibration_tokens, .row = request.calibration_row, .seed = request.seed});
  return prepared;
}

}  // namespace

Json QuantizeReport::json() const {
  Json list = Json::array();
  for (const LayerError& e : errors)
    list.push_back({{"layer", e.layer}, {"linear", e.linear}, {"relative_error", e.relative_error}});
  return {{"size_before", size_before},     {"size_after", size_after},
          {"tokens_before", tokens_before}, {"tokens_after", tokens_after},
          {"rows_saved", rows_saved},       {"bits_per_weight", bits_per_weight},
          {"linear_bits", linear_bits},     {"seconds", seconds},
          {"peak_bytes", peak_bytes},       {"errors", list}};
}

void check_quantize(const QuantizeRequest& request) { prepare(request); }

QuantizeReport quantize(const QuantizeRequest& request) {
  torch::NoGradGuard no_grad;
  const Clock::time_point start = Clock::now();
  Prepared prepared = prepare(request);
  Decided& decided = prepared.decided;
  at::set_num_threads(decided.threads);

  QuantizeReport report;
  report.size_before = prepared.needed.before;
  report.tokens_after = decided.source->config().vocab_size;
  report.tokens_before = decided.trim ? decided.trim->before : report.tokens_after;
  report.rows_saved = prepared.needed.rows_saved;
  AtomicFolder folder(request.output, request.force, /*keep_partial=*/true);
  const FolderLock lock(folder.path());
  claim_folder(folder.path(), fingerprint(request, decided), request.resume, request.force);
  {
    Run run(request, decided, prepared.rows, folder.path());
    report.errors = run.blocks();
    Json method = method_record(request, decided);
    method["relative_error"] = mean_errors(report.errors);
    run.writer().finish(method, *decided.source->tokenizer(), decided.source->chat_template());
  }
  fs::remove_all(folder.path() / "spill");
  release_folder(folder.path());
  if (request.force) check_places(request);  // it may have changed while the work ran
  folder.commit();
  measure(report, request.output);
  report.seconds = seconds_since(start);
  report.peak_bytes = peak_resident_bytes();
  return report;
}

}  // namespace lighten
