#include "lighten/runtime/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/runtime/activation_split.h"

namespace lighten::runtime {

namespace {

constexpr int64_t kHeadFloats = 1 << 20;  // bounds the memory for logits of many tokens on their way

void grow(std::vector<float>& buffer, int64_t size) {
  if (buffer.size() < static_cast<size_t>(size)) buffer.resize(static_cast<size_t>(size));
}

}  // namespace

Decoder::Decoder(DecoderWeights weights, Companions companions, bool exact, std::unique_ptr<ThreadPool> pool)
    : weights_(std::move(weights)),
      companions_(std::move(companions)),
      exact_(exact),
      pool_(std::move(pool)),
      rope_(weights_.config.rope, weights_.config.head_dim),
      local_rope_(weights_.config.local_rope, weights_.config.head_dim) {}

std::shared_ptr<const Tokenizer> Decoder::tokenizer() const {
  if (!companions_.tokenizer && weights_.light) return weights_.light->tokenizer();
  return companions_.tokenizer;
}

std::unique_ptr<KvCache> Decoder::new_cache(int64_t capacity) const {
  const int64_t context = weights_.config.context_length;
  if (capacity < 0 || capacity > context)
    throw_error<OptionError>("a context of {} tokens: must be between 1 and the model's {}", capacity, context);
  return std::make_unique<Cache>(weights_.config, exact_, capacity == 0 ? context : capacity);
}

template <typename Body>
void Decoder::each_token(int64_t n, const Body& body) {
  if (n == 1) {
    body(0);
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

void Decoder::forward(KvCache& any_cache, std::span<const int32_t> tokens, float* logits, int64_t logits_for) {
  auto* cache = dynamic_cast<Cache*>(&any_cache);
  if (cache == nullptr || !cache->fits(weights_.config, exact_)) throw OptionError("this KV cache belongs to another model");
  const auto n = static_cast<int64_t>(tokens.size());
  if (logits_for < 0 || logits_for > n)
    throw_error<OptionError>("logits of {} tokens were asked for, but {} were given", logits_for, n);
  for (const int32_t id : tokens)
    if (id < 0 || id >= weights_.config.vocab_size)
      throw_error<OptionError>("token id {} is outside the vocabulary of {}", id, weights_.config.vocab_size);
  cache->reserve(cache->length() + n);
  rope_.reserve(cache->length() + n);
  if (weights_.config.sliding_window > 0) local_rope_.reserve(cache->length() + n);
  resize_scratch(std::min(n, kChunk));
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, n);
    const int64_t from = std::max(begin, n - logits_for);  // the first whose logits are asked for
    const int64_t wanted = std::max<int64_t>(0, end - from);
    chunk(*cache, tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
          wanted > 0 ? logits + (from - (n - logits_for)) * weights_.config.vocab_size : nullptr, wanted);
  }
}

void Decoder::chunk(Cache& cache, std::span<const int32_t> tokens, float* logits, int64_t logits_for) {
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t first = cache.length();
  embed(tokens);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    attention_part(weights_.layers[i], static_cast<int64_t>(i), cache, first, n);
    mlp_part(weights_.layers[i], n);
  }
  if (logits_for > 0) head(n, logits, logits_for);
  cache.set_length(first + n);
}

void Decoder::embed(std::span<const int32_t> tokens) {
  const int64_t width = weights_.config.hidden_size;
  const auto scale = static_cast<float>(weights_.config.embedding_scale);
  each_token(static_cast<int64_t>(tokens.size()), [&](int64_t t) {
    float* row = scratch_.x.data() + t * width;
    unpack_row(weights_.embedding.spec, weights_.embedding.data, tokens[static_cast<size_t>(t)], row);
    if (scale != 1)
      for (int64_t i = 0; i < width; ++i) row[i] *= scale;
  });
}

