// VQGraph: a graph network distilled into a plain perceptron, by a codebook of local structures.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/nn/mlp.h"
#include "lighten/train/graph_task.h"

namespace lighten {

struct VqGraphOptions {
  // teacher
  int64_t codes = 512;      ///< K; 5,000 in the paper for graphs of tens of thousands of nodes
  int64_t width = 0;        ///< of h and the codes; 0: as wide as the features
  double code_decay = 0.8;  ///< of the moving average that moves a code
  double commit = 0.25, feature_weight = 0.001, edge_weight = 0.03;
  int64_t edge_block = 512;  ///< nodes of the random block on which edges are rebuilt
  double teacher_dropout = 0.5, teacher_rate = 0.01, teacher_decay = 5e-4;
  int64_t teacher_epochs = 200;
  // student
  int64_t hidden = 128, layers = 2;
  double dropout = 0.4, rate = 0.01, decay = 5e-4;
  double code_weight = 0.3;       ///< lambda_tok; 0: class labels only (GLNN)
  double label_share = 0;         ///< lambda: weight of the true labels against the teacher's
  double temperature = 4;         ///< of the code assignments
  std::string scores = "cosine";  ///< student's code scores: "cosine" (as the teacher's) or "l2" (as the release)
  int64_t epochs = 300, batch = 512, patience = 50;
  uint64_t seed = 0;
};
OptionList describe(VqGraphOptions& options);

/// Codes of unit length that follow the vectors assigned to them.
class Codebook {
 public:
  /// `codes` random rows of `vectors` [n, d].
  Codebook(const torch::Tensor& vectors, int64_t codes, double decay, uint64_t seed);
  /// Cosine of every row with every code [n, K].
  torch::Tensor scores(const torch::Tensor& vectors) const;
  /// Code of the largest cosine.
  torch::Tensor assign(const torch::Tensor& vectors) const;
  /// e_k <- normalise(decay e_k + (1 - decay) mean of the unit vectors assigned to k); codes that nobody chose stay.
  void update(const torch::Tensor& vectors, const torch::Tensor& assigned);
  const torch::Tensor& codes() const { return codes_; }
  torch::Tensor codes_;  ///< [K, d]

 private:
  double decay_;
};

/// The tokenizer teacher: h = dropout(ReLU(GCN(x))); q = its code, straight through; q_e, q_n = linear(q); logits =
/// linear(GCN(q_e)).
struct VqTeacherImpl : torch::nn::Module {
  VqTeacherImpl(int64_t inputs, int64_t width, int64_t classes, double dropout, uint64_t seed);
  torch::Tensor embed(const Sparse& a, const torch::Tensor& x);  ///< h [n, width]
  torch::Tensor classify(const Sparse& a, const torch::Tensor& q_e);
  torch::nn::Linear encode{nullptr}, structure{nullptr}, feature{nullptr}, combine{nullptr}, head{nullptr};
  double dropout;
};
TORCH_MODULE(VqTeacher);

/// What the teacher leaves behind.
struct VqTeacherResult {
  torch::Tensor logits;       ///< [n, classes]
  torch::Tensor assignments;  ///< cosine of h with every code [n, K]
  torch::Tensor codes;        ///< [K, width]
  double used_codes = 0;      ///< share of the codes that some node has
  double validation_accuracy = 0;
};
/// L = CE on training nodes + commit MSE(h / |h|, q) + feature_weight MSE(h, q_n) + edge_weight sqrt(MSE(A, minmax(q_e q_e^T)))
/// on a random block of nodes; codes follow by moving averages. The epoch with the best validation accuracy is kept.
VqTeacherResult train_vq_teacher(const GraphTask& task, const VqGraphOptions& options, const std::string& title,
                                 const TrainPlace& place = {});

/// A perceptron on features, and its view of the codes while it is trained.
struct DistilledStudent {
  FeatureNet net{nullptr};
  int64_t best_epoch = 0;
  double validation_accuracy = 0;
};
/// Loss on the observed nodes: label_share CE(labels) on training nodes + (1 - label_share) KL(teacher || student) +
/// code_weight T^2 KL(softmax(a / T) || softmax(s / T)), with a the teacher's assignments and s_k = cos(M u, e_k) or
/// -|M u - e_k|, u the hidden layer, M a linear map that is thrown away afterwards. `assignments` undefined: no code loss.
DistilledStudent train_student(const GraphTask& task, const torch::Tensor& teacher_logits, const torch::Tensor& assignments,
                               const torch::Tensor& codes, const VqGraphOptions& options, const std::string& title,
                               const TrainPlace& place = {});

/// T^2 KL(softmax(a / T) || softmax(s / T)), mean over rows.
torch::Tensor soft_code_loss(const torch::Tensor& teacher, const torch::Tensor& student, double temperature);
/// Student's code scores [n, K] of mapped hidden rows.
torch::Tensor code_scores(const torch::Tensor& mapped, const torch::Tensor& codes, const std::string& kind);

/// Teacher, then student. The student needs features alone.
/// Source: Yang et al., "VQGraph: Rethinking Graph Representation Space for Bridging GNNs and MLPs", ICLR 2024; the release's
/// early stop on test accuracy and its KL against probabilities are not taken over.
struct VqGraphResult {
  VqTeacherResult teacher;
  DistilledStudent student;
};
VqGraphResult vqgraph(const GraphTask& task, const VqGraphOptions& options = {}, const std::string& title = "vqgraph",
                      const TrainPlace& place = {});

}  // namespace lighten
