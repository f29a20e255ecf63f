#include "lighten/runtime/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/runtime/reference_decoder_test.h"

namespace lighten {
namespace {

using namespace test;

const RuntimeOptions kExact{.threads = 2, .exact = true, .storage = FloatStorage::f32};

/// One tiny model per architecture, written once.
struct TinyModel {
  ModelConfig config;
  Tensors tensors;
  fs::path folder;
};

const TinyModel& tiny(int index) {
  static std::map<int, TinyModel> made;
  auto found = made.find(index);
  if (found == made.end()) {
    const ModelConfig config = tiny_configs()[static_cast<size_t>(index)];
    TinyModel model{config, random_tensors(config, static_cast<uint64_t>(index) + 1), scratch("tiny-" + std::to_string(index))};
    write_hf_folder(model.folder, model.config, model.tensors);
    found = made.emplace(index, std::move(model)).first;
  }
  return found->second;
}

template <typename A, typename B>
double relative(const A* got, const B* want, size_t n) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    difference += d * d;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(difference / norm);
}

/// The largest relative difference of any position.
template <typename A, typename B>
double worst(const std::vector<A>& got, const std::vector<B>& want, size_t vocab) {
  EXPECT_EQ(got.size(), want.size());
  double most = 0;
  for (size_t i = 0; i < want.size(); i += vocab) most = std::max(most, relative(got.data() + i, want.data() + i, vocab));
  return most;
}

std::vector<float> run_all(RuntimeModel& model, KvCache& cache, const std::vector<int32_t>& ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(model.config().vocab_size));
  model.forward(cache, ids, logits.data(), static_cast<int64_t>(ids.size()));
  return logits;
}

std::vector<float> run_in_pieces(RuntimeModel& model, KvCache& cache, const std::vector<int32_t>& ids,
                                 const std::vector<size_t>& pieces) {
  std::vector<float> logits;
  size_t begin = 0;
  for (const size_t piece : pieces) {
    const std::vector<int32_t> part(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                    ids.begin() + static_cast<std::ptrdiff_t>(begin + piece));
    const std::vector<float> got = run_all(model, cache, part);
    logits.insert(logits.end(), got.begin(), got.end());
    begin += piece;
  }
  EXPECT_EQ(begin, ids.size());
  return logits;
}

class TinyDecoder : public testing::TestWithParam<int> {};

TEST_P(TinyDecoder, LogitsEqualPlainLoopsInDoublePrecision) {
  const TinyModel& tiny_model = tiny(GetParam());
  const auto model = RuntimeModel::load(tiny_model.folder, kExact);
  const std::vector<int32_t> ids = random_ids(tiny_model.config, 40, 7);
  const auto cache = model->new_cache();
  const std::vector<double> want = ReferenceDecoder(tiny_model.config, tiny_model.tensors).logits(ids);
  EXPECT_LT(worst(run_all(*model, *cache, ids), want, 96), 1e-5);
  EXPECT_EQ(cache->length(), 40);
}

TEST_P(TinyDecoder, SixteenBitWeightsAndCacheStayClose) {
  const TinyModel& tiny_model = tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(tiny_model.config, 40, 8);
  const std::vector<double> want = ReferenceDecoder(tiny_model.config, tiny_model.tensors).logits(ids);
  for (const auto& [storage, tolerance] :
       {std::pair{FloatStorage::native, 4e-3}, {FloatStorage::f16, 4e-3}, {FloatStorage::bf16, 3e-2}}) {
    const auto model = RuntimeModel::load(tiny_model.folder, {.threads = 2, .exact = false, .storage = storage});
    const auto cache = model->new_cache();
    EXPECT_LT(worst(run_all(*model, *cache, ids), want, 96), tolerance) << static_cast<int>(storage);
  }
}

TEST_P(TinyDecoder, DecodingTokenByTokenEqualsTheWholePrompt) {
  const TinyModel& tiny_model = tiny(GetParam());
  const auto model = RuntimeModel::load(tiny_model.folder, kExact);
  const std::vector<int32_t> ids = random_ids(tiny_model.config, 48, 9);
  const auto whole = model->new_cache(), single = model->new_cache(), mixed = model->new_cache();
  const std::vector<float> want = run_all(*model, *whole, ids);
  EXPECT_LT(worst(run_in_pieces(*model, *single, ids, std::vector<size_t>(48, 1)), want, 96), 1e-5);
  EXPECT_LT(worst(run_in_pieces(*model, *mixed, ids, {5, 1, 17, 2, 1, 22}), want, 96), 1e-5);
}

