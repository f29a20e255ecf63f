// What every linear of a block sees: the float pass at construction, the quantized pass site by site.
#include "lighten/compress/calibration.h"

#include <algorithm>
#include <map>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/compress/hessian.h"
#include "lighten/nn/product.h"

namespace lighten {
namespace {

constexpr const char* kNoText = "this method needs calibration text; give --calib FILE";

size_t index_of(Site site) { return static_cast<size_t>(site); }

torch::Tensor normed(const RmsNorm& norm, const torch::Tensor& x) { return norm ? RmsNorm(norm)->forward(x) : x; }

}  // namespace

Site site_of(const std::string& linear) {
  if (linear == "self_attn.q_proj" || linear == "self_attn.k_proj" || linear == "self_attn.v_proj") return Site::attention;
  if (linear == "self_attn.o_proj") return Site::output;
  if (linear == "mlp.gate_proj" || linear == "mlp.up_proj") return Site::mlp;
  if (linear == "mlp.down_proj") return Site::down;
  throw_error<ModelError>("'{}' is not a linear of a decoder block", linear);
}

CalibrationStreams plan_streams(const CalibrationRows& rows, const StreamNeeds& needs, std::shared_ptr<SpillBudget> budget) {
  CalibrationStreams streams;
  streams.budget = std::move(budget);
  streams.rows = static_cast<int64_t>(rows.rows.size());
  streams.row = rows.row;
  streams.needs = needs;
  if (streams.rows == 0) return streams;
  const int64_t wanted = (kSampleTokens + rows.row - 1) / rows.row;
  streams.sample_rows = std::min(streams.rows, (wanted + streams.chunk_rows - 1) / streams.chunk_rows * streams.chunk_rows);
  return streams;
}

CalibrationStreams start_streams(const ModelConfig& config, const torch::Tensor& embedding,
                                 const torch::Tensor& rounded_embedding, const CalibrationRows& rows, const StreamNeeds& needs,
                                 std::shared_ptr<SpillBudget> budget) {
  torch::NoGradGuard no_grad;
  CalibrationStreams streams = plan_streams(rows, needs, std::move(budget));
  if (!streams.available()) return streams;
  const int64_t float_rows = needs.float_statistics || needs.float_inputs ? streams.rows : streams.sample_rows;

  streams.floating.emplace(streams.budget);
  if (needs.quantized_stream) streams.quantized.emplace(streams.budget);
  for (int64_t first = 0; first < streams.rows; first += streams.chunk_rows) {
    std::vector<int64_t> ids;
    const int64_t end = std::min(first + streams.chunk_rows, streams.rows);
    for (int64_t r = first; r < end; ++r) {
      const std::vector<int32_t>& row = rows.rows[static_cast<size_t>(r)];
      for (const int32_t id : row)
        if (id < 0 || id >= embedding.size(0))
          throw_error<ModelError>("calibration: token id {} is outside the model's vocabulary of {}", id, embedding.size(0));
      ids.insert(ids.end(), row.begin(), row.end());
    }
    const torch::Tensor index = torch::tensor(ids).reshape({end - first, rows.row});
    if (first < float_rows) streams.floating->append(torch::embedding(embedding, index) * config.embedding_scale);
    if (streams.quantized) streams.quantized->append(torch::embedding(rounded_embedding, index) * config.embedding_scale);
  }
  return streams;
}

struct BlockCalibration::State {
  BlockView& view;
  CalibrationStreams& streams;
  RotaryTables rotary;

  // Float stream.
  std::array<torch::Tensor, kSites.size()> abs_sum, abs_max, sample;  // per site
  std::map<std::string, torch::Tensor> sample_products;               // X W^T per linear, without bias
  std::vector<ActivationStore> kept;                                  // per site, with needs.float_inputs
  std::optional<ActivationStore> next_floating;
  int64_t float_tokens = 0;

  // Quantized stream: streams.quantized holds the residual, `inside` the inputs of o or down.
  Site stage = Site::attention;
  std::optional<ActivationStore> inside;

  std::map<std::pair<Site, Stream>, torch::Tensor> hessians;

  State(BlockView& view, CalibrationStreams& streams) : view(view), streams(streams) {}

