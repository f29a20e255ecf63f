#include "lighten/runtime/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lighten/base/error.h"

namespace lighten::runtime {

namespace {

constexpr int64_t kSerialFloats = 1 << 14;  // touched in less time than it takes to wake the other threads
constexpr int64_t kNarrow = 1024;           // hidden size: see Activations::automatic
constexpr int64_t kPlacesAtOnce = 8192;     // logits that one task puts into the order of the tokens
constexpr int64_t kHeadFloats = 1 << 20;    // bounds the memory for logits of many tokens on their way

Arithmetic arithmetic_of(const RuntimeOptions& options, int64_t hidden_size) {
  if (options.exact) return Arithmetic::exact;
  switch (options.activations) {
    case Activations::bits8:
      return Arithmetic::bits8;
    case Activations::adaptive:
      return Arithmetic::adaptive;
    case Activations::bits16:
      return Arithmetic::bits16;
    case Activations::automatic:
      break;
  }
  return hidden_size < kNarrow ? Arithmetic::bits16 : Arithmetic::adaptive;
}

void grow(std::vector<float>& buffer, int64_t size) {
  if (buffer.size() < static_cast<size_t>(size)) buffer.resize(static_cast<size_t>(size));
}

}  // namespace

Decoder::Decoder(DecoderWeights weights, Companions companions, const RuntimeOptions& options, std::unique_ptr<ThreadPool> pool)
    : weights_(std::move(weights)),
      companions_(std::move(companions)),
      exact_(options.exact),
      chunk_tokens_(options.device == Device::cpu ? kChunk : kDeviceChunk),
      arithmetic_(arithmetic_of(options, weights_.config.hidden_size)),
      kv_cache_(options.kv_cache),
      pool_(std::move(pool)),
      rope_(weights_.config.rope, weights_.config.head_dim),
      local_rope_(weights_.config.local_rope, weights_.config.head_dim) {
  if (options.device == Device::cpu) return;
  if (exact_) throw OptionError("--exact is for --device cpu: the graphics card rounds activations to 16-bit floats");
  copy_to_device(weights_, *pool_);
}

std::shared_ptr<const Tokenizer> Decoder::tokenizer() const {
  if (!companions_.tokenizer && weights_.light) return weights_.light->tokenizer();
  return companions_.tokenizer;
}

std::unique_ptr<KvCache> Decoder::new_cache(int64_t capacity) const {
  const int64_t context = weights_.config.context_length;
  if (capacity < 0 || capacity > context)
    throw_error<OptionError>("a context of {} tokens: must be between 1 and the model's {}", capacity, context);
  return std::make_unique<Cache>(weights_.config, kv_format(), capacity == 0 ? context : capacity);
}

template <typename Body>
void Decoder::each_token(int64_t n, int64_t floats, const Body& body) {
  if (n == 1 || n * floats < kSerialFloats) {
    for (int64_t t = 0; t < n; ++t) body(t);
    return;
  }
  pool_->parallel_for(n, std::max<int64_t>(1, n / (4 * pool_->size())), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t);
  });
}

void Decoder::resize_scratch(int64_t tokens) {
  const ModelConfig& c = weights_.config;
  grow(scratch_.x, tokens * c.hidden_size);
  grow(scratch_.h, tokens * c.hidden_size);
  grow(scratch_.q, tokens * c.heads * c.head_dim);
  grow(scratch_.k, tokens * c.kv_heads * c.head_dim);
  grow(scratch_.v, tokens * c.kv_heads * c.head_dim);
  grow(scratch_.context, tokens * c.heads * c.head_dim);
  grow(scratch_.gate, tokens * c.intermediate_size);
  grow(scratch_.up, tokens * c.intermediate_size);
}

void Decoder::forward(KvCache& cache, std::span<const int32_t> tokens, float* logits, int64_t logits_for) {
  const BatchStep step{&cache, tokens, logits_for};
  forward_batch(std::span(&step, 1), logits);
}

