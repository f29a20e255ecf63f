// The card: its memory, the walk over tasks, and the clocks.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/kernels/accelerator.h"
#include "lighten/kernels/cuda/call.h"
#include "lighten/kernels/cuda/check.h"
#include "lighten/kernels/cuda/roofs.h"
#include "lighten/kernels/device_layout.h"
#include "lighten/kernels/kernel_table.h"

namespace lighten {
namespace cuda {

void expect_ok(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not find it
  const std::string advice = status == cudaErrorMemoryAllocation ? "; the model does not fit: fewer bits, or --device cpu" : "";
  throw ModelError(std::string("the graphics card failed at ") + what + ": " + cudaGetErrorString(status) + advice);
}

namespace {

/// Memory of the card, or of the processor where the card can copy from it without help.
template <typename T, bool kOnCard = true>
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t count) { reserve(count); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { release(); }
  T* data() const { return data_; }
  size_t size() const { return size_; }
  /// Room for so many; what was there is lost if it grows.
  void reserve(size_t count) {
    if (count <= size_) return;
    release();
    void* memory = nullptr;
    expect_ok(kOnCard ? cudaMalloc(&memory, count * sizeof(T)) : cudaMallocHost(&memory, count * sizeof(T)), "taking memory");
    data_ = static_cast<T*>(memory);
    size_ = count;
  }

 private:
  void release() {
    if (data_ != nullptr) kOnCard ? cudaFree(data_) : cudaFreeHost(data_);
    data_ = nullptr;
    size_ = 0;
  }
  T* data_ = nullptr;
  size_t size_ = 0;
};

class Weight final : public DeviceWeight {
 public:
  explicit Weight(const kernels::DeviceLayout& l, int exponent_of_scales)
      : layout(l),
        exponent(exponent_of_scales),
        codes(static_cast<size_t>(l.tiles * l.words_per_tile())),
        scales(static_cast<size_t>(l.tiles * l.groups) * 16),
        zeros(static_cast<size_t>(l.tiles * l.groups) * l.zero_group_bytes()) {}
  size_t bytes() const override { return layout.bytes(); }

  kernels::DeviceLayout layout;
  int exponent;
  Memory<uint32_t> codes;
  Memory<Half> scales;
  Memory<uint8_t> zeros;
};

const Weight& weight_of(const DeviceWeight& weight) { return static_cast<const Weight&>(weight); }

/// Whether two weights can go into one launch.
bool alike(const kernels::DeviceLayout& a, const kernels::DeviceLayout& b) {
  return a.bits == b.bits && a.zero == b.zero && a.center == b.center && a.columns == b.columns &&
         a.group_units == b.group_units;
}

struct Output {
  const Weight* weight;
  float* y;
  int64_t y_stride;
};

/// The card this process uses: the first one that CUDA shows.
class Card {
 public:
  static Card& get() {
    static Card card;
    return card;
  }
  Card() {
    cudaDeviceProp properties = {};
    expect_ok(cudaGetDeviceProperties(&properties, 0), "asking for its properties");
    name = properties.name;
    if (properties.major < 8)
      throw_error<OptionError>("{} has compute capability {}.{}: the kernels need 8.0; leave --device at cpu", name,
                               properties.major, properties.minor);
    expect_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "opening a stream");
    how = {stream, properties.multiProcessorCount, properties.major >= 9};
    cache_bytes = static_cast<size_t>(properties.l2CacheSize);
  }