  void float_pass();
  void observe(Site site, const torch::Tensor& x, bool sampled);
  torch::Tensor stage_input(int64_t chunk) const;
  void advance_to(Site site);
  void next_stage();
  void require_text() const {
    if (!streams.available()) throw CalibrationError(kNoText);
  }
};

/// Statistics of one site's inputs; on sample chunks the inputs and the products of its linears are kept.
void BlockCalibration::State::observe(Site site, const torch::Tensor& x, bool sampled) {
  const size_t i = index_of(site);
  const torch::Tensor magnitude = x.abs().flatten(0, 1);
  const torch::Tensor sum = magnitude.sum(0, false, torch::kDouble), largest = magnitude.amax(0);
  abs_sum[i] = abs_sum[i].defined() ? abs_sum[i] + sum : sum;
  abs_max[i] = abs_max[i].defined() ? torch::maximum(abs_max[i], largest) : largest;
  if (!kept.empty()) kept[i].append(x);
  if (!sampled) return;
  const auto join = [](torch::Tensor& all, const torch::Tensor& part) { all = all.defined() ? torch::cat({all, part}) : part; };
  join(sample[i], x);
  for (LinearView& linear : view.linears)
    if (site_of(linear.name) == site) join(sample_products[linear.name], product(x, linear.module->weight));
}

void BlockCalibration::State::float_pass() {
  Block& block = view.block;
  next_floating.emplace(streams.budget);
  if (streams.needs.float_inputs)
    for (size_t i = 0; i < kSites.size(); ++i) kept.emplace_back(streams.budget);
  for (int64_t chunk = 0; chunk < streams.floating->chunks(); ++chunk) {
    check_interrupt();
    const torch::Tensor& x = streams.floating->at(chunk);
    const bool sampled = chunk * streams.chunk_rows < streams.sample_rows;
    const torch::Tensor attention_in = block->input_norm->forward(x);
    observe(Site::attention, attention_in, sampled);
    const torch::Tensor context = block->attention->context(attention_in, rotary);
    observe(Site::output, context, sampled);
    const torch::Tensor middle = x + normed(block->attention_out_norm, block->attention->o_proj->forward(context));
    const torch::Tensor mlp_in = block->post_attention_norm->forward(middle);
    observe(Site::mlp, mlp_in, sampled);
    const torch::Tensor hidden = block->mlp->hidden(mlp_in);
    observe(Site::down, hidden, sampled);
    const torch::Tensor out = middle + normed(block->mlp_out_norm, block->mlp->down_proj->forward(hidden));
    if (!torch::isfinite(out).all().item<bool>())
      throw_error<ModelError>("block {} gives NaN or infinity on the calibration text; check the model's weights", view.layer);
    next_floating->append(out);
    float_tokens += x.size(0) * x.size(1);
  }
}

torch::Tensor BlockCalibration::State::stage_input(int64_t chunk) const {
  switch (stage) {
    case Site::attention:
      return view.block->input_norm->forward(streams.quantized->at(chunk));
    case Site::mlp:
      return view.block->post_attention_norm->forward(streams.quantized->at(chunk));
    case Site::output:
    case Site::down:
      break;
  }
  return inside->at(chunk);
}

/// From the inputs of one site to those of the next, with the weights as they are now.
void BlockCalibration::State::next_stage() {
  Block& block = view.block;
  ActivationStore& residual = *streams.quantized;
  ActivationStore produced(streams.budget);
  for (int64_t chunk = 0; chunk < residual.chunks(); ++chunk) {
    check_interrupt();
    if (stage == Site::attention) produced.append(block->attention->context(stage_input(chunk), rotary));
    if (stage == Site::mlp) produced.append(block->mlp->hidden(stage_input(chunk)));
    torch::Tensor x = residual.at(chunk);
    if (stage == Site::output) x.add_(normed(block->attention_out_norm, block->attention->o_proj->forward(inside->at(chunk))));
    if (stage == Site::down) x.add_(normed(block->mlp_out_norm, block->mlp->down_proj->forward(inside->at(chunk))));
  }
  inside.reset();
  if (produced.chunks() > 0) inside.emplace(std::move(produced));
}

void BlockCalibration::State::advance_to(Site site) {
  if (!streams.quantized)
    throw_error<CalibrationError>("the quantized stream was not asked for (StreamNeeds::quantized_stream)");
  if (site < stage)
    throw_error<ModelError>("block {}: the quantized stream has passed this linear's inputs; ask in order of execution",
                            view.layer);
  while (stage != site) {
    next_stage();
    stage = static_cast<Site>(static_cast<uint8_t>(stage) + 1);
    std::erase_if(hessians, [](const auto& entry) { return entry.first.second == Stream::quantized; });
  }
}

BlockCalibration::BlockCalibration(BlockView& view, CalibrationStreams& streams)
    : state_(std::make_unique<State>(view, streams)) {
  torch::NoGradGuard no_grad;
  if (!streams.available()) return;
  state_->rotary = view.block->rotary(streams.row);
  state_->float_pass();
}
BlockCalibration::~BlockCalibration() = default;

bool BlockCalibration::available() const { return state_->streams.available(); }

int64_t BlockCalibration::tokens(Stream stream) const {
  return stream == Stream::floating ? state_->float_tokens : state_->streams.rows * state_->streams.row;
}

torch::Tensor BlockCalibration::mean_abs(const std::string& linear) const {
  state_->require_text();
  return (state_->abs_sum[index_of(site_of(linear))] / static_cast<double>(state_->float_tokens)).to(torch::kFloat);
}

torch::Tensor BlockCalibration::max_abs(const std::string& linear) const {
  state_->require_text();
  return state_->abs_max[index_of(site_of(linear))];
}

torch::Tensor BlockCalibration::sample_inputs(const std::string& linear) const {
  state_->require_text();
  return state_->sample[index_of(site_of(linear))];
}

torch::Tensor BlockCalibration::sample_outputs(const std::string& linear) const {
  state_->require_text();
  const torch::Tensor product = state_->sample_products.at(state_->view.linear(linear).name);
  const torch::Tensor bias = state_->view.linear(linear).module->bias;
  return bias.defined() ? product + bias : product;
}

torch::Tensor BlockCalibration::module_inputs(const std::string& module) const {
  if (module == "self_attn") return sample_inputs("self_attn.q_proj");
  if (module == "mlp") return sample_inputs("mlp.gate_proj");
  return sample_inputs(module);
}

torch::Tensor BlockCalibration::module_outputs(const std::string& module) const {
  if (module == "self_attn") return sample_outputs("self_attn.o_proj");
  if (module == "mlp") return sample_outputs("mlp.down_proj");
  return sample_outputs(module);
}

torch::Tensor BlockCalibration::run_module(const std::string& module, const torch::Tensor& inputs) const {
  torch::NoGradGuard no_grad;
  Block& block = state_->view.block;
  if (module == "self_attn") return block->attention->forward(inputs, state_->rotary);
  if (module == "mlp") return block->mlp->forward(inputs);
  return state_->view.linear(module).module->forward(inputs);
}

const RotaryTables& BlockCalibration::rotary() const { return state_->rotary; }

void BlockCalibration::for_each_input(const std::string& linear, Stream stream,
                                      const std::function<void(const torch::Tensor& x)>& visit) {
  torch::NoGradGuard no_grad;
  state_->require_text();
  const Site site = site_of(linear);
  if (stream == Stream::quantized) {
    state_->advance_to(site);
    for (int64_t chunk = 0; chunk < state_->streams.quantized->chunks(); ++chunk) {
      check_interrupt();
      visit(state_->stage_input(chunk));
    }
  } else if (state_->kept.empty()) {
    visit(state_->sample[index_of(site)]);
  } else {
    const ActivationStore& kept = state_->kept[index_of(site)];
    for (int64_t chunk = 0; chunk < kept.chunks(); ++chunk) visit(kept.at(chunk));
  }
}

void BlockCalibration::for_each_pair(
    const std::string& linear,
    const std::function<void(const torch::Tensor& floating, const torch::Tensor& quantized)>& visit) {
  state_->require_text();
  if (state_->kept.empty()) throw_error<CalibrationError>("pairs of both streams need StreamNeeds::float_inputs");
  int64_t chunk = 0;
  const ActivationStore& kept = state_->kept[index_of(site_of(linear))];
  for_each_input(linear, Stream::quantized, [&](const torch::Tensor& x) { visit(kept.at(chunk++), x); });
}

torch::Tensor BlockCalibration::hessian(const std::string& linear, Stream stream) {
  state_->require_text();
  const Site site = site_of(linear);
  if (stream == Stream::quantized) state_->advance_to(site);
  torch::Tensor& cached = state_->hessians[{site, stream}];
  if (!cached.defined()) {
    HessianAccumulator sum(state_->view.linear(linear).module->weight.size(1));
    for_each_input(linear, stream, [&](const torch::Tensor& x) { sum.add(x); });
    cached = sum.hessian();
  }
  return cached;
}

void BlockCalibration::inputs_were_divided(Site site, const torch::Tensor& scale) {
  torch::NoGradGuard no_grad;
  if (!available()) return;
  const size_t i = index_of(site);
  state_->abs_sum[i] = state_->abs_sum[i] / scale;
  state_->abs_max[i] = state_->abs_max[i] / scale;
  state_->sample[i] = state_->sample[i] / scale;
  if (!state_->kept.empty())
    for (int64_t chunk = 0; chunk < state_->kept[i].chunks(); ++chunk) torch::Tensor(state_->kept[i].at(chunk)).div_(scale);
  state_->hessians.clear();
}

void BlockCalibration::outputs_were_divided(const std::string& linear, const torch::Tensor& scale) {
  torch::NoGradGuard no_grad;
  if (!available()) return;
  torch::Tensor& products = state_->sample_products.at(linear);
  products = products / scale;
}

double BlockCalibration::relative_error(const std::string& linear) const {
  torch::NoGradGuard no_grad;
  state_->require_text();
  const torch::Tensor& y = state_->sample_products.at(state_->view.linear(linear).name);
  const torch::Tensor present = product(sample_inputs(linear), state_->view.linear(linear).module->weight);
  const double whole = y.square().sum(torch::kDouble).item<double>();
  return whole > 0 ? (y - present).square().sum(torch::kDouble).item<double>() / whole : 0.0;
}

void BlockCalibration::finish() {
  torch::NoGradGuard no_grad;
  if (!available()) return;
  state_->kept.clear();
  state_->streams.floating = std::move(state_->next_floating);
  if (!state_->streams.quantized) return;
  state_->advance_to(Site::down);
  state_->next_stage();
}

}  // namespace lighten