void Decoder::check_steps(std::span<const BatchStep> steps) const {
  for (size_t i = 0; i < steps.size(); ++i) {
    const BatchStep& step = steps[i];
    const auto* cache = dynamic_cast<const Cache*>(step.cache);
    if (cache == nullptr || !cache->fits(weights_.config, kv_format()))
      throw OptionError("this KV cache belongs to another model");
    for (const BatchStep& other : steps.first(i))
      if (other.cache == step.cache) throw OptionError("a KV cache occurs twice in a batch: every sequence needs its own");
    if (const auto n = static_cast<int64_t>(step.tokens.size()); step.logits_for < 0 || step.logits_for > n)
      throw_error<OptionError>("logits of {} tokens were asked for, but {} were given", step.logits_for, n);
    for (const int32_t id : step.tokens)
      if (id < 0 || id >= weights_.config.vocab_size)
        throw_error<OptionError>("token id {} is outside the vocabulary of {}", id, weights_.config.vocab_size);
  }
}

void Decoder::Chunk::add(const Segment& segment, std::span<const int32_t> ids) {
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  segment_of.insert(segment_of.end(), ids.size(), segments.size());
  segments.push_back(segment);
  logits_for += segment.logits_for;
}

void Decoder::forward_batch(std::span<const BatchStep> steps, float* logits) {
  check_steps(steps);
  int64_t total = 0, longest = 0;
  for (const BatchStep& step : steps) {
    auto& cache = static_cast<Cache&>(*step.cache);
    const auto n = static_cast<int64_t>(step.tokens.size());
    cache.reserve(cache.length() + n);
    longest = std::max(longest, cache.length() + n);
    total += n;
  }
  rope_.reserve(longest);
  if (weights_.config.sliding_window > 0) local_rope_.reserve(longest);
  resize_scratch(std::min(total, chunk_tokens_));
  Chunk chunk;
  const auto flush = [&] {
    run(chunk, logits);
    logits += chunk.logits_for * weights_.config.vocab_size;
    chunk = {};
  };
  for (const BatchStep& step : steps) {
    auto& cache = static_cast<Cache&>(*step.cache);
    const auto n = static_cast<int64_t>(step.tokens.size());
    for (int64_t begin = 0, count = 0; begin < n; begin += count) {
      const auto room = [&] { return chunk_tokens_ - static_cast<int64_t>(chunk.tokens.size()); };
      if (room() == 0) flush();
      count = std::min(n - begin, room());
      const int64_t wanted = std::clamp<int64_t>(begin + count - (n - step.logits_for), 0, count);
      const Segment segment{&cache, static_cast<int64_t>(chunk.tokens.size()), count, cache.length() + begin, wanted};
      chunk.add(segment, step.tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)));
    }
  }
  if (!chunk.tokens.empty()) flush();
  for (const BatchStep& step : steps) {
    auto& cache = static_cast<Cache&>(*step.cache);
    cache.set_length(cache.length() + static_cast<int64_t>(step.tokens.size()));
  }
}

void Decoder::run(const Chunk& chunk, float* logits) {
  embed(chunk.tokens);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    attention_part(weights_.layers[i], static_cast<int64_t>(i), chunk);
    mlp_part(weights_.layers[i], static_cast<int64_t>(chunk.tokens.size()));
  }
  if (chunk.logits_for > 0) head(chunk, logits);
}

void Decoder::embed(std::span<const int32_t> tokens) {
  const int64_t width = weights_.config.hidden_size;
  const auto scale = static_cast<float>(weights_.config.embedding_scale);
  each_token(static_cast<int64_t>(tokens.size()), width, [&](int64_t t) {
    float* row = scratch_.x.data() + t * width;
    const auto token = static_cast<size_t>(tokens[static_cast<size_t>(t)]);
    int64_t place = weights_.embedding.places.empty() ? static_cast<int64_t>(token) : weights_.embedding.places[token];
    const Matrix* band = weights_.embedding.bands.data();
    for (; place >= band->weight.spec.rows; ++band) place -= band->weight.spec.rows;
    unpack_row(band->weight.spec, band->weight.data, place, row);
    if (scale != 1)
      for (int64_t i = 0; i < width; ++i) row[i] *= scale;
  });
}

