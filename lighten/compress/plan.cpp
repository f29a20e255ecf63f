#include "lighten/compress/plan.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <span>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/base/threads.h"
#include "lighten/compress/calibration.h"
#include "lighten/compress/rtn.h"
#include "lighten/kernels/linear.h"
#include "lighten/nn/product.h"
#include "lighten/runtime/light_model.h"

namespace lighten::compress {
namespace {

constexpr int64_t kGroupSizes[] = {128, 64, 32};

bool is_one_of(int value, std::initializer_list<int> allowed) {
  return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

std::vector<LinearShape> all_linears(const ModelConfig& config) {
  std::vector<LinearShape> linears;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    for (LinearShape& linear : block_linears(config, layer)) linears.push_back(std::move(linear));
  return linears;
}

/// "64, 32 or 0 (per channel)": the usual sizes that divide all widths.
std::string fitting_sizes(const std::vector<LinearShape>& linears) {
  std::string text;
  for (const int64_t size : kGroupSizes)
    if (std::all_of(linears.begin(), linears.end(), [&](const LinearShape& l) { return l.columns % size == 0; }))
      text += fmt::format("{}{}", text.empty() ? "" : ", ", size);
  return text + (text.empty() ? "0 (per channel)" : " or 0 (per channel)");
}

int64_t resolve_group_size(int64_t wanted, const std::vector<LinearShape>& linears, const char* option) {
  if (wanted == kLargestThatFits) {
    for (const int64_t size : kGroupSizes)
      if (std::all_of(linears.begin(), linears.end(), [&](const LinearShape& l) { return l.columns % size == 0; })) return size;
    return 0;
  }
  if (wanted < 0 || (wanted > 0 && wanted % 32 != 0))
    throw_error<OptionError>("--{} {}: a group size is a multiple of 32, or 0 (per channel); for this model: {}", option,
                             wanted, fitting_sizes(linears));
  for (const LinearShape& linear : linears)
    if (wanted > 0 && linear.columns % wanted != 0)
      throw_error<OptionError>("--{} {} does not divide the {} inputs of {}.weight; sizes that divide every width: {}", option,
                               wanted, linear.columns, linear.name, fitting_sizes(linears));
  return wanted;
}

LinearSpec spec_of(const GridOptions& grid, int64_t rows, int64_t columns) {
  return {.bits = grid.bits,
          .zero = static_cast<PackedZero>(grid.zero),
          .rows = rows,
          .columns = columns,
          .group_size = grid.group_size};
}

/// Bytes of embedding or head in the light model.
uint64_t end_bytes(const Decided& decided, int64_t rows, int64_t columns) {
  if (!decided.low_bit_head) return static_cast<uint64_t>(rows * columns) * 2;
  if (decided.bands.empty()) return packed_bytes(spec_of(decided.head, rows, columns));
  uint64_t bytes = static_cast<uint64_t>(rows) * sizeof(int32_t);
  int64_t left = rows;  // more than the bands have, where the vocabulary was trimmed: these would be in the last
  for (size_t i = 0; i < decided.bands.size(); ++i) {
    GridOptions grid = decided.head;
    grid.bits = decided.bands[i].bits;
    const int64_t own = i + 1 < decided.bands.size() ? decided.bands[i].tokens : left;
    bytes += packed_bytes(spec_of(grid, own, columns));
    left -= own;
  }
  return bytes;
}

/// The model before its vocabulary was trimmed: what the light one is compared with.
ModelConfig whole_config(const Decided& decided) {
  ModelConfig config = decided.source->config();
  if (decided.trim) config.vocab_size = decided.trim->before;
  return config;
}

std::vector<LinearShape> end_matrices(const ModelConfig& config) {
  std::vector<LinearShape> ends = {{"model.embed_tokens", config.vocab_size, config.hidden_size, false}};
  if (!config.tied_head) ends.push_back({"lm_head", config.vocab_size, config.hidden_size, false});
  return ends;
}

void choose_methods(const QuantizeRequest& request, Decided& decided) {
  const MethodEntry *transform = nullptr, *rounding = nullptr;
  for (const MethodEntry& method : request.methods) {
    validate(method.described);
    if (method.is_transform && transform)
      throw_error<OptionError>("--method {}: {} and {} are both transforms; one is enough", request.method_name,
                               transform->name, method.name);
    if (method.is_transform) transform = &method;
    if (method.is_rounding) rounding = &method;  // the last one rounds: "awq+gptq" rounds by GPTQ
  }
  if (transform) decided.transform = transform->transform();
  decided.rounding = rounding ? rounding->rounding() : make_rtn();

  const StreamNeeds a = decided.transform ? decided.transform->needs() : StreamNeeds{}, b = decided.rounding->needs();
  decided.needs = {.float_statistics = a.float_statistics || b.float_statistics,
                   .float_inputs = a.float_inputs || b.float_inputs,
                   .quantized_stream = a.quantized_stream || b.quantized_stream};
  decided.calibrated = !request.calibration.empty();
  if (!decided.calibrated && (decided.transform || decided.rounding->needs_calibration()))
    throw_error<CalibrationError>(
        "method {} needs calibration text; give --calib FILE, or --calib prose for one that comes with lighten",
        request.method_name);
}

/// 64-bit FNV-1a of bytes.
struct Digest {
  uint64_t hash = 0xcbf29ce484222325ull;
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3ull;
  }
  std::string text() const { return fmt::format("{:016x}", hash); }
};

std::string digest(const fs::path& path) {
  Digest digest;
  digest.add(MappedFile(path).bytes());
  return digest.text();
}

/// Tells two models apart without reading all of them: of every file its name, size and time of change, its first megabyte
/// (where the headers are), and 4096 pieces spread over the rest.
std::string model_digest(const fs::path& model) {
  constexpr size_t kHead = 1 << 20, kPieces = 4096, kPiece = 512;
  std::vector<fs::path> files;
  if (fs::is_directory(model)) {
    for (const auto& entry : fs::directory_iterator(model))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(model);
  }
  Digest digest;
  for (const fs::path& path : files) {
    const MappedFile file(path);
    const auto bytes = file.bytes();
    const std::string facts =
        fmt::format("{} {} {};", path.filename().string(), bytes.size(), fs::last_write_time(path).time_since_epoch().count());
    digest.add(std::as_bytes(std::span(facts)));
    digest.add(bytes.first(std::min(kHead, bytes.size())));
    const size_t stride = std::max(kPiece, bytes.size() / kPieces);
    for (size_t at = kHead; at < bytes.size(); at += stride) digest.add(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
  }
  return digest.text();
}

const char* zero_name(ZeroKind zero) {
  return zero == ZeroKind::symmetric ? "symmetric" : zero == ZeroKind::integer ? "integer" : "minimum";
}

/// Float operations a second of a small product, as it runs now.
double measured_speed() {
  const torch::Tensor a = torch::ones({1024, 512}), b = torch::ones({512, 512});
  double best = 1e9;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 4; ++i) product(a, b);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(4 * 2.0 * 1024 * 512 * 512 / seconds, repeat == 0 ? 0 : best);
  }
  return best;
}

}  // namespace