  /// Everything in the card's memory; all outputs are alike.
  void multiply(const std::vector<Output>& outputs, const float* x, int64_t x_stride, int64_t tokens) {
    const kernels::DeviceLayout& l = outputs.at(0).weight->layout;
    const bool matrix = tokens > kGemvTokens;
    Call call = {};
    for (const Output& output : outputs) {
      const Weight& w = *output.weight;
      const kernels::DeviceLayout& shape = w.layout;
      call.tasks[call.count++] = {.codes = w.codes.data(),
                                  .scales = reinterpret_cast<const __half2*>(w.scales.data()),
                                  .zeros = w.zeros.data(),
                                  .y = output.y,
                                  .y_stride = output.y_stride,
                                  .words_per_tile = shape.words_per_tile(),
                                  .rows = static_cast<int>(shape.rows),
                                  .tiles = static_cast<int>(shape.tiles),
                                  .groups = static_cast<int>(shape.groups),
                                  .first = call.work,
                                  .down = std::ldexp(1.0f, -w.exponent)};
      call.work += static_cast<int>(matrix ? (shape.tiles + kGemmTiles - 1) / kGemmTiles : shape.tiles);
    }
    call.blocks = static_cast<int>(l.blocks);
    call.columns = static_cast<int>(l.columns);
    call.tokens = static_cast<int>(tokens);
    call.center = l.center;
    call.group_shift = std::bit_width(static_cast<uint64_t>(l.group_units)) - 1;
    call.zero_group_bytes = static_cast<int>(l.zero_group_bytes());
    call.minimum = l.zero == PackedZero::minimum;
    call.magic = l.bits == 8 ? 0x64646464u : 0x64006400u;
    call.x = x;
    if (tokens > 1) {
      const auto n = static_cast<size_t>(tokens), blocks = static_cast<size_t>(l.blocks);
      rounded_.reserve(n * blocks * 64);
      sums_.reserve(n * blocks * 2);
      token_scale_.reserve(n);
      auto* rounded = reinterpret_cast<__half*>(rounded_.data());
      round_tokens(x, x_stride, call.columns, call.blocks, call.tokens, rounded, sums_.data(), token_scale_.data(), how);
      call.rounded = rounded;
      call.sums = sums_.data();
      call.token_scale = token_scale_.data();
    }
    if (l.bits == 2) return launch<2>(call, how);
    if (l.bits == 3) return launch<3>(call, how);
    if (l.bits == 4) return launch<4>(call, how);
    launch<8>(call, how);
  }
  void reserve_rounded(size_t tokens, size_t columns) {  // nothing may grow while launches are recorded
    rounded_.reserve(tokens * columns);
    sums_.reserve(tokens * columns / 32);
    token_scale_.reserve(tokens);
  }

  std::mutex mutex;
  std::string name;
  cudaStream_t stream = nullptr;
  Launch how = {};
  size_t cache_bytes = 0;
  Memory<float, false> x_here, y_here;  ///< of the processor
  Memory<float> x, y;

 private:
  Memory<uint16_t> rounded_;
  Memory<float> sums_, token_scale_;
};

/// Rows of the input, normalized where that is asked for, one behind the other.
void gather(const LinearInput& input, int64_t tokens, int64_t columns, float* to) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = input.x + t * input.stride;
    if (input.norm != nullptr)
      kernels::table().rms_norm(row, input.norm, input.epsilon, 1, columns, to + t * columns);
    else
      std::copy(row, row + columns, to + t * columns);
  }
}

void scatter(const LinearTask& task, const float* y, int64_t tokens, int64_t stride) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* out = task.y + t * task.y_stride;
    const float* from = y + t * stride;
    for (int64_t r = 0; r < task.spec.rows; ++r) {
      const float value = task.bias != nullptr ? from[r] + task.bias[r] : from[r];
      out[r] = task.add ? out[r] + value : value;
    }
  }
}

}  // namespace
}  // namespace cuda

bool has_accelerator() {
  int cards = 0;
  const bool there = cudaGetDeviceCount(&cards) == cudaSuccess && cards > 0;
  cudaGetLastError();
  return there;
}

std::string accelerator_name() {
  if (!has_accelerator()) throw OptionError("CUDA finds no graphics card on this machine: leave --device at cpu");
  return cuda::Card::get().name;
}

std::shared_ptr<const DeviceWeight> to_device(const LinearSpec& spec, const std::byte* packed, ThreadPool& pool) {
  using namespace cuda;
  accelerator_name();  // throws without a card
  if (!kernels::has_device_layout(spec)) return nullptr;
  const kernels::DeviceCodes codes = kernels::device_codes(spec, packed, pool);
  auto weight = std::make_shared<Weight>(codes.layout, codes.exponent);
  const auto copy = [](void* to, const auto& from) {
    expect_ok(cudaMemcpy(to, from.data(), from.size() * sizeof(from[0]), cudaMemcpyHostToDevice), "copying a weight");
  };
  copy(weight->codes.data(), codes.codes);
  copy(weight->scales.data(), codes.scales);
  if (!codes.zeros.empty()) copy(weight->zeros.data(), codes.zeros);
  return weight;
}