void Decoder::multiply(const LinearInput& input, int64_t n, std::initializer_list<Product> products) {
  std::array<LinearTask, 3> tasks;
  size_t count = 0;
  for (const Product& product : products) {
    const auto& [spec, data] = product.matrix.weight;
    const std::vector<float>& bias = product.matrix.bias;
    tasks[count++] = {
        spec, data, product.out, spec.rows, bias.empty() ? nullptr : bias.data(), product.add, product.matrix.device.get()};
  }
  linear(std::span(tasks).first(count), input, n, arithmetic_, *pool_);
}

void Decoder::multiply_onto_residual(const float* in, int64_t n, const Matrix& matrix, const std::vector<float>& out_norm) {
  const int64_t width = weights_.config.hidden_size;
  const LinearInput input{in, matrix.weight.spec.columns};
  if (out_norm.empty()) return multiply(input, n, {{matrix, scratch_.x.data(), true}});
  multiply(input, n, {{matrix, scratch_.h.data()}});
  normalize(out_norm, scratch_.h.data(), scratch_.h.data(), n);
  add(scratch_.x.data(), scratch_.h.data(), n * width);
}

LinearInput Decoder::normalized(const std::vector<float>& weight) const {
  return {scratch_.x.data(), weights_.config.hidden_size, weight.data(), static_cast<float>(weights_.config.norm_epsilon)};
}

void Decoder::normalize(const std::vector<float>& weight, const float* in, float* out, int64_t n) {
  const int64_t width = weights_.config.hidden_size;
  const auto epsilon = static_cast<float>(weights_.config.norm_epsilon);
  each_token(n, 2 * width, [&](int64_t t) { rms_norm(in + t * width, weight.data(), epsilon, 1, width, out + t * width); });
}

void Decoder::attention_part(const LayerWeights& layer, int64_t index, const Chunk& chunk) {
  const ModelConfig& c = weights_.config;
  const auto n = static_cast<int64_t>(chunk.tokens.size());
  Scratch& s = scratch_;
  multiply(normalized(layer.attention_norm), n, {{layer.q, s.q.data()}, {layer.k, s.k.data()}, {layer.v, s.v.data()}});

  const bool slides = c.slides(index);
  const RotaryTable& table = slides ? local_rope_ : rope_;
  const auto epsilon = static_cast<float>(c.norm_epsilon);
  each_token(n, 2 * (c.heads + 2 * c.kv_heads) * c.head_dim, [&](int64_t t) {
    float* q = s.q.data() + t * c.heads * c.head_dim;
    float* k = s.k.data() + t * c.kv_heads * c.head_dim;
    if (!layer.q_norm.empty()) rms_norm(q, layer.q_norm.data(), epsilon, c.heads, c.head_dim, q);
    if (!layer.k_norm.empty()) rms_norm(k, layer.k_norm.data(), epsilon, c.kv_heads, c.head_dim, k);
    const Segment& segment = chunk.segment(t);
    const int64_t position = segment.first + t - segment.row;
    rope(q, c.heads, c.head_dim, table.cos(position), table.sin(position));
    rope(k, c.kv_heads, c.head_dim, table.cos(position), table.sin(position));
    segment.cache->store(index, position, k, s.v.data() + t * c.kv_heads * c.head_dim);
  });
  const AttentionShape shape{.heads = c.heads,
                             .kv_heads = c.kv_heads,
                             .head_dim = c.head_dim,
                             .scale = static_cast<float>(c.score_scale()),
                             .softcap = static_cast<float>(c.attention_softcap),
                             .window = slides ? c.sliding_window : 0};
  attention_tasks_.clear();
  for (const Segment& segment : chunk.segments) {
    const int64_t at = segment.row * c.heads * c.head_dim;
    attention_tasks_.push_back(
        {s.q.data() + at, segment.cache->view(index), segment.first, segment.count, s.context.data() + at});
  }
  attention(shape, attention_tasks_, *pool_);
  multiply_onto_residual(s.context.data(), n, layer.o, layer.attention_out_norm);
}

void Decoder::mlp_part(const LayerWeights& layer, int64_t n) {
  const ModelConfig& c = weights_.config;
  Scratch& s = scratch_;
  multiply(normalized(layer.mlp_norm), n, {{layer.gate, s.gate.data()}, {layer.up, s.up.data()}});
  each_token(n, 4 * c.intermediate_size, [&](int64_t t) {
    const int64_t offset = t * c.intermediate_size;
    const auto act = c.activation == Activation::silu ? silu_mul : gelu_tanh_mul;
    act(s.gate.data() + offset, s.up.data() + offset, c.intermediate_size);
  });
  multiply_onto_residual(s.gate.data(), n, layer.down, layer.mlp_out_norm);
}