Decided decide(const QuantizeRequest& request) {
  Decided decided;
  if (!is_one_of(request.bits, {2, 3, 4, 8})) throw_error<OptionError>("--bits {}: must be 2, 3, 4 or 8", request.bits);
  if (!is_one_of(request.head_bits, {0, 2, 3, 4, 8}))
    throw_error<OptionError>("--head-bits {}: must be 2, 3, 4, 8, or 0 (binary16)", request.head_bits);
  if (request.calibration_row < 2 || request.calibration_tokens < request.calibration_row)
    throw_error<OptionError>("--calib-tokens {}: must be at least one row of {} tokens", request.calibration_tokens,
                             request.calibration_row);
  choose_methods(request, decided);
  decided.source = open_weights(request.model);
  if (!request.trim_corpus.empty()) {
    decided.source = trim_to_corpus(std::move(decided.source), request, decided.trim.emplace());
  } else if (request.trim_min_count != 1 || request.trim_tokens != 0) {
    throw OptionError("--trim-min-count and --trim-tokens are for --trim-vocab: give the texts whose tokens shall stay");
  }
  const ModelConfig& config = decided.source->config();

  const std::vector<LinearShape> linears = all_linears(config), ends = end_matrices(config);
  decided.grid = {
      .bits = request.bits, .group_size = resolve_group_size(request.group_size, linears, "group-size"), .zero = request.zero};
  decided.low_bit_head = request.head_bits > 0;
  decided.head = {.bits = request.head_bits,
                  .group_size = resolve_group_size(request.head_group_size, ends, "head-group-size"),
                  .zero = request.zero};
  decided.bands = all_head_bands(request.head_frequent, request.head_bits, config.vocab_size);
  if (!decided.bands.empty() && !decided.calibrated)
    throw CalibrationError("--head-frequent counts tokens of the calibration text; give --calib FILE, or --calib prose");
  for (const LinearShape& linear : linears) check(spec_of(decided.grid, linear.rows, linear.columns));
  if (decided.low_bit_head)
    for (const LinearShape& end : ends) check(spec_of(decided.head, end.rows, end.columns));
  decided.threads = request.threads > 0 ? request.threads : available_processors();
  return decided;
}