TEST_P(TinyDecoder, LongPromptsInChunksEqualTokenByToken) {
  const TinyModel& tiny_model = tiny(GetParam());
  const auto model = RuntimeModel::load(tiny_model.folder, kExact);
  const size_t n = 2 * runtime::Decoder::kChunk + 37;
  const std::vector<int32_t> ids = random_ids(tiny_model.config, n, 10);
  const auto whole = model->new_cache(), single = model->new_cache(), tail = model->new_cache();
  const std::vector<float> got = run_all(*model, *whole, ids);
  EXPECT_LT(worst(got, run_in_pieces(*model, *single, ids, std::vector<size_t>(n, 1)), 96), 2e-5);

  const size_t asked = runtime::Decoder::kChunk + 50;  // begins inside the second chunk
  std::vector<float> some(asked * 96);
  model->forward(*tail, ids, some.data(), static_cast<int64_t>(asked));
  EXPECT_LT(worst(some, std::vector<float>(got.end() - static_cast<std::ptrdiff_t>(some.size()), got.end()), 96), 1e-5);
}

TEST_P(TinyDecoder, TruncatingEqualsNeverHavingRun) {
  const TinyModel& tiny_model = tiny(GetParam());
  const auto model = RuntimeModel::load(tiny_model.folder, {.threads = 2, .exact = false, .storage = FloatStorage::f32});
  const std::vector<int32_t> start = random_ids(tiny_model.config, 9, 11), wrong = random_ids(tiny_model.config, 290, 12),
                             next = random_ids(tiny_model.config, 6, 13);
  const auto straight = model->new_cache(), rolled_back = model->new_cache();
  run_all(*model, *straight, start);
  run_all(*model, *rolled_back, start);
  run_all(*model, *rolled_back, wrong);
  rolled_back->truncate(9);
  EXPECT_EQ(rolled_back->length(), 9);
  EXPECT_EQ(run_all(*model, *rolled_back, next), run_all(*model, *straight, next));
}

TEST_P(TinyDecoder, TheNumberOfThreadsDoesNotChangeABit) {
  const TinyModel& tiny_model = tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(tiny_model.config, 33, 14);
  std::vector<std::vector<float>> logits;
  for (const int threads : {1, 3}) {
    const auto model =
        RuntimeModel::load(tiny_model.folder, {.threads = threads, .exact = false, .storage = FloatStorage::f32});
    const auto cache = model->new_cache();
    logits.push_back(run_in_pieces(*model, *cache, ids, {30, 1, 1, 1}));
  }
  EXPECT_EQ(logits[0], logits[1]);
}

std::string tiny_name(const testing::TestParamInfo<int>& info) {
  return std::vector<std::string>{"Llama3", "LlamaLinear", "Qwen2", "Qwen3", "Gemma3"}[static_cast<size_t>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Every, TinyDecoder, testing::Range(0, 5), tiny_name);

/// A float model some of whose matrices the file holds in 8 bits, as GGUFs that mix kinds do: v of every layer in groups of 32,
/// k of the second in groups of 64.
class MixedWeights final : public WeightSource {
 public:
  explicit MixedWeights(std::unique_ptr<WeightSource> source) : source_(std::move(source)) {}
  const fs::path& path() const override { return source_->path(); }
  const ModelConfig& config() const override { return source_->config(); }
  const std::vector<StoredTensor>& tensors() const override { return source_->tensors(); }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return nullptr; }
  std::string chat_template() const override { return ""; }
  uint64_t size_on_disk() const override { return 0; }
  std::string container() const override { return "test"; }
  std::vector<float> read(const std::string& name) const override {
    const std::optional<QuantTensor> quantized = read_quantized(name);
    return quantized ? dequantize(*quantized) : source_->read(name);
  }
  std::optional<QuantTensor> read_quantized(const std::string& name) const override {
    const bool v = name.ends_with("v_proj.weight"), k = name == "model.layers.1.self_attn.k_proj.weight";
    if (!v && !k) return std::nullopt;
    const std::vector<float> values = source_->read(name);
    const int64_t columns = config().hidden_size, group = v ? 32 : 64;
    QuantTensor tensor;
    tensor.bits = 8;
    tensor.zero = ZeroKind::symmetric;
    tensor.group_size = group;
    tensor.rows = std::ssize(values) / columns;
    tensor.columns = columns;
    for (size_t begin = 0; begin < values.size(); begin += static_cast<size_t>(group)) {
      const Half scale = float_to_half(0.01f);
      tensor.scales.push_back(scale);
      for (size_t i = begin; i < begin + static_cast<size_t>(group); ++i)
        tensor.codes.push_back(
            static_cast<uint8_t>(std::clamp<long>(std::lround(values[i] / half_to_float(scale)) + 128, 0, 255)));
    }
    return tensor;
  }

 private:
  std::unique_ptr<WeightSource> source_;
};

