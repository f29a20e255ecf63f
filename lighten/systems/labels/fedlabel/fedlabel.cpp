#include "lighten/systems/labels/fedlabel/fedlabel.h"

#include <algorithm>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/train/loader.h"

namespace lighten {
namespace {

/// `number` samples drawn without replacement, over again when all were drawn.
class Draws {
 public:
  Draws(const std::vector<int64_t>& samples, uint64_t seed) : samples_(samples), random_(seed) {}
  std::vector<int64_t> next(int64_t number) {
    std::vector<int64_t> drawn;
    const auto most = std::min<int64_t>(number, std::ssize(samples_));
    while (std::ssize(drawn) < most) {
      if (at_ >= order_.size()) {
        order_ = samples_;
        random_.shuffle(order_);
        at_ = 0;
      }
      drawn.push_back(order_[at_++]);
    }
    return drawn;
  }

 private:
  const std::vector<int64_t>& samples_;
  std::vector<int64_t> order_;
  size_t at_ = 0;
  Random random_;
};

void descend(const FederatedNet& net, double rate) {
  const torch::NoGradGuard no_gradients;
  for (torch::Tensor& parameter : net.module->parameters()) {
    if (!parameter.grad().defined()) continue;
    parameter.sub_(parameter.grad(), rate);
    parameter.mutable_grad().reset();
  }
}

double follow(const FederatedNet& net, const torch::Tensor& loss, double rate) {
  const auto value = loss.item<double>();
  if (!std::isfinite(value)) throw ModelError("the loss is not finite; try a smaller --learning-rate");
  if (loss.requires_grad()) {
    loss.backward();
    descend(net, rate);
  }
  return value;
}

int64_t count(const torch::Tensor& mask) { return mask.sum().item<int64_t>(); }

PseudoAudit audit_of(const PseudoLabels& labels, const std::vector<int64_t>& samples, const FederatedTask& task,
                     const torch::Tensor& own) {
  PseudoAudit audit;
  const torch::Tensor used = labels.accepted, local = used & labels.local_won;
  audit.seen = std::ssize(samples);
  audit.accepted = count(used);
  audit.agreed = count(used & labels.agreed);
  audit.local = count(local);
  const torch::Tensor of_own = own.index_select(0, labels.label);
  audit.own_class = count(used & of_own);
  audit.own_class_local = count(local & of_own);
  if (!task.hidden.empty()) {
    const torch::Tensor right = labels.label == label_batch(task.hidden, samples);
    audit.right = count(used & right);
    audit.local_right = count(local & right);
  }
  const torch::Tensor histogram = torch::bincount(labels.label.masked_select(used), {}, task.classes);
  const int64_t* counts = histogram.const_data_ptr<int64_t>();
  audit.histogram.assign(counts, counts + histogram.numel());
  return audit;
}

torch::Tensor probabilities(const FederatedNet& net, const torch::Tensor& x) {
  const torch::NoGradGuard no_gradients;
  return torch::softmax(net.logits(x), 1);
}

}  // namespace

OptionList describe(FedLabelOptions& o) {
  const std::string paper = "paper", ours = "Lighten";
  return {
      option("rounds", o.rounds, range(1, 1e6), "rounds of visiting clients and averaging", "card"),
      option("clients-per-round", o.clients_per_round, range(1, 1e6), "clients that are visited in a round", paper),
      option("labelled-steps", o.labelled_steps, range(0, 1e5), "steps of a visit on labelled samples", paper),
      option("unlabelled-steps", o.unlabelled_steps, range(0, 1e5), "steps of a visit on pseudo-labels", paper),
      option("batch", o.batch, range(1, 1e5), "samples a step", paper),
      option("learning-rate", o.learning_rate, above(0), "of a client's SGD", paper),
      option("server-rate", o.server_rate, above(0), "how far the server goes towards the average", paper),
      option("threshold", o.threshold, range(0, 1), "beta: probability from which on a pseudo-label is used", paper),
      option("agreement", o.agreement, range(0, 100), "lambda0: most weight of the divergence from the loser", paper),
      option("confidence", o.confidence, one_of(std::vector<std::string>{"variance", "max", "entropy"}),
             "what the experts are compared by", paper),
      option("check-every", o.check_every, range(1, 1e6), "rounds between two looks at validation data", ours),
      option("seed", o.seed, any_value(), "of clients, batches and views", ours),
  };
}

Labeller labeller_of(const std::string& method) {
  if (method == "fedlabel") return Labeller::either;
  if (method == "global-only") return Labeller::global_only;
  if (method == "local-only") return Labeller::local_only;
  if (method == "fedavg") return Labeller::labelled_only;
  throw OptionError(unknown_name_message("method", method, {"fedlabel", "fedavg", "global-only", "local-only"}));
}

torch::Tensor confidence_of(const torch::Tensor& p, const std::string& kind) {
  if (kind == "variance") return p.var(1, false);
  if (kind == "max") return p.amax(1);
  if (kind == "entropy") return torch::special::xlogy(p, p).sum(1);
  throw OptionError(unknown_name_message("confidence", kind, {"variance", "max", "entropy"}));
}

PseudoLabels select_labels(const torch::Tensor& p_local, const torch::Tensor& p_global, Labeller labeller,
                           const FedLabelOptions& options) {
  torch::Tensor h_local = confidence_of(p_local, options.confidence), h_global = confidence_of(p_global, options.confidence);
  PseudoLabels labels;
  labels.local_won = labeller == Labeller::either
                         ? h_local > h_global
                         : torch::full({p_local.size(0)}, labeller == Labeller::local_only, torch::kBool);
  const torch::Tensor row = labels.local_won.unsqueeze(1);
  const torch::Tensor winner = torch::where(row, p_local, p_global);
  labels.loser = torch::where(row, p_global, p_local);
  labels.label = winner.argmax(1);
  labels.accepted = winner.amax(1) >= options.threshold;
  labels.agreed = p_local.argmax(1) == p_global.argmax(1);
  if (labeller != Labeller::either) {
    labels.weight = torch::zeros({p_local.size(0)});
    return labels;
  }
  if (options.confidence == "entropy") {
    const double most = std::log(static_cast<double>(p_local.size(1)));
    h_local = (h_local + most).clamp_min(0);
    h_global = (h_global + most).clamp_min(0);
  }
  const torch::Tensor low = torch::minimum(h_local, h_global), high = torch::maximum(h_local, h_global);
  labels.weight = torch::where(labels.agreed & (high > 0), options.agreement * low / high.clamp_min(1e-30), torch::zeros({1}));
  return labels;
}

torch::Tensor pseudo_loss(const torch::Tensor& logits, const PseudoLabels& labels) {
  const torch::Tensor log_q = torch::log_softmax(logits, 1);
  const torch::Tensor hard = -log_q.gather(1, labels.label.unsqueeze(1)).squeeze(1);
  const torch::Tensor divergence = (torch::special::xlogy(labels.loser, labels.loser) - labels.loser * log_q).sum(1);
  const torch::Tensor each = hard + labels.weight * divergence;
  return (each * labels.accepted.to(each.scalar_type())).mean();
}

void check_task(const FederatedTask& task) {
  if (task.clients.empty()) throw OptionError("there is no client");
  const auto samples = std::ssize(task.labels);
  std::set<int32_t> classes;
  for (const FederatedClient& client : task.clients) {
    if (client.labelled.empty() && client.unlabelled.empty())
      throw_error<OptionError>("client '{}' has no data; take it out, or give it samples", client.name);
    for (const auto* part : {&client.labelled, &client.unlabelled})
      for (const int64_t sample : *part)
        if (sample < 0 || sample >= samples)
          throw_error<OptionError>("client '{}': there is no sample {} (0 to {})", client.name, sample, samples - 1);
    for (const int64_t sample : client.labelled) {
      const int32_t label = task.labels[static_cast<size_t>(sample)];
      if (label < 0 || label >= task.classes)
        throw_error<OptionError>("client '{}': sample {} has the label {}, which is none of {} classes", client.name, sample,
                                 label, task.classes);
      classes.insert(label);
    }
  }
  if (classes.empty()) throw OptionError("no client has a label; at least a few samples of two classes need one");
  if (classes.size() < 2)
    throw OptionError("the labels of all clients together name one class only; a classifier needs two or more");
}

void PseudoAudit::add(const PseudoAudit& other) {
  std::vector<int64_t> sum = numbers(), more = other.numbers();
  sum.resize(std::max(sum.size(), more.size()), 0);
  for (size_t i = 0; i < more.size(); ++i) sum[i] += more[i];
  *this = from(sum);
}

std::vector<int64_t> PseudoAudit::numbers() const {
  std::vector<int64_t> all = {seen, accepted, agreed, right, local, local_right, own_class, own_class_local};
  all.insert(all.end(), histogram.begin(), histogram.end());
  return all;
}

PseudoAudit PseudoAudit::from(const std::vector<int64_t>& n) {
  return {n.at(0), n.at(1), n.at(2), n.at(3), n.at(4), n.at(5), n.at(6), n.at(7), {n.begin() + 8, n.end()}};
}

Json to_json(const PseudoAudit& a, bool truth_known) {
  const auto share = [](int64_t part, int64_t whole) {
    return whole > 0 ? Json(static_cast<double>(part) / static_cast<double>(whole)) : Json(nullptr);
  };
  const int64_t other = a.accepted - a.own_class;
  return {{"seen", a.seen},
          {"accepted", a.accepted},
          {"coverage", share(a.accepted, a.seen)},
          {"precision", truth_known ? share(a.right, a.accepted) : Json(nullptr)},
          {"local_share", share(a.local, a.accepted)},
          {"local_precision", truth_known ? share(a.local_right, a.local) : Json(nullptr)},
          {"global_precision", truth_known ? share(a.right - a.local_right, a.accepted - a.local) : Json(nullptr)},
          {"agreement", share(a.agreed, a.accepted)},
          {"local_share_own_classes", share(a.own_class_local, a.own_class)},
          {"local_share_other_classes", share(a.local - a.own_class_local, other)},
          {"histogram", a.histogram}};
}

ClientUpdate client_step(const FederatedNet& local, const FederatedNet& global, const FederatedTask& task,
                         const FederatedClient& client, Labeller labeller, const FedLabelOptions& options, uint64_t seed) {
  torch::manual_seed(seed);
  local.module->train();
  global.module->eval();
  ClientUpdate update;
  int64_t steps = 0;
  Draws labelled(client.labelled, derived_seed(seed, 1)), unlabelled(client.unlabelled, derived_seed(seed, 2));
  const bool plain = labeller == Labeller::labelled_only;
  const int64_t first = client.labelled.empty() ? 0 : options.labelled_steps + (plain ? options.unlabelled_steps : 0);
  for (int64_t step = 0; step < first; ++step, ++steps) {
    const std::vector<int64_t> samples = labelled.next(options.batch);
    const torch::Tensor x = task.batch(samples, View::weak, derived_seed(seed, 3, static_cast<uint64_t>(step)));
    update.loss +=
        follow(local, torch::cross_entropy_loss(local.logits(x), label_batch(task.labels, samples)), options.learning_rate);
  }
  torch::Tensor own = torch::zeros({task.classes}, torch::kBool);
  for (const int64_t sample : client.labelled) own[task.labels[static_cast<size_t>(sample)]] = true;
  const int64_t second = plain || client.unlabelled.empty() ? 0 : options.unlabelled_steps;
  for (int64_t step = 0; step < second; ++step, ++steps) {
    const std::vector<int64_t> samples = unlabelled.next(options.batch);
    const torch::Tensor weak = task.batch(samples, View::weak, derived_seed(seed, 4, static_cast<uint64_t>(step)));
    local.module->eval();
    const PseudoLabels labels = select_labels(probabilities(local, weak), probabilities(global, weak), labeller, options);
    local.module->train();
    update.audit.add(audit_of(labels, samples, task, own));
    if (count(labels.accepted) == 0) continue;
    const torch::Tensor strong = task.batch(samples, View::strong, derived_seed(seed, 5, static_cast<uint64_t>(step)));
    update.loss += follow(local, pseudo_loss(local.logits(strong), labels), options.learning_rate);
  }
  update.loss /= static_cast<double>(std::max<int64_t>(steps, 1));
  update.weight = static_cast<double>(client.labelled.size() + (plain ? 0 : client.unlabelled.size()));
  update.state = cloned(state_of(*local.module));
  return update;
}

void aggregate(const NamedTensors& global, const std::vector<ClientUpdate>& updates, double rate) {
  const torch::NoGradGuard no_gradients;
  double total = 0;
  for (const ClientUpdate& update : updates) total += update.weight;
  if (!(total > 0)) throw OptionError("aggregation: the weights of the clients add up to nothing");
  for (size_t i = 0; i < global.size(); ++i) {
    const torch::Tensor& target = global[i].second;
    if (!target.is_floating_point()) {
      target.copy_(updates[0].state.at(i).second);
      continue;
    }
    torch::Tensor mean = torch::zeros_like(target, torch::kDouble);
    for (const ClientUpdate& update : updates) mean.add_(update.state.at(i).second.to(torch::kDouble), update.weight / total);
    const torch::Tensor before = target.to(torch::kDouble);
    target.copy_(before + rate * (mean - before));
  }
}

int64_t bytes_of(const NamedTensors& state) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : state) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

}  // namespace lighten