void Decoder::multiply(const float* in, int64_t n, std::initializer_list<Product> products) {
  std::array<LinearTask, 3> tasks;
  size_t count = 0;
  int64_t outputs = 0;
  bool rounds = false;
  for (const Product& product : products) {
    const auto& [spec, data] = product.matrix.weight;
    const std::vector<float>& bias = product.matrix.bias;
    tasks[count++] = {spec, data, product.out, spec.rows, bias.empty() ? nullptr : bias.data()};
    outputs += spec.rows;
    rounds = rounds || (!exact_ && spec.bits <= 8);
  }
  const std::span<LinearTask> used = std::span(tasks).first(count);
  if (rounds) {
    multiply_split(in, n, used, outputs);
  } else {
    linear(used, in, tasks[0].spec.columns, n, exact_ ? Arithmetic::exact : Arithmetic::fast, *pool_);
  }
}

void Decoder::multiply_split(const float* in, int64_t n, std::span<LinearTask> tasks, int64_t outputs) {
  const int64_t width = tasks[0].spec.columns;
  grow(scratch_.halves, 2 * n * width);
  grow(scratch_.pairs, 2 * n * outputs);
  each_token(n,
             [&](int64_t t) { split_activations(tasks[0].spec, in + t * width, 1, scratch_.halves.data() + 2 * t * width); });
  std::array<LinearTask, 3> halves;
  float* out = scratch_.pairs.data();
  for (size_t i = 0; i < tasks.size(); ++i) {
    halves[i] = {tasks[i].spec, tasks[i].packed, out, tasks[i].spec.rows, nullptr};
    out += 2 * n * tasks[i].spec.rows;
  }
  linear(std::span(halves).first(tasks.size()), scratch_.halves.data(), width, 2 * n, Arithmetic::fast, *pool_);
  each_token(n, [&](int64_t t) {
    for (size_t i = 0; i < tasks.size(); ++i) {
      const int64_t rows = tasks[i].spec.rows;
      join_pairs(halves[i].y + 2 * t * rows, tasks[i].bias, 1, rows, tasks[i].y + t * rows);
    }
  });
}

void Decoder::normalize(const std::vector<float>& weight, const float* in, float* out, int64_t n) {
  const int64_t width = weights_.config.hidden_size;
  const auto epsilon = static_cast<float>(weights_.config.norm_epsilon);
  each_token(n, [&](int64_t t) { rms_norm(in + t * width, weight.data(), epsilon, 1, width, out + t * width); });
}

void Decoder::add_residual(const std::vector<float>& out_norm, int64_t n) {
  const int64_t width = weights_.config.hidden_size;
  if (!out_norm.empty()) normalize(out_norm, scratch_.h.data(), scratch_.h.data(), n);
  add(scratch_.x.data(), scratch_.h.data(), n * width);
}

void Decoder::attention_part(const LayerWeights& layer, int64_t index, Cache& cache, int64_t first, int64_t n) {
  const ModelConfig& c = weights_.config;
  Scratch& s = scratch_;
  normalize(layer.attention_norm, s.x.data(), s.h.data(), n);
  multiply(s.h.data(), n, {{layer.q, s.q.data()}, {layer.k, s.k.data()}, {layer.v, s.v.data()}});

  const bool slides = c.slides(index);
  const RotaryTable& table = slides ? local_rope_ : rope_;
  const auto epsilon = static_cast<float>(c.norm_epsilon);
  each_token(n, [&](int64_t t) {
    float* q = s.q.data() + t * c.heads * c.head_dim;
    float* k = s.k.data() + t * c.kv_heads * c.head_dim;
    if (!layer.q_norm.empty()) rms_norm(q, layer.q_norm.data(), epsilon, c.heads, c.head_dim, q);
    if (!layer.k_norm.empty()) rms_norm(k, layer.k_norm.data(), epsilon, c.kv_heads, c.head_dim, k);
    rope(q, c.heads, c.head_dim, table.cos(first + t), table.sin(first + t));
    rope(k, c.kv_heads, c.head_dim, table.cos(first + t), table.sin(first + t));
    cache.store(index, first + t, k, s.v.data() + t * c.kv_heads * c.head_dim);
  });
  const AttentionShape shape{.heads = c.heads,
                             .kv_heads = c.kv_heads,
                             .head_dim = c.head_dim,
                             .scale = static_cast<float>(c.score_scale()),
                             .softcap = static_cast<float>(c.attention_softcap),
                             .window = slides ? c.sliding_window : 0};
  attention(shape, s.q.data(), cache.view(index), first, n, s.context.data(), *pool_);
  multiply(s.context.data(), n, {{layer.o, s.h.data()}});
  add_residual(layer.attention_out_norm, n);
}