TEST(Decoder, ProductsOfOneInputMayMixBitsAndGroups) {
  for (const int index : {0, 2, 4}) {
    const TinyModel& tiny_model = tiny(index);
    const MixedWeights mixed(open_weights(tiny_model.folder));
    Tensors tensors = tiny_model.tensors;
    for (auto& [name, values] : tensors)
      if (mixed.read_quantized(name)) values = mixed.read(name);
    const std::vector<int32_t> ids = random_ids(tiny_model.config, 40, 15);
    const std::vector<double> want = ReferenceDecoder(tiny_model.config, tensors).logits(ids);
    for (const bool exact : {true, false}) {
      auto pool = std::make_unique<ThreadPool>(2);
      auto weights = runtime::pack_weights(mixed, FloatStorage::native, *pool);
      EXPECT_EQ(weights.layers[1].v.weight.spec.bits, 8);
      EXPECT_EQ(weights.layers[1].k.weight.spec.group_size, 64);
      EXPECT_EQ(weights.layers[1].q.weight.spec.bits, 16);
      runtime::Decoder model(std::move(weights), {}, {.exact = exact}, std::move(pool));
      const auto cache = model.new_cache(0);
      EXPECT_LT(worst(run_all(model, *cache, ids), want, 96), 4e-3) << index;
    }
  }
}

TEST(Decoder, RefusesWhatCannotWork) {
  const TinyModel& tiny_model = tiny(0);
  const auto model = RuntimeModel::load(tiny_model.folder, kExact);
  const auto other = RuntimeModel::load(tiny(3).folder, kExact);
  const auto cache = model->new_cache(8);
  std::vector<float> logits(96);
  const std::vector<int32_t> outside{96}, negative{-1}, nine(9, 5), eight(8, 5), one{5};
  EXPECT_THROW(model->forward(*cache, outside, logits.data()), OptionError);
  EXPECT_THROW(model->forward(*cache, negative, logits.data()), OptionError);
  EXPECT_THROW(model->forward(*cache, nine, logits.data()), OptionError);
  EXPECT_THROW(model->forward(*cache, one, logits.data(), 2), OptionError);
  EXPECT_THROW(other->forward(*cache, one, logits.data()), OptionError);
  EXPECT_THROW(model->new_cache(1025), OptionError);
  EXPECT_THROW(cache->truncate(1), OptionError);
  EXPECT_EQ(cache->length(), 0) << "a refused call leaves the cache as it was";
  model->forward(*cache, eight, logits.data());
  EXPECT_THROW(model->forward(*cache, one, logits.data()), OptionError);
  EXPECT_EQ(cache->length(), 8);
}

TEST(Decoder, TheCacheHoldsHalfTheBytesOutsideExactMode) {
  std::vector<float> logits(96);
  const std::vector<int32_t> ids(300, 5);
  uint64_t bytes[2];
  for (const bool exact : {false, true}) {
    const auto model = RuntimeModel::load(tiny(0).folder, {.threads = 1, .exact = exact, .storage = FloatStorage::f32});
    const auto cache = model->new_cache();
    EXPECT_EQ(cache->bytes(), 0u);
    model->forward(*cache, ids, logits.data());
    bytes[exact] = cache->bytes();
  }
  EXPECT_EQ(bytes[0], 2u * 3 * 320 * 2 * 16 * 2);  // k and v, layers, positions in whole pages, kv heads, head_dim, bytes
  EXPECT_EQ(bytes[1], 2 * bytes[0]);
}

TEST(Rotary, LinearScalingDividesTheFrequencies) {
  const std::vector<float> plain = runtime::rotary_frequencies({.base = 10000}, 64);
  const std::vector<float> slowed =
      runtime::rotary_frequencies({.base = 10000, .scaling = RopeConfig::Scaling::linear, .factor = 4}, 64);
  ASSERT_EQ(plain.size(), 32u);
  EXPECT_EQ(plain[0], 1.0f);
  EXPECT_NEAR(plain[31], std::pow(10000.0, -62.0 / 64), 1e-11);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(slowed[i], plain[i] / 4);
}