void device_linear(std::span<const LinearTask> tasks, const LinearInput& input, int64_t tokens) {
  using namespace cuda;
  if (tokens <= 0 || tasks.empty()) return;
  Card& card = Card::get();
  const std::lock_guard lock(card.mutex);
  const int64_t columns = tasks[0].spec.columns;
  int64_t rows = 0;
  for (const LinearTask& task : tasks) rows += task.spec.rows;
  const auto inputs = static_cast<size_t>(tokens * columns), outputs = static_cast<size_t>(tokens * rows);
  card.x_here.reserve(inputs), card.x.reserve(inputs);
  card.y_here.reserve(outputs), card.y.reserve(outputs);
  gather(input, tokens, columns, card.x_here.data());
  expect_ok(cudaMemcpyAsync(card.x.data(), card.x_here.data(), inputs * sizeof(float), cudaMemcpyHostToDevice, card.stream),
            "copying activations");
  std::vector<bool> done(tasks.size(), false);
  int64_t first = 0;
  std::vector<int64_t> firsts;
  for (const LinearTask& task : tasks) firsts.push_back(std::exchange(first, first + task.spec.rows));
  for (size_t i = 0; i < tasks.size(); ++i) {
    std::vector<Output> together;
    const kernels::DeviceLayout& kind = weight_of(*tasks[i].device).layout;
    for (size_t j = i; j < tasks.size() && together.size() < kMostTasks; ++j) {
      const Weight& weight = weight_of(*tasks[j].device);
      if (done[j] || !alike(weight.layout, kind)) continue;
      together.push_back({&weight, card.y.data() + firsts[j], rows});
      done[j] = true;
    }
    if (!together.empty()) card.multiply(together, card.x.data(), columns, tokens);
  }
  expect_ok(cudaMemcpyAsync(card.y_here.data(), card.y.data(), outputs * sizeof(float), cudaMemcpyDeviceToHost, card.stream),
            "copying results");
  expect_ok(cudaStreamSynchronize(card.stream), "a product");
  for (size_t i = 0; i < tasks.size(); ++i) scatter(tasks[i], card.y_here.data() + firsts[i], tokens, rows);
}

std::shared_ptr<const DeviceWeight> duplicate(const DeviceWeight& weight) {
  using namespace cuda;
  const Weight& from = weight_of(weight);
  auto to = std::make_shared<Weight>(from.layout, from.exponent);
  const auto copy = [](const auto& target, const auto& source) {
    if (source.size() > 0)
      expect_ok(cudaMemcpy(target.data(), source.data(), source.size() * sizeof(*source.data()), cudaMemcpyDeviceToDevice),
                "duplicating a weight");
  };
  copy(to->codes, from.codes);
  copy(to->scales, from.scales);
  copy(to->zeros, from.zeros);
  return to;
}

double device_pass_seconds(std::span<const DeviceStep> steps, int64_t tokens, int repeats) {
  using namespace cuda;
  Card& card = Card::get();
  const std::lock_guard lock(card.mutex);
  int64_t columns = 0, rows = 0;
  for (const DeviceStep& step : steps) {
    int64_t step_rows = 0;
    for (const auto& weight : step.weights) {
      columns = std::max(columns, weight_of(*weight).layout.blocks * 64);
      step_rows += weight_of(*weight).layout.rows;
    }
    rows = std::max(rows, step_rows);
  }
  card.x.reserve(static_cast<size_t>(tokens * columns));
  card.y.reserve(static_cast<size_t>(tokens * rows));
  card.reserve_rounded(static_cast<size_t>(tokens), static_cast<size_t>(columns));
  std::vector<float> ones(static_cast<size_t>(tokens * columns));
  for (size_t i = 0; i < ones.size(); ++i) ones[i] = static_cast<float>(i % 13) / 8 - 0.75f;
  expect_ok(cudaMemcpy(card.x.data(), ones.data(), ones.size() * sizeof(float), cudaMemcpyHostToDevice), "copying activations");
  const auto pass = [&] {
    for (const DeviceStep& step : steps) {
      std::vector<Output> outputs;
      int64_t first = 0;
      for (const auto& weight : step.weights)
        outputs.push_back(
            {&weight_of(*weight), card.y.data() + std::exchange(first, first + weight_of(*weight).layout.rows), rows});
      card.multiply(outputs, card.x.data(), columns, tokens);
    }
  };
  pass();  // whatever is set up at a kernel's first launch
  expect_ok(cudaStreamSynchronize(card.stream), "the first pass");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  expect_ok(cudaStreamBeginCapture(card.stream, cudaStreamCaptureModeGlobal), "recording");
  pass();
  expect_ok(cudaStreamEndCapture(card.stream, &graph), "recording");
  expect_ok(cudaGraphInstantiate(&ready, graph, 0), "recording");
  const double seconds =
      median_seconds(card.stream, repeats, [&] { expect_ok(cudaGraphLaunch(ready, card.stream), "a replay"); });
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  return seconds;
}

DeviceRoofs measure_device_roofs() {
  accelerator_name();
  cuda::Card& card = cuda::Card::get();
  const std::lock_guard lock(card.mutex);
  return {cuda::read_gb_per_s(card.how, card.cache_bytes), cuda::tensor_tflops(card.how)};
}

}  // namespace lighten
