// FedLabel: one classifier from many clients that keep their data, most of it without labels.
#pragma once
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/json.h"
#include "lighten/base/options.h"
#include "lighten/base/ranks.h"
#include "lighten/nn/state.h"
#include "lighten/train/loop.h"

namespace lighten {

/// Defaults are the paper's.
struct FedLabelOptions {
  int64_t rounds = 150, clients_per_round = 5;
  int64_t labelled_steps = 5, unlabelled_steps = 5;  ///< of a client in a round
  int64_t batch = 20;
  double learning_rate = 0.05;  ///< plain SGD, constant
  double server_rate = 1;
  double threshold = 0.95;              ///< beta: largest probability from which on a pseudo-label is used
  double agreement = 1;                 ///< lambda0: most weight of the divergence from the loser
  std::string confidence = "variance";  ///< what the two experts are compared by: "variance", "max", "entropy"
  int64_t check_every = 5;              ///< rounds between two looks at validation data
  uint64_t seed = 0;
};
OptionList describe(FedLabelOptions& options);

/// Who labels a client's unlabelled samples. labelled_only is FedAvg: the steps of the second phase are taken on labelled
/// samples too, so that all make the same number of steps.
enum class Labeller : uint8_t { either, global_only, local_only, labelled_only };
/// "fedlabel", "global-only", "local-only", "fedavg". Throws OptionError.
Labeller labeller_of(const std::string& method);

/// h(p) of rows of probabilities [n, classes] -> [n]: "variance" of the entries, "max", or "entropy" (negative, so that more is
/// surer).
torch::Tensor confidence_of(const torch::Tensor& p, const std::string& kind);

/// What a batch of unlabelled samples is taught.
struct PseudoLabels {
  torch::Tensor label;      ///< int64 [n]: the winner's class
  torch::Tensor accepted;   ///< bool [n]: the winner's largest probability >= threshold
  torch::Tensor local_won;  ///< bool [n]; a tie goes to the global expert
  torch::Tensor agreed;     ///< bool [n]: both name the same class
  torch::Tensor weight;     ///< [n]: lambda = agreement * h(loser) / h(winner) where they agree, else 0
  torch::Tensor loser;      ///< [n, classes] probabilities
};
/// p_local, p_global [n, classes]. Per sample the expert with the larger confidence wins. With the negative entropy, whose
/// ratio would grow as the loser gets less sure, lambda uses ln(classes) + h instead (0: uniform). lambda lies in [0,
/// agreement]. global_only and local_only take that expert and no divergence.
PseudoLabels select_labels(const torch::Tensor& p_local, const torch::Tensor& p_global, Labeller labeller,
                           const FedLabelOptions& options);
/// 1/n sum over accepted samples of CE(softmax(logits), label) + weight KL(loser || softmax(logits)); n counts all samples.
torch::Tensor pseudo_loss(const torch::Tensor& logits, const PseudoLabels& labels);

/// A net of which copies are made: the same weights from every call of FederatedTask::make_net.
struct FederatedNet {
  std::shared_ptr<torch::nn::Module> module;
  std::function<torch::Tensor(const torch::Tensor& x)> logits;
};

struct FederatedClient {
  std::string name;
  std::vector<int64_t> labelled, unlabelled;  ///< samples
};

/// How samples are seen: as they are, slightly varied (to be labelled), strongly varied (to be learnt).
enum class View : uint8_t { plain, weak, strong };

struct FederatedTask {
  std::string title;
  std::vector<FederatedClient> clients;
  int64_t classes = 0;
  std::vector<int32_t> labels;  ///< by sample; read for labelled samples only
  std::vector<int32_t> hidden;  ///< by sample: the truth of all, for the audit alone; may be empty (unknown)
  std::function<FederatedNet()> make_net;
  std::function<torch::Tensor(std::span<const int64_t> samples, View view, uint64_t seed)> batch;
  /// A score of the global net on validation data, higher is better (evaluation mode, no gradients). Empty: the last round's
  /// weights are returned.
  std::function<double(const FederatedNet& net)> validate;
  Json identity = Json::object();  ///< what a checkpoint must agree on (a hash of the data)
};
/// Throws OptionError that names the client: without any sample, or with a sample outside; and when no client has a label or
/// all labels are of one class. Clients without labels are legal: they take only pseudo-labels, and FedAvg leaves them out.
void check_task(const FederatedTask& task);

/// What pseudo-labels were given in the unlabelled phases, counted; the rates of right ones need FederatedTask::hidden.
struct PseudoAudit {
  int64_t seen = 0, accepted = 0, agreed = 0;  ///< agreed: of the accepted
  int64_t right = 0;                           ///< of the accepted
  int64_t local = 0, local_right = 0;          ///< accepted where the local expert won
  /// Accepted samples whose pseudo-label is a class that the client has labels of; and of those, where the local expert won.
  int64_t own_class = 0, own_class_local = 0;
  std::vector<int64_t> histogram;  ///< [classes] of accepted pseudo-labels
  void add(const PseudoAudit& other);
  std::vector<int64_t> numbers() const;
  static PseudoAudit from(const std::vector<int64_t>& numbers);
};
/// "coverage", "precision" (null if unknown), "local_share", ..., "histogram".
Json to_json(const PseudoAudit& audit, bool truth_known);

/// What a client sends back, and what was seen on the way.
struct ClientUpdate {
  NamedTensors state;  ///< a copy
  double weight = 0;   ///< number of samples it learns from
  double loss = 0;     ///< mean of all its steps
  PseudoAudit audit;
};
/// One visit of a client; `local` and `global` hold the global weights, `local` is trained in place. First labelled_steps of
/// cross-entropy on labelled samples (weak view); then unlabelled_steps in which, on the weak view, the local net as it is now
/// and the frozen global one are asked, and pseudo_loss on the strong view is followed. A phase without samples is left out.
/// Every random choice comes from `seed`.
ClientUpdate client_step(const FederatedNet& local, const FederatedNet& global, const FederatedTask& task,
                         const FederatedClient& client, Labeller labeller, const FedLabelOptions& options, uint64_t seed);

/// w <- w + rate (sum_k weight_k w_k / sum_k weight_k - w), in double, in the order given; tensors that are not floating take
/// the first client's values. Throws OptionError without a positive weight.
void aggregate(const NamedTensors& global, const std::vector<ClientUpdate>& updates, double rate);

struct FederatedResult {
  FederatedNet net;              ///< of the best validated round, in evaluation mode
  std::vector<EpochLog> rounds;  ///< observed: bytes_down, bytes_up, clients, audit
  PseudoAudit audit;             ///< of all rounds
  int64_t best_round = -1;
  double best_score = 0;
  /// Payload of all messages between server and clients: down the weights; up the weights and the number of samples (8 bytes).
  int64_t bytes_down = 0, bytes_up = 0;
};

/// Trains the global net over rounds: clients_per_round clients, drawn without replacement, are visited and averaged.
/// Under MPI the clients of a round are shared out over the ranks; every rank calls this with the same arguments and gets the
/// same net, bit for bit that of one process with as many threads; the rest of the result and all files are the first rank's.
///
/// With a `folder`, the state is written to folder/checkpoint.safetensors after every round and folder/log.jsonl grows by a
/// line; called again it goes on and ends in the same bytes. A checkpoint of other options is refused (OptionError).
///
/// Source: Kim, Lin, Oh, Gotlieb, Joshi, "Local or Global: Selective Knowledge Assimilation for Federated Learning with Limited
/// Labels", ICCV 2023 (steps, rates, threshold, choice per sample). The card of this system says what was taken from where.
FederatedResult federate(const FederatedTask& task, Labeller labeller, const FedLabelOptions& options,
                         const fs::path& folder = {}, Ranks& ranks = Ranks::world());

/// Bytes of all values of a state.
int64_t bytes_of(const NamedTensors& state);

}  // namespace lighten
