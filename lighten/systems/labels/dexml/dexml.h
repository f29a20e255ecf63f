// DEXML: one encoder for texts and for label texts, so that new labels need nothing but their text.
#pragma once
#include <torch/torch.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/eval/ranking.h"
#include "lighten/nn/bert.h"
#include "lighten/systems/labels/dexml/losses.h"
#include "lighten/train/loop.h"

namespace lighten {

struct DexmlOptions {
  std::string loss = "decoupled";  ///< "decoupled", "soft-topk", "infonce", "one-vs-rest"
  double temperature = 0.05;
  int64_t pool = 4096;          ///< labels that each step compares with: the batch's positives and random others; 0: all
  int64_t hard = 0;             ///< hard negatives that each text brings to its step, drawn from its shortlist; 0: none
  int64_t shortlist = 100;      ///< wrong labels that ranked best for a text when last searched for
  int64_t refresh = 5;          ///< epochs between two searches, the first before epoch `refresh` (from 0)
  int64_t hidden = 768;         ///< of the tower on frozen features
  int64_t chunk = 64;           ///< texts encoded with a graph at once (gradient caching)
  int64_t chunk_tokens = 2048;  ///< and at most so many tokens of them, padding counted: this bounds the memory
  double learning_rate = 1e-3, weight_decay = 0.01;
  int64_t epochs = 20, batch = 256, patience = 4;
  uint64_t seed = 0;
};
OptionList describe(DexmlOptions& options);

/// A tower on unit feature vectors: y = normalise(x + W2 gelu(W1 x + b1) + b2), W2 = 0 at first: it starts as the encoder it
/// stands on. Queries and labels share it.
struct MatchTowerImpl : torch::nn::Module {
  MatchTowerImpl(int64_t width, int64_t hidden, uint64_t seed);
  torch::Tensor forward(const torch::Tensor& x);
  torch::Tensor w1, b1, w2, b2;
};
TORCH_MODULE(MatchTower);

/// Texts that carry labels with texts, both by number.
struct MatchTask {
  int64_t queries = 0, labels = 0;
  IdLists positives;                       ///< [queries]: ascending label numbers
  std::vector<int64_t> train, validation;  ///< queries; validation (precision at 5) decides which epoch is kept
};
/// Throws OptionError: a label or query outside, no training query with a label.
void check_task(const MatchTask& task);

/// One side of a dual encoder.
struct EncoderSide {
  std::function<torch::Tensor(const std::vector<int64_t>&)> encode;  ///< rows of unit length, with a graph if gradients are on
  std::vector<int64_t> lengths = {};                                 ///< tokens of every row; empty: all rows cost the same
};
/// The places 0.. of `rows` in pieces that are encoded at once: at most `chunk` rows and, where the side knows lengths,
/// `tokens` tokens with padding (a single row may have more). Rows of like length stand together then, so that little is
/// padded.
std::vector<std::vector<int64_t>> pieces_of(const EncoderSide& side, const std::vector<int64_t>& rows, int64_t chunk,
                                            int64_t tokens);

/// What encodes. The same module stands behind both sides.
struct DualEncoder {
  EncoderSide queries, labels;
  torch::nn::Module* module = nullptr;
  torch::Tensor bias = {};  ///< one trained value that is added to every score (one-vs-rest needs it); undefined: none
};
/// A tower on frozen features [queries, d] and [labels, d].
DualEncoder tower_encoder(MatchTower& tower, const torch::Tensor& query_features, const torch::Tensor& label_features);
/// Token ids by MiniLM or another BERT, of which trainable_layers() chose what learns.
DualEncoder text_dual_encoder(TextEncoder& encoder, const std::vector<std::vector<int32_t>>& queries,
                              const std::vector<std::vector<int32_t>>& labels);

/// Trains so that s_il = x_i . y_l / temperature ranks a query's labels first.
///
/// Gradient caching: all queries and labels of a step are encoded without a graph, in pieces of `chunk` texts and
/// `chunk_tokens` tokens; the loss gives dL/dx and dL/dy; then each piece is encoded again with a graph (the same random state)
/// and those gradients are sent through it. The gradient is the same as that of one large batch, the memory that of one piece.
/// With `hard` each text also meets wrong labels that the encoder ranks high: from epoch `refresh` on, every `refresh` epochs,
/// all training texts are matched with all labels, and each keeps its `shortlist` best wrong ones (they are in the checkpoint).
///
/// one-vs-rest trains a bias besides (from -10, at 100 times the rate), as a sigmoid over very many labels needs one: Zhai et
/// al. 2023.
/// Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification", ICLR 2024; gradient caching: Gao et al. 2021.
void train_dexml(const MatchTask& task, DualEncoder& encoder, const DexmlOptions& options, const std::string& title,
                 const TrainPlace& place = {});

/// The labels of a step, ascending: all positives of its queries; `hard` drawn from each query's shortlist (row i of
/// `shortlists` [queries of the task, k] of int32, -1: none; undefined: no shortlists yet), in turns while there is room; then
/// others at random, without repeats, up to `size` (0: all labels).
std::vector<int64_t> pool_of(const MatchTask& task, std::span<const int64_t> queries, int64_t size, uint64_t seed,
                             const torch::Tensor& shortlists = {}, int64_t hard = 0);
/// The k best labels of every training query that are not its own: int32 [queries of the task, k]; -1 for other queries and
/// where there are no more.
torch::Tensor search_shortlists(const MatchTask& task, const DualEncoder& encoder, int64_t k, int64_t chunk, int64_t tokens);

/// The gradient step by itself: loss of the queries against `pool` with gradients left in the module's parameters.
double cached_gradients(const MatchTask& task, DualEncoder& encoder, const std::vector<int64_t>& queries,
                        const std::vector<int64_t>& pool, const DexmlOptions& options, uint64_t seed);

/// Encodes `rows`, in their order, by pieces and without a graph.
torch::Tensor encode_all(const EncoderSide& side, const std::vector<int64_t>& rows, int64_t chunk = 1024,
                         int64_t tokens = 8192);
/// The k best labels of each query, best first, exactly; the smaller number on ties.
IdLists best_labels(const torch::Tensor& queries, const torch::Tensor& labels, int64_t k);

}  // namespace lighten