void Decoder::mlp_part(const LayerWeights& layer, int64_t n) {
  const ModelConfig& c = weights_.config;
  Scratch& s = scratch_;
  normalize(layer.mlp_norm, s.x.data(), s.h.data(), n);
  multiply(s.h.data(), n, {{layer.gate, s.gate.data()}, {layer.up, s.up.data()}});
  each_token(n, [&](int64_t t) {
    const int64_t offset = t * c.intermediate_size;
    const auto act = c.activation == Activation::silu ? silu_mul : gelu_tanh_mul;
    act(s.gate.data() + offset, s.up.data() + offset, c.intermediate_size);
  });
  multiply(s.gate.data(), n, {{layer.down, s.h.data()}});
  add_residual(layer.mlp_out_norm, n);
}

void Decoder::head(int64_t n, float* logits, int64_t logits_for) {
  const ModelConfig& c = weights_.config;
  normalize(weights_.final_norm, scratch_.x.data() + (n - logits_for) * c.hidden_size, scratch_.h.data(), logits_for);
  const int64_t step = std::max<int64_t>(1, kHeadFloats / c.vocab_size);
  for (int64_t t = 0; t < logits_for; t += step)
    multiply(scratch_.h.data() + t * c.hidden_size, std::min(step, logits_for - t),
             {{weights_.head, logits + t * c.vocab_size}});
  if (c.logit_softcap == 0) return;
  const auto cap = static_cast<float>(c.logit_softcap);
  each_token(logits_for, [&](int64_t t) {
    float* row = logits + t * c.vocab_size;
    for (int64_t i = 0; i < c.vocab_size; ++i) row[i] = cap * std::tanh(row[i] / cap);
  });
}

}  // namespace lighten::runtime

namespace lighten {

std::unique_ptr<RuntimeModel> RuntimeModel::load(const fs::path& path, const RuntimeOptions& options) {
  auto pool = std::make_unique<ThreadPool>(options.threads);
  runtime::Companions companions;
  if (model_kind(path) == ModelKind::light) {
    auto light = std::make_shared<const LightModel>(path);
    companions.chat_template = light->chat_template();
    companions.size_on_disk = light->size_on_disk();
    return std::make_unique<runtime::Decoder>(runtime::map_weights(std::move(light)), std::move(companions), options.exact,
                                              std::move(pool));
  }
  const std::unique_ptr<WeightSource> source = open_weights(path);
  if (!fs::is_directory(path) || fs::exists(path / "tokenizer.json")) companions.tokenizer = source->tokenizer();
  companions.chat_template = source->chat_template();
  companions.size_on_disk = source->size_on_disk();
  return std::make_unique<runtime::Decoder>(runtime::pack_weights(*source, options.storage, *pool), std::move(companions),
                                            options.exact, std::move(pool));
}

std::unique_ptr<RuntimeModel> RuntimeModel::random(const std::string& shape, int bits, int64_t group_size,
                                                   const RuntimeOptions& options) {
  auto pool = std::make_unique<ThreadPool>(options.threads);
  auto weights = runtime::random_weights(shape, bits, group_size, *pool);
  return std::make_unique<runtime::Decoder>(std::move(weights), runtime::Companions{}, options.exact, std::move(pool));
}

}  // namespace lighten