/// Time of rounding the head for its logits, for every weight and input, in operations at measured_speed(): measured, as the
/// search for ranges and the passes are slower than products.
constexpr double kHeadOperations = 150;

Footprint footprint(const QuantizeRequest& request, const Decided& decided) {
  const ModelConfig& config = decided.source->config();
  Footprint f;
  f.before = decided.source->size_on_disk();
  uint64_t block_bytes = 0, widest_inside = 0;
  double block_operations = 0, hessian_operations = 0;
  const uint64_t tokens = decided.calibrated ? static_cast<uint64_t>(request.calibration_tokens) : 0;
  for (const LinearShape& linear : block_linears(config, 0)) {
    const auto weights = static_cast<uint64_t>(linear.rows * linear.columns);
    f.after += static_cast<uint64_t>(config.layers) * packed_bytes(spec_of(decided.grid, linear.rows, linear.columns));
    block_bytes += weights * sizeof(float);
    block_operations += 2.0 * static_cast<double>(weights);
    hessian_operations += (linear.name.ends_with("q_proj") || linear.name.ends_with("o_proj") ||
                           linear.name.ends_with("gate_proj") || linear.name.ends_with("down_proj"))
                              ? 1.3 * static_cast<double>(linear.columns * linear.columns)
                              : 0.0;
    widest_inside = std::max(widest_inside, static_cast<uint64_t>(linear.columns));
  }
  uint64_t ends = 0, whole_end = 0;  // bytes as floats
  const ModelConfig whole = whole_config(decided);
  for (const LinearShape& end : end_matrices(config)) {
    const uint64_t bytes = end_bytes(decided, end.rows, end.columns);
    f.after += bytes;
    f.rows_saved += end_bytes(decided, whole.vocab_size, end.columns) - bytes;
    ends += static_cast<uint64_t>(end.rows * end.columns) * sizeof(float);
    whole_end = static_cast<uint64_t>(whole.vocab_size * end.columns) * sizeof(float);
  }
  for (const TensorShape& tensor : expected_tensors(config))
    if (tensor.shape.size() == 1) f.after += static_cast<uint64_t>(tensor.shape[0]) * sizeof(float);

  const bool full_float = decided.needs.float_statistics || decided.needs.float_inputs;
  const uint64_t sample = std::min<uint64_t>(tokens, static_cast<uint64_t>(kSampleTokens));
  const uint64_t float_tokens = full_float ? tokens : sample, quantized_tokens = decided.needs.quantized_stream ? tokens : 0;
  const auto width = static_cast<uint64_t>(config.hidden_size) * sizeof(float);
  f.streams = (float_tokens + quantized_tokens) * width;
  uint64_t activations = f.streams + float_tokens * width + quantized_tokens * widest_inside * sizeof(float);
  const auto site_widths =
      static_cast<uint64_t>(2 * config.hidden_size + config.heads * config.head_dim + config.intermediate_size);
  if (decided.needs.float_inputs) activations += tokens * site_widths * sizeof(float);
  const uint64_t samples =
      sample * (2 * site_widths + static_cast<uint64_t>(2 * config.intermediate_size + 3 * config.hidden_size)) * sizeof(float);
  const uint64_t in_memory = std::min(activations, request.spill_bytes);
  const uint64_t hessians = decided.needs.quantized_stream ? 6 * widest_inside * widest_inside * sizeof(double) : 0;
  constexpr uint64_t kProgram = 350'000'000;  // libtorch, the tokenizer and work space
  f.memory = kProgram + std::max(std::max((decided.bands.empty() ? 4 : 5) * ends, ends + whole_end),
                                 in_memory + samples + 3 * block_bytes + hessians);
  f.disk = 2 * f.after + (decided.calibrated ? 2 * f.streams : 0) + (activations - in_memory);
  f.disk_free = free_space(request.output);
  const double layers = static_cast<double>(config.layers);
  f.operations =
      layers * (block_operations * static_cast<double>(float_tokens + quantized_tokens + 2 * sample) +
                2 * hessian_operations * static_cast<double>(quantized_tokens) * (decided.needs.float_inputs ? 2 : 1));
  if (decided.transform) f.operations += layers * block_operations * 20 * static_cast<double>(sample);
  if (decided.calibrated && decided.low_bit_head)
    f.operations += layers * block_operations * static_cast<double>(sample) +
                    kHeadOperations * static_cast<double>(config.vocab_size * config.hidden_size * config.hidden_size);
  return f;
}

