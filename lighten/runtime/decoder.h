// The decoder's graph on packed weights.
#pragma once
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "lighten/kernels/attention.h"
#include "lighten/runtime/decoder_weights.h"
#include "lighten/runtime/kv_cache.h"
#include "lighten/runtime/model.h"
#include "lighten/runtime/rotary.h"

namespace lighten::runtime {

/// What a model brings besides its weights.
struct Companions {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string chat_template;
  uint64_t size_on_disk = 0;
};

/// x = embed(ids); for each block: x += o(attention(rope(q(n)), rope(k(n)), v(n))), n = norm(x); x += down(act(gate(n)) *
/// up(n)), n = norm(x); logits = head(norm(x)). Long inputs go through in chunks, so that the activations of one chunk stay in
/// the processor's cache.
class Decoder final : public RuntimeModel {
 public:
  Decoder(DecoderWeights weights, Companions companions, const RuntimeOptions& options, std::unique_ptr<ThreadPool> pool);
  const ModelConfig& config() const override { return weights_.config; }
  std::shared_ptr<const Tokenizer> tokenizer() const override;
  std::string chat_template() const override { return companions_.chat_template; }
  uint64_t weight_bytes() const override { return weights_.bytes; }
  uint64_t size_on_disk() const override { return companions_.size_on_disk; }
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override;
  void forward(KvCache& cache, std::span<const int32_t> tokens, float* logits, int64_t logits_for) override;
  void forward_batch(std::span<const BatchStep> steps, float* logits) override;

  static constexpr int64_t kChunk = 128;        ///< tokens that go through the blocks together
  static constexpr int64_t kDeviceChunk = 512;  ///< the same where a graphics card multiplies

 private:
  /// Activations of one chunk, each [tokens, width].
  struct Scratch {
    std::vector<float> x, h, q, k, v, context, gate, up;
    std::vector<float> banded;  ///< logits in the order of the head's bands
  };
  /// Neighbouring tokens of one sequence in a chunk.
  struct Segment {
    Cache* cache;
    int64_t row, count;  ///< rows of the chunk
    int64_t first;       ///< position of the first of them
    int64_t logits_for;  ///< the last so many
  };
  /// The tokens that go through the blocks together.
  struct Chunk {
    std::vector<int32_t> tokens;
    std::vector<Segment> segments;
    std::vector<size_t> segment_of;  ///< of every row
    int64_t logits_for = 0;

    void add(const Segment& segment, std::span<const int32_t> ids);
    const Segment& segment(int64_t row) const { return segments[segment_of[static_cast<size_t>(row)]]; }
  };
  KvFormat kv_format() const { return exact_ ? KvFormat::f32 : kv_cache_; }
  void check_steps(std::span<const BatchStep> steps) const;
  void resize_scratch(int64_t tokens);
  void run(const Chunk& chunk, float* logits);
  void embed(std::span<const int32_t> tokens);
  void attention_part(const LayerWeights& layer, int64_t index, const Chunk& chunk);
  void mlp_part(const LayerWeights& layer, int64_t n);
  void head(const Chunk& chunk, float* logits);
  /// logits [n, vocabulary] = x [n, width] times the head.
  void token_products(const float* x, int64_t n, float* logits);
  struct Product {
    const Matrix& matrix;
    float* out;
    bool add = false;  ///< to what is there
  };
  /// At most three products of the same input, in one go.
  void multiply(const LinearInput& input, int64_t n, std::initializer_list<Product> products);
  /// x += in matrix, after a norm of its own if there is one.
  void multiply_onto_residual(const float* in, int64_t n, const Matrix& matrix, const std::vector<float>& out_norm);
  /// The residual stream under a norm.
  LinearInput normalized(const std::vector<float>& weight) const;
  void normalize(const std::vector<float>& weight, const float* in, float* out, int64_t n);
  /// body(t) for every token, which touches `floats` values: in parallel where that is worth a parallel loop.
  template <typename Body>
  void each_token(int64_t n, int64_t floats, const Body& body);

  DecoderWeights weights_;
  Companions companions_;
  bool exact_;
  int64_t chunk_tokens_;
  Arithmetic arithmetic_;
  KvFormat kv_cache_;
  std::unique_ptr<ThreadPool> pool_;
  RotaryTable rope_, local_rope_;
  Scratch scratch_;
  std::vector<AttentionTask> attention_tasks_;
};

}  // namespace lighten::runtime