void Decoder::token_products(const float* x, int64_t n, float* logits) {
  const int64_t vocab = weights_.config.vocab_size;
  const std::vector<int32_t>& places = weights_.head.places;
  if (!places.empty()) grow(scratch_.banded, n * vocab);
  float* const out = places.empty() ? logits : scratch_.banded.data();
  std::vector<LinearTask> tasks;
  int64_t row = 0;
  for (const Matrix& band : weights_.head.bands) {
    tasks.push_back(
        {.spec = band.weight.spec, .packed = band.weight.data, .y = out + row, .y_stride = vocab, .device = band.device.get()});
    row += band.weight.spec.rows;
  }
  linear(tasks, {x, weights_.config.hidden_size}, n, arithmetic_, *pool_);
  if (places.empty()) return;
  pool_->parallel_for(vocab, kPlacesAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < n; ++t)
      for (int64_t id = begin; id < end; ++id) logits[t * vocab + id] = out[t * vocab + places[static_cast<size_t>(id)]];
  });
}

void Decoder::head(const Chunk& chunk, float* logits) {
  const ModelConfig& c = weights_.config;
  const int64_t logits_for = chunk.logits_for;
  float* normalized = scratch_.h.data();
  for (const Segment& segment : chunk.segments) {
    const int64_t row = segment.row + segment.count - segment.logits_for;
    normalize(weights_.final_norm, scratch_.x.data() + row * c.hidden_size, normalized, segment.logits_for);
    normalized += segment.logits_for * c.hidden_size;
  }
  const int64_t step = std::max<int64_t>(1, kHeadFloats / c.vocab_size);
  for (int64_t t = 0; t < logits_for; t += step)
    token_products(scratch_.h.data() + t * c.hidden_size, std::min(step, logits_for - t), logits + t * c.vocab_size);
  if (c.logit_softcap == 0) return;
  const auto cap = static_cast<float>(c.logit_softcap);
  each_token(logits_for, c.vocab_size, [&](int64_t t) {
    float* row = logits + t * c.vocab_size;
    for (int64_t i = 0; i < c.vocab_size; ++i) row[i] = cap * std::tanh(row[i] / cap);
  });
}

}  // namespace lighten::runtime

namespace lighten {

void RuntimeModel::forward_batch(std::span<const BatchStep> steps, float* logits) {
  for (const BatchStep& step : steps) {
    forward(*step.cache, step.tokens, logits, step.logits_for);
    logits += step.logits_for * config().vocab_size;
  }
}

std::unique_ptr<RuntimeModel> RuntimeModel::load(const fs::path& path, const RuntimeOptions& options) {
  auto pool = std::make_unique<ThreadPool>(options.threads);
  runtime::Companions companions;
  if (model_kind(path) == ModelKind::light) {
    auto light = std::make_shared<const LightModel>(path);
    companions.chat_template = light->chat_template();
    companions.size_on_disk = light->size_on_disk();
    return std::make_unique<runtime::Decoder>(runtime::map_weights(std::move(light)), std::move(companions), options,
                                              std::move(pool));
  }
  const std::unique_ptr<WeightSource> source = open_weights(path);
  if (!fs::is_directory(path) || fs::exists(path / "tokenizer.json")) companions.tokenizer = source->tokenizer();
  companions.chat_template = source->chat_template();
  companions.size_on_disk = source->size_on_disk();
  return std::make_unique<runtime::Decoder>(runtime::pack_weights(*source, options.storage, *pool), std::move(companions),
                                            options, std::move(pool));
}

std::unique_ptr<RuntimeModel> RuntimeModel::random(const std::string& shape, int bits, int64_t group_size,
                                                   const RuntimeOptions& options) {
  auto pool = std::make_unique<ThreadPool>(options.threads);
  auto weights = runtime::random_weights(shape, bits, group_size, *pool);
  return std::make_unique<runtime::Decoder>(std::move(weights), runtime::Companions{}, options, std::move(pool));
}

}  // namespace lighten