Json fingerprint(const QuantizeRequest& request, const Decided& decided) {
  Json json = method_record(request, decided);
  json["lighten"] = LIGHTEN_VERSION;
  json["model"] = fs::absolute(request.model).lexically_normal().string();
  json["contents of the model"] = model_digest(request.model);
  Json files = Json::array();
  for (const fs::path& file : request.calibration) files.push_back(digest(file));
  json["calibration text"] = files;
  json["threads"] = decided.threads;
  return json;
}

Json method_record(const QuantizeRequest& request, const Decided& decided) {
  Json options = Json::object();
  for (const MethodEntry& method : request.methods) options[method.name] = to_json(method.described);
  Json json = {{"name", request.method_name},
               {"bits", decided.grid.bits},
               {"group_size", decided.grid.group_size},
               {"zero", zero_name(decided.grid.zero)},
               {"head_bits", request.head_bits}};
  if (decided.low_bit_head) json["head_group_size"] = decided.head.group_size;
  for (const HeadBand& band : request.head_frequent)
    json["head_frequent"].push_back({{"bits", band.bits}, {"tokens", band.tokens}});
  if (decided.trim) json["vocabulary"] = decided.trim->json();
  json["options"] = options;
  if (decided.calibrated) {
    Json names = Json::array();
    for (const fs::path& file : request.calibration) names.push_back(file.filename().string());
    json["calibration"] = {
        {"files", names}, {"tokens", request.calibration_tokens}, {"row", request.calibration_row}, {"seed", request.seed}};
  }
  return json;
}

}  // namespace lighten::compress

