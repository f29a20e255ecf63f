// Graph networks on sparse adjacency: CSR products with their own gradient, GCN and GAT layers, label propagation.
#pragma once
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

namespace lighten {

/// A sparse matrix [rows, columns] in compressed rows, and its transpose for gradients. Immutable; share it.
struct SparseMatrix {
  int64_t rows = 0, columns = 0;
  torch::Tensor row_begin;  ///< int64 [rows + 1]
  torch::Tensor column;     ///< int64 [entries], ascending in each row
  torch::Tensor value;      ///< float32 [entries]
  /// The transpose: entry k of it is entry `source[k]` of this.
  torch::Tensor t_row_begin, t_column, t_source;
  int64_t entries() const { return column.size(0); }
};
using Sparse = std::shared_ptr<const SparseMatrix>;

/// From compressed rows. Throws ModelError if they are not sound (sizes, order, a column outside).
Sparse make_sparse(int64_t columns, const std::vector<int64_t>& row_begin, const std::vector<int32_t>& column,
                   const std::vector<float>& value = {});

/// A X: X [columns, d] float32 (or float64) -> [rows, d]. Gradient of X: A^T dY. Parallel over rows; the result does not depend
/// on the number of threads.
torch::Tensor spmm(const Sparse& a, const torch::Tensor& x);
/// The same with values that have a gradient: value [entries] replaces a->value. d value_k = dY[row_k] . X[column_k].
torch::Tensor spmm(const Sparse& a, const torch::Tensor& value, const torch::Tensor& x);

enum class Normalisation : uint8_t { none, row, column, symmetric };
/// A (with an entry 1 on the diagonal if `self_loops`) divided by degrees: row D^-1 A, column A D^-1, symmetric D^-1/2 A
/// D^-1/2. Nodes without neighbours have an empty row. Values of `a` are weights.
Sparse normalised(const Sparse& a, Normalisation how, bool self_loops);
/// The entries whose row and column are both kept; the others are gone, the size stays.
Sparse restricted(const Sparse& a, const std::vector<bool>& kept);

/// Y <- (1 - alpha) A Y + alpha Y, `times` times, without gradient.
torch::Tensor propagate(const Sparse& a, torch::Tensor y, double alpha, int64_t times);

/// What the networks are built from.
struct GraphNetConfig {
  std::string kind = "gcn";  ///< "gcn" or "gat"
  int64_t inputs = 0, hidden = 256, outputs = 0;
  int64_t layers = 2;
  int64_t heads = 8;  ///< GAT: of every layer but the last, which has one
  double dropout = 0.5;
};

/// GCN (Kipf and Welling): H' = A_s (H W) + b with A_s = D^-1/2 (A + I) D^-1/2.
/// GAT (Velickovic et al.): per head, e_ij = leaky_relu(a_dst . W h_i + a_src . W h_j), slope 0.2, softmax over the neighbours
/// j of i and i itself, H'_i = sum_j alpha_ij W h_j + b; heads of hidden layers are concatenated (hidden / heads each). ReLU
/// (GCN) or ELU (GAT) between layers, dropout before every layer. Glorot-uniform weights.
struct GraphNetImpl : torch::nn::Module {
  GraphNetImpl(GraphNetConfig config, uint64_t seed);
  /// `a`: the plain adjacency prepared by prepare(). x [n, inputs] -> [n, outputs].
  torch::Tensor forward(const Sparse& a, const torch::Tensor& x);
  /// After layer `layer` (0-based) and its non-linearity; the last layer has none.
  torch::Tensor layer(const Sparse& a, const torch::Tensor& h, int64_t layer);
  /// The adjacency as this kind wants it: self loops, and for GCN symmetric normalisation.
  Sparse prepare(const Sparse& adjacency) const;
  GraphNetConfig config;
  std::vector<torch::Tensor> weights, biases;         ///< [out, in], [out]
  std::vector<torch::Tensor> attend_from, attend_to;  ///< GAT: [heads, width] for the neighbour and for the node itself
};
TORCH_MODULE(GraphNet);

/// softmax over the entries of every row: value [entries, heads] -> the same shape, with gradient.
torch::Tensor row_softmax(const Sparse& a, const torch::Tensor& value);

}  // namespace lighten