TEST(Rotary, GrowingByOnePositionSeldomMovesTheTable) {
  const RopeConfig plain{.base = 10000};
  runtime::RotaryTable table(plain, 16), whole(plain, 16);
  whole.reserve(4096);
  int moves = 0;
  for (int64_t positions = 1; positions <= 4096; ++positions) {
    const float* before = positions > 1 ? table.cos(0) : nullptr;
    table.reserve(positions);
    moves += table.cos(0) != before;
  }
  EXPECT_LE(moves, 13);  // 1 + log2(4096)
  for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{4095}})
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(table.cos(position)[i], whole.cos(position)[i]);
      EXPECT_EQ(table.sin(position)[i], whole.sin(position)[i]);
    }
}

TEST(RandomModel, RunsWithItsSpecBits) {
  const auto model = RuntimeModel::random("smollm2-135m", 3, 64, {.threads = 2});
  EXPECT_EQ(model->tokenizer(), nullptr);
  // 3 bits, a scale of 16 and a zero point of 3 bits in every 64 weights, and the float norms.
  EXPECT_NEAR(static_cast<double>(model->weight_bytes()), 134.5e6 * (3 + 19.0 / 64) / 8 + 61 * 576 * 4, 0.02 * 55e6);
  const auto cache = model->new_cache();
  std::vector<float> logits(49152);
  const std::vector<int32_t> ids{1, 2, 3};
  model->forward(*cache, ids, logits.data());
  EXPECT_TRUE(std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); }));
  EXPECT_THROW(RuntimeModel::random("smollm3", 3, 64), OptionError);
  EXPECT_THROW(RuntimeModel::random("smollm2-135m", 5, 64), OptionError);
  EXPECT_THROW(RuntimeModel::random("smollm2-135m", 4, 128), OptionError) << "128 does not divide 576";
}

fs::path smollm2() { return cache_folder() / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"; }

TEST(RealModel, SmolLm2TopLogitsEqualTheReference) {
  if (!fs::exists(smollm2())) GTEST_SKIP() << "fetch smollm2-135m first";
  const std::vector<int32_t> ids{504, 3575, 282, 4649, 314};  // "The capital of France is"
  const std::vector<std::pair<int32_t, double>> want{
      {7042, 17.3713}, {260, 14.8886}, {4528, 13.2450}, {2250, 13.0095}, {1315, 12.9515}};
  std::vector<float> logits(49152), native(49152);
  for (const auto& [storage, out] : {std::pair{FloatStorage::f32, &logits}, {FloatStorage::native, &native}}) {
    const auto model = RuntimeModel::load(smollm2(), {.threads = 2, .exact = true, .storage = storage});
    const auto cache = model->new_cache();
    model->forward(*cache, ids, out->data());
  }
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + 5, order.end(),
                    [&](int32_t a, int32_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(order[i], want[i].first);
    EXPECT_NEAR(static_cast<double>(logits[static_cast<size_t>(order[i])]), want[i].second, 1e-3);
  }
  EXPECT_LT(relative(native.data(), logits.data(), logits.size()), 1e-5) << "packed GGUF blocks mean the same weights";
}

TEST(RealModel, SmolLm2WithRoundedActivationsAndCacheStaysClose) {
  if (!fs::exists(smollm2())) GTEST_SKIP() << "fetch smollm2-135m first";
  const auto exact = RuntimeModel::load(smollm2(), {.threads = 2, .exact = true});
  const auto fast = RuntimeModel::load(smollm2(), {.threads = 2, .exact = false});
  const std::vector<int32_t> ids = exact->tokenizer()->encode(
      "A hash table stores pairs of keys and values. A function turns each key into a number, the number says in which bucket "
      "of an array the "
      "pair is kept, and looking a key up takes the same time however many pairs there are. When two keys fall into one "
      "bucket, they are chained.");
  const auto exact_cache = exact->new_cache(), fast_cache = fast->new_cache();
  EXPECT_LT(worst(run_all(*fast, *fast_cache, ids), run_all(*exact, *exact_cache, ids), 49152), 2e-2);
}

}  // namespace
}  // namespace lighten
