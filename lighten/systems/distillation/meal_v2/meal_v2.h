// MEAL V2: a trained small classifier becomes more accurate by imitating the mean of stronger ones, and nothing else.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/train/classify.h"

namespace lighten {

/// Options of MEAL V2. Defaults are those of Shen and Savvides 2020 where `describe` says so; epochs and batch suit small data.
struct MealV2Options {
  MealV2Options();
  std::string augment = "flip";  ///< augmentation() of train/classify.h
  double soft = 1;               ///< weight of the cross-entropy with the teachers' mean probabilities
  double hard = 0;               ///< weight of the cross-entropy with labels; the paper's point is that 0 is best
  std::string discriminator =
      "minimax";  ///< "minimax": the student learns to fool it; "joint": both minimise (as released); "off"
  double discriminator_rate = 1e-4;
  double cutmix = 0;  ///< Beta parameter of CutMix; 0: none. Teachers see the mixed pixels, so labels are never mixed
  TrainOptions train;
};
OptionList describe(MealV2Options& options);

/// Frozen classifiers that see the same pixels. Averages of probabilities and of logits are different things.
struct TeacherBank {
  std::vector<Classifier> members;
  struct Outputs {
    torch::Tensor probabilities;  ///< [n, classes] (1/K) sum_k softmax(T_k(x))
    torch::Tensor logits;         ///< [n, classes] (1/K) sum_k T_k(x)
  };
  /// x as the student sees it: (pixels / 255 - mean) / deviation of `seen`; each teacher gets its own normalisation.
  Outputs forward(const torch::Tensor& x, const Normalization& seen) const;
};
/// Throws OptionError, naming the teacher, if one has other classes or another size of pictures than the student, or there is
/// none.
void check_teachers(const TeacherBank& teachers, const Classifier& student);

/// -(1/n) sum p log softmax(logits)
torch::Tensor soft_cross_entropy(const torch::Tensor& logits, const torch::Tensor& probabilities);

/// Tells the student's outputs from the teachers': linears classes -> h1 -> h2 -> 2 with ReLU between, h1 = max(classes / 8,
/// 8), h2 = max(classes / 64, 8).
struct DiscriminatorImpl : torch::nn::Module {
  DiscriminatorImpl(int64_t classes, uint64_t seed);
  /// Logits [n, 2] of outputs [n, classes]. `frozen`: no gradient reaches its own weights.
  torch::Tensor forward(const torch::Tensor& outputs, bool frozen = false);
  torch::nn::Linear first{nullptr}, second{nullptr}, third{nullptr};
};
using Discriminator = std::shared_ptr<DiscriminatorImpl>;
/// BCE with logits of D([S; z]) against [1, 0] for the student's rows and [0, 1] for the teachers'; mean over all 4n values.
/// "joint": as it stands, both sides minimise it. "minimax": the discriminator alone minimises it, and the student minimises
/// half of the BCE of its own rows, D frozen, against the teachers' [0, 1]. (Negating the student's gradient instead has no
/// lower bound: with a discriminator that learns at 1e-4 the student's outputs grow until the training fails.)
torch::Tensor discriminator_loss(DiscriminatorImpl& discriminator, const torch::Tensor& student, const torch::Tensor& teachers,
                                 bool contest);

/// Trains `student` in place on the training side of `data` (whose normalisation must be the student's); the best epoch by
/// validation accuracy is kept:
///   L = soft * CE(S(x), p) + hard * CE(S(x), y) + BCE_D,  p = mean of the teachers' probabilities.
/// SGD with momentum 0.9 and weight decay 0; learning rate a tenth after 55 % of the epochs. The student must be trained
/// already: a good start is part of the method. With a `folder` resumable. Source: arXiv 2009.08453; szq0214/MEAL-V2 (read for
/// losses and options). The released code lets student and discriminator minimise the same loss ("joint"); the paper describes
/// a contest ("minimax").
TrainResult meal_v2(Classifier& student, const TeacherBank& teachers, const ClassifyData& data, const MealV2Options& options,
                    const std::string& title = "distilling", const fs::path& folder = {});

}  // namespace lighten
