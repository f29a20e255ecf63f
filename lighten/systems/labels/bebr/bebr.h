// BEBR: binary embedding-based retrieval (Gan et al., "Binary Embedding-based Retrieval at Tencent", KDD 2023, arXiv
// 2302.08714).
//
// Float vectors of any encoder become codes of m dimensions with u + 1 bits each, learned so that a query's code lies near the
// codes of its documents. With f of length 1 in R^d (index/encoder.h runs the result without torch):
//
//   b_0 = sign(W_0(f));  for j = 1..u:  r_j = sign(W_j(f - normalise(R_{j-1}(b_{j-1})))),  b_j = b_{j-1} + 2^-j r_j;  phi(f) =
//   b_u
//
// W_j: d -> m and R_j: m -> d are Linear - BatchNorm - ReLU - Linear with max(d, m) hidden units. sign has sign(0) = +1 and the
// straight-through gradient, kept where |pre-activation| <= 1.
//
// Training pulls pairs (query, document) together, cosine s of codes, temperature tau:
//   L = -log( exp(s(q, d) / tau) / (exp(s(q, d) / tau) + sum_{k in N} exp(s(q, k) / tau)) )
// N = the `hardest` documents for q in a queue of the last `queue` batches, encoded by a copy of phi that follows with
// momentum.
//
// Backward-compatible training: documents of an old index, coded by an old encoder from old vectors, stay. The new psi on new
// vectors learns L(psi_q, psi_d) + L(psi_q, old codes), the second with old codes as positives and negatives, so that new
// queries search old and new documents in one index. Same m and u.
//
// The numbers in the paper that could not be confirmed (rate 0.02, batch 4096 for millions of vectors) are set for 10^4 to 10^6
// pairs.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"
#include "lighten/index/encoder.h"

namespace lighten {

struct BebrOptions {
  int64_t dimensions = 256;  ///< m
  int loops = 3;             ///< u; (u + 1) m bits a code
  int64_t hidden = 0;        ///< 0: max(d, m)
  bool warm_start = true;    ///< BinarizerImpl::warm_start (binarizer.h)
  int64_t epochs = 3;
  int64_t batch_size = 256;
  double learning_rate = 1e-4;
  double temperature = 0.07;
  int64_t queue = 16;      ///< batches
  int64_t hardest = 256;   ///< negatives of a query
  double momentum = 0.99;  ///< of the copy that fills the queue
  double noise = 0.3;      ///< self-pairs: length of the noise beside a vector of length 1
  double clip_norm = 5;
  uint64_t seed = 0;
};
OptionList describe(BebrOptions& options);

/// Rows of unit length or not (they are normalised): queries[i] belongs to documents[i]. Where queries are empty, every
/// document is paired with itself plus fresh noise.
struct BebrPairs {
  int64_t columns = 0;
  std::span<const float> queries = {}, documents = {};
  /// Documents of equal group are never negatives of one another (empty: each row is its own group).
  std::span<const int64_t> groups = {};
  int64_t size() const { return columns == 0 ? 0 : static_cast<int64_t>(documents.size()) / columns; }
};

/// The old codes (rows, index/codes.h) of the same documents.
struct OldCodes {
  CodeFormat format;
  std::span<const uint8_t> rows;
};

/// Trains phi. `title` is shown with the progress; with a `folder` the training can be resumed there. Throws OptionError for
/// options out of range, fewer than 16 pairs, or old codes of another format. Deterministic for a seed and a number of threads.
CodeEncoder train_bebr(const BebrPairs& pairs, const BebrOptions& options, const std::string& title,
                       const OldCodes* old = nullptr, const fs::path& folder = {});

/// Iterative quantization (Gong and Lazebnik, CVPR 2011): centred vectors -> first `bits` principal components -> the rotation
/// found by `iterations` alternations of B = sign(V R) and the orthogonal Procrustes solution R for |B - V R|. bits <= columns.
CodeEncoder train_itq(std::span<const float> vectors, int64_t columns, int64_t bits, int iterations, uint64_t seed);
/// Signs of projections onto random directions, orthonormal in blocks of `columns` (Charikar's hashing): any number of bits.
CodeEncoder random_signs(int64_t columns, int64_t bits, uint64_t seed);

}  // namespace lighten