namespace lighten {
namespace {

/// The plan's line about tokens; "" if all stay.
std::string trim_text(const compress::Decided& decided, const compress::Footprint& needed) {
  if (!decided.trim) return "";
  const compress::TrimRecord& trim = *decided.trim;
  return fmt::format("tokens  {} -> {} (for {}, {} tokens long), {} of rows saved\n", trim.before, trim.after,
                     fmt::join(trim.files, ", "), trim.corpus_tokens, human_bytes(static_cast<double>(needed.rows_saved)));
}

std::string group_text(int64_t size) { return size == 0 ? "per channel" : fmt::format("groups of {}", size); }

std::string head_text(const compress::Decided& decided) {
  if (!decided.low_bit_head) return "binary16";
  std::string text;
  for (const HeadBand& band : decided.bands)
    if (&band != &decided.bands.back())
      text += fmt::format("{} bits for the {} {}most frequent tokens, then ", band.bits, band.tokens,
                          &band == &decided.bands.front() ? "" : "next ");
  const int64_t group = decided.head.group_size;
  return text + fmt::format("{} bits, {}", decided.head.bits, group_text(group));
}

}  // namespace

QuantizePlan plan_quantize(const QuantizeRequest& request) {
  using namespace compress;
  const Decided decided = decide(request);
  const ModelConfig& config = decided.source->config();
  const Footprint f = footprint(request, decided);
  at::set_num_threads(decided.threads);
  const double seconds = 5 + 1.5 * f.operations / measured_speed();

  Table table({"linear", "shape", "count", "bits", "bytes each"});
  for (const LinearShape& linear : block_linears(config, 0)) {
    const LinearSpec spec{.bits = decided.grid.bits,
                          .zero = static_cast<PackedZero>(decided.grid.zero),
                          .rows = linear.rows,
                          .columns = linear.columns,
                          .group_size = decided.grid.group_size};
    const size_t bytes = packed_bytes(spec);
    table.row({linear.name.substr(linear.name.rfind('.', linear.name.rfind('.') - 1) + 1),
               fmt::format("{} x {}", linear.rows, linear.columns), std::to_string(config.layers),
               fmt::format("{:.3f}", 8.0 * static_cast<double>(bytes) / static_cast<double>(linear.rows * linear.columns)),
               human_bytes(static_cast<double>(bytes))});
  }
  const double parameters = static_cast<double>(parameter_count(config));
  const double whole_parameters = static_cast<double>(parameter_count(whole_config(decided)));
  QuantizePlan plan;
  plan.text = fmt::format(
      "{} ({}): {} blocks, {:.1f} M parameters\nmethod {}: {} bits, {}; embedding and head: {}\n{}\n{}"
      "size    {} -> {} ({:.1f} % of 16 bits, {:.2f} bits per weight)\nmemory  about {}\ntime    about {} with {} threads\n"
      "disk    {} needed while it runs, {} free at {}\n",
      request.model.string(), decided.source->container(), config.layers, whole_parameters / 1e6, request.method_name,
      decided.grid.bits, group_text(decided.grid.group_size), head_text(decided), table.text(), trim_text(decided, f),
      human_bytes(static_cast<double>(f.before)), human_bytes(static_cast<double>(f.after)),
      100.0 * static_cast<double>(f.after) / (2 * whole_parameters), 8.0 * static_cast<double>(f.after) / parameters,
      human_bytes(static_cast<double>(f.memory)), human_seconds(seconds), decided.threads,
      human_bytes(static_cast<double>(f.disk)), human_bytes(static_cast<double>(f.disk_free)), request.output.string());
  plan.json = {{"method", method_record(request, decided)},
               {"rows_saved", f.rows_saved},
               {"size_before", f.before},
               {"size_after", f.after},
               {"bits_per_weight", 8.0 * static_cast<double>(f.after) / parameters},
               {"memory_bytes", f.memory},
               {"seconds", seconds},
               {"disk_needed", f.disk},
               {"disk_free", f.disk_free}};
  return plan;
}

}  // namespace lighten
