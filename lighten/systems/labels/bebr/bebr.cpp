#include "lighten/systems/labels/bebr/bebr.h"

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/nn/product.h"
#include "lighten/systems/labels/bebr/binarizer.h"
#include "lighten/train/loop.h"

namespace lighten {
namespace {

namespace F = torch::nn::functional;

constexpr int64_t kFewestPairs = 16;
constexpr double kMasked = -1e4;  // far below any cosine / temperature
constexpr double kLinearPart = 3, kRidge = 0.01, kSmallest = 1e-8;
constexpr int64_t kWarmRows = 20000;

torch::Tensor unit_rows(const torch::Tensor& x) { return F::normalize(x, F::NormalizeFuncOptions().dim(1)); }

torch::Tensor tensor_of(std::span<const float> values, int64_t columns) {
  return unit_rows(torch::from_blob(const_cast<float*>(values.data()), {static_cast<int64_t>(values.size()) / columns, columns},
                                    torch::kFloat32));
}

torch::nn::Sequential net(int64_t inputs, int64_t hidden, int64_t outputs) {
  return torch::nn::Sequential(torch::nn::Linear(inputs, hidden), torch::nn::BatchNorm1d(hidden), torch::nn::ReLU(),
                               torch::nn::Linear(hidden, outputs));
}

/// y = W x + b with the least squares error and a weight decay that grows where rows are few for the columns.
struct Ridge {
  torch::Tensor weight, bias;
};
Ridge ridge(const torch::Tensor& x, const torch::Tensor& y) {
  const torch::Tensor mean = x.mean(0), centred = x - mean, y_mean = y.mean(0);
  const torch::Tensor gram = centred.t().matmul(centred);
  const double few = 0.5 * static_cast<double>(x.size(1)) / static_cast<double>(x.size(0));
  const torch::Tensor decay = (kRidge + few) * gram.diag().mean().clamp_min(kSmallest) * torch::eye(x.size(1));
  const torch::Tensor weight = torch::linalg_solve(gram + decay, centred.t().matmul(y - y_mean), true).t();
  return {weight, y_mean - weight.mv(mean)};
}

/// `count` rows of length 1: principal axes of x, the largest first d at a time, each d turned by a random rotation.
torch::Tensor turned_axes(const torch::Tensor& x, int64_t count) {
  const int64_t d = x.size(1);
  const torch::Tensor centred = x - x.mean(0);
  const torch::Tensor axes = std::get<1>(torch::linalg_eigh(centred.t().matmul(centred)));  // columns, ascending
  std::vector<torch::Tensor> blocks;
  for (int64_t done = 0; done < count; done += d) {
    const int64_t k = std::min(d, count - done);
    const torch::Tensor turn = std::get<0>(torch::linalg_qr(torch::randn({k, k})));
    blocks.push_back(axes.slice(1, d - k).matmul(turn).t());
  }
  return torch::cat(blocks);
}

/// Sets Linear - BatchNorm - ReLU - Linear to x -> second first x + bias for the rows x (nearly: the ReLU cuts what lies
/// kLinearPart deviations below the mean). Hidden units beyond first's rows keep their weights and have no say yet.
void set_linear(const torch::nn::Sequential& net, const torch::Tensor& first, const torch::Tensor& x,
                const torch::Tensor& second, const torch::Tensor& bias) {
  auto* in = net->ptr(0)->as<torch::nn::Linear>();
  auto* norm = net->ptr(1)->as<torch::nn::BatchNorm1d>();
  auto* out = net->ptr(3)->as<torch::nn::Linear>();
  const int64_t used = first.size(0);
  if (used > in->weight.size(0)) return;  // fewer hidden units than dimensions: nothing linear fits through
  in->weight.slice(0, 0, used).copy_(first);
  in->bias.slice(0, 0, used).zero_();
  const torch::Tensor y = in->forward(x);
  norm->running_mean.copy_(y.mean(0));
  norm->running_var.copy_(y.var(0));
  norm->bias.slice(0, 0, used).fill_(kLinearPart);
  const torch::Tensor deviation = torch::sqrt(norm->running_var + norm->options.eps()).slice(0, 0, used);
  const torch::Tensor weight = second * deviation.unsqueeze(0);  // of inputs (y - mean) / deviation + kLinearPart
  out->weight.zero_();
  out->weight.slice(1, 0, used).copy_(weight);
  out->bias.copy_(bias + second.mv(norm->running_mean.slice(0, 0, used)) - kLinearPart * weight.sum(1));
}

torch::Tensor run_net(const torch::nn::Sequential& net, const torch::Tensor& x) {
  const auto* in = net->ptr(0)->as<torch::nn::Linear>();
  const auto* out = net->ptr(3)->as<torch::nn::Linear>();
  const torch::Tensor hidden = net->ptr(1)->as<torch::nn::BatchNorm1d>()->forward(product(x, in->weight, in->bias));
  return product(torch::relu(hidden), out->weight, out->bias);
}

DenseLayer dense(const torch::Tensor& weight, const torch::Tensor& bias) {
  const torch::Tensor w = weight.detach().to(torch::kFloat32).contiguous(), b = bias.detach().to(torch::kFloat32).contiguous();
  return {w.size(1),
          w.size(0),
          {w.data_ptr<float>(), w.data_ptr<float>() + w.numel()},
          {b.data_ptr<float>(), b.data_ptr<float>() + b.numel()}};
}

/// Linear - BatchNorm - ReLU - Linear as two dense layers: y = g (W x + b - mean) / sqrt(var + eps) + beta.
DenseNet folded(const torch::nn::Sequential& net) {
  const auto* first = net->ptr(0)->as<torch::nn::Linear>();
  const auto* norm = net->ptr(1)->as<torch::nn::BatchNorm1d>();
  const auto* last = net->ptr(3)->as<torch::nn::Linear>();
  const torch::Tensor scale = norm->weight / torch::sqrt(norm->running_var + norm->options.eps());
  return {dense(first->weight * scale.unsqueeze(1), (first->bias - norm->running_mean) * scale + norm->bias),
          dense(last->weight, last->bias)};
}

/// The old codes' directions, [n, m] unit rows.
torch::Tensor old_directions(const OldCodes& old) {
  const int64_t m = old.format.shape.dimensions, n = static_cast<int64_t>(old.rows.size()) / old.format.row_bytes();
  torch::Tensor x = torch::empty({n, m});
  for (int64_t i = 0; i < n; ++i)
    unit_vector_of_row(old.format, old.rows.data() + i * old.format.row_bytes(), x.data_ptr<float>() + i * m);
  return x;
}

/// phi, its slow copy and the queue: what one training holds. A queue's entry is a code and the number of its document.
struct TrainerImpl : torch::nn::Module {
  TrainerImpl(int64_t columns, const BebrOptions& o, const torch::Tensor& rows, const torch::Tensor& targets)
      : options(o), online(bebr::Binarizer(columns, o)), slow(bebr::Binarizer(columns, o)) {
    if (o.warm_start) online->warm_start(rows, targets);
    register_module("online", online);
    register_module("slow", slow);
    const torch::NoGradGuard no_gradients;
    auto source = online->named_parameters(), target = slow->named_parameters();
    for (auto& item : target) {
      item.value().copy_(source[item.key()]);
      item.value().requires_grad_(false);
    }
    const int64_t length = o.queue * o.batch_size;
    codes = register_buffer("codes", torch::zeros({length, o.dimensions}));
    documents = register_buffer("documents", torch::full({length}, -1, torch::kInt64));
    next = register_buffer("next", torch::zeros({1}, torch::kInt64));
  }
  void follow() {
    const torch::NoGradGuard no_gradients;
    auto source = online->named_parameters();
    for (auto& item : slow->named_parameters()) item.value().lerp_(source[item.key()], 1 - options.momentum);
  }
  void push(const torch::Tensor& new_codes, const torch::Tensor& samples) {
    const int64_t length = codes.size(0), n = std::min(new_codes.size(0), length), at = next.item<int64_t>();
    const torch::Tensor places = (torch::arange(n) + at).remainder(length);
    codes.index_copy_(0, places, new_codes.slice(0, 0, n));
    documents.index_copy_(0, places, samples.slice(0, 0, n));
    next.fill_((at + n) % length);
  }

  BebrOptions options;
  bebr::Binarizer online, slow;
  torch::Tensor codes, documents, next;
};
TORCH_MODULE(Trainer);

class BebrTraining {
 public:
  BebrTraining(const BebrPairs& pairs, const BebrOptions& options, const OldCodes* old)
      : options_(options), documents_(tensor_of(pairs.documents, pairs.columns)) {
    if (!pairs.queries.empty()) queries_ = tensor_of(pairs.queries, pairs.columns);
    groups_ = pairs.groups.empty() ? torch::arange(pairs.size())
                                   : torch::from_blob(const_cast<int64_t*>(pairs.groups.data()), {pairs.size()}, torch::kInt64);
    if (old != nullptr) old_ = old_directions(*old);
    trainer_ = Trainer(start(pairs.columns));
  }

  Trainer& trainer() { return trainer_; }

  torch::Tensor loss(const TrainStep& step) {
    const torch::Tensor samples = torch::tensor(std::vector<int64_t>(step.samples.begin(), step.samples.end()));
    const torch::Tensor d = documents_.index_select(0, samples);
    const torch::Tensor q = queries_.defined() ? queries_.index_select(0, samples) : noisy(d);
    // One pass for both sides: batch norm sees the same mixture in training that encoding will see.
    const torch::Tensor both = unit_rows(trainer_->online->forward(torch::cat({q, d})));
    const torch::Tensor query = both.slice(0, 0, q.size(0));
    const torch::Tensor own = groups_.index_select(0, samples);
    // Keys, the positive ones too, come from the copy: were they the trained net's own, moving away from the copy as a whole
    // would tell positives from negatives, and nothing would be learned about documents.
    const torch::Tensor keys = enqueue(q, d, samples);
    torch::Tensor loss = against(query, keys, trainer_->codes, own);
    if (old_.defined()) {
      const torch::Tensor known = trainer_->documents.clamp_min(0);
      loss = loss + against(query, old_.index_select(0, samples), old_.index_select(0, known), own);
    }
    return loss;
  }

 private:
  /// Untrained nets that begin near a rotation, or near the old codes: at most kWarmRows of each side, evenly spread.
  std::shared_ptr<TrainerImpl> start(int64_t columns) const {
    const int64_t n = documents_.size(0), count = std::min(n, kWarmRows);
    const torch::Tensor rows = torch::arange(count) * n / count;
    const torch::Tensor d = documents_.index_select(0, rows.to(torch::kInt64));
    const torch::Tensor q = queries_.defined() ? queries_.index_select(0, rows.to(torch::kInt64)) : noisy(d);
    torch::Tensor targets;
    if (old_.defined()) {
      targets = old_.index_select(0, rows.to(torch::kInt64)) * std::sqrt(static_cast<double>(old_.size(1)));
      targets = torch::cat({targets, targets});
    }
    return std::make_shared<TrainerImpl>(columns, options_, torch::cat({q, d}), targets);
  }

  torch::Tensor noisy(const torch::Tensor& x) const {
    return unit_rows(x + torch::randn_like(x) * (options_.noise / std::sqrt(static_cast<double>(x.size(1)))));
  }

  /// L(query, positive, hardest of the queue); entries of the query's own group, and places that are not filled yet, do not
  /// count.
  torch::Tensor against(const torch::Tensor& query, const torch::Tensor& positive, const torch::Tensor& queue,
                        const torch::Tensor& own) {
    const torch::Tensor place = trainer_->documents;
    const torch::Tensor group = groups_.index_select(0, place.clamp_min(0));
    const torch::Tensor barred = torch::logical_or(group.unsqueeze(0) == own.unsqueeze(1), (place < 0).unsqueeze(0));
    const torch::Tensor all = product(query, queue).masked_fill(barred, kMasked);
    const int64_t hardest = std::min(options_.hardest, all.size(1));
    const torch::Tensor negatives = std::get<0>(all.topk(hardest, 1, true, false));
    return bebr::contrastive_loss((query * positive).sum(1), negatives, options_.temperature);
  }

  /// The documents' codes by the copy, which are put into the queue.
  torch::Tensor enqueue(const torch::Tensor& q, const torch::Tensor& d, const torch::Tensor& samples) {
    const torch::NoGradGuard no_gradients;
    trainer_->follow();
    const torch::Tensor slow = unit_rows(trainer_->slow->forward(torch::cat({q, d})));
    const torch::Tensor keys = slow.slice(0, q.size(0));
    trainer_->push(keys, samples);
    return keys;
  }

  BebrOptions options_;
  torch::Tensor queries_, documents_, groups_, old_;
  Trainer trainer_{nullptr};
};

}  // namespace

namespace bebr {

torch::Tensor straight_through_sign(const torch::Tensor& x) {
  const torch::Tensor sign = torch::where(x >= 0, torch::ones_like(x), -torch::ones_like(x));
  const torch::Tensor passed = x.clamp(-1, 1);
  return passed + (sign - passed).detach();
}

BinarizerImpl::BinarizerImpl(int64_t input_columns, const BebrOptions& options)
    : columns(input_columns), dimensions(options.dimensions), loops(options.loops) {
  const int64_t hidden = options.hidden > 0 ? options.hidden : std::max(columns, dimensions);
  for (int64_t j = 0; j <= loops; ++j) {
    binarizers.push_back(register_module("binarizer" + std::to_string(j), net(columns, hidden, dimensions)));
    if (j > 0)
      reconstructors.push_back(register_module("reconstructor" + std::to_string(j - 1), net(dimensions, hidden, columns)));
  }
}

torch::Tensor BinarizerImpl::forward(const torch::Tensor& f) {
  torch::Tensor b = straight_through_sign(run_net(binarizers[0], f));
  for (int64_t j = 1; j <= loops; ++j) {
    const auto at = static_cast<size_t>(j);
    const torch::Tensor guess = unit_rows(run_net(reconstructors[at - 1], b));
    b = b + std::ldexp(1.0, -static_cast<int>(j)) * straight_through_sign(run_net(binarizers[at], f - guess));
  }
  return b;
}

CodeEncoder BinarizerImpl::encoder() const {
  const torch::NoGradGuard no_gradients;
  CodeEncoder encoder{"bebr", columns, {dimensions, static_cast<int>(loops)}, true, {}, {}};
  for (const auto& one : binarizers) encoder.binarizers.push_back(folded(one));
  for (const auto& one : reconstructors) encoder.reconstructors.push_back(folded(one));
  return encoder;
}

void BinarizerImpl::warm_start(const torch::Tensor& rows, const torch::Tensor& targets) {
  const torch::NoGradGuard no_gradients;
  const bool training = is_training();
  eval();
  const Ridge to_targets = targets.defined() ? ridge(rows, targets) : Ridge{};
  const torch::Tensor p = targets.defined() ? to_targets.weight : turned_axes(rows, dimensions);
  torch::Tensor b, rest = rows;
  for (int64_t j = 0; j <= loops; ++j) {
    const auto at = static_cast<size_t>(j);
    if (j > 0) {
      const Ridge back = ridge(b, rows);
      set_linear(reconstructors[at - 1], torch::eye(dimensions), b, back.weight, back.bias);
      rest = rows - unit_rows(run_net(reconstructors[at - 1], b));
    }
    const torch::Tensor y = rest.matmul(p.t()), deviation = y.std(0).clamp_min(kSmallest);
    const torch::Tensor shift = j == 0 && targets.defined() ? targets.mean(0) : torch::zeros({dimensions});
    set_linear(binarizers[at], p, rest, torch::diag(1 / deviation), (shift - y.mean(0)) / deviation);
    const torch::Tensor r = straight_through_sign(run_net(binarizers[at], rest));
    b = j == 0 ? r : b + std::ldexp(1.0, -static_cast<int>(j)) * r;
  }
  train(training);
}

torch::Tensor contrastive_loss(const torch::Tensor& positive, const torch::Tensor& negatives, double temperature) {
  const torch::Tensor logits = torch::cat({positive.unsqueeze(1), negatives}, 1) / temperature;
  return -torch::log_softmax(logits, 1).select(1, 0).mean();
}

}  // namespace bebr

OptionList describe(BebrOptions& o) {
  return {
      option("dimensions", o.dimensions, range(8, 4096), "m: dimensions of a code", "1024 bits with u = 3"),
      option("loops", o.loops, range(0, 3), "u: residual loops; a code has (u + 1) m bits", "paper"),
      option("hidden", o.hidden, range(0, 16384), "hidden units of every net (0: the larger of its two sides)", "recalled"),
      option("warm-start", o.warm_start, any_value(), "begin at a rotation and ridge regressions, not at random weights",
             "Lighten"),
      option("epochs", o.epochs, range(0, 10000), "passes over the pairs (0: the warm start alone)", "Lighten"),
      option("batch-size", o.batch_size, range(8, 65536), "pairs a step", "Lighten (paper: 4096)"),
      option("learning-rate", o.learning_rate, above(0), "of Adam, falling as a cosine", "Lighten (paper: 0.02)"),
      option("temperature", o.temperature, above(0), "tau", "recalled"),
      option("queue", o.queue, range(1, 1024), "batches of documents that negatives come from", "paper: 16"),
      option("hardest", o.hardest, range(1, 65536), "negatives of a query: the nearest in the queue", "paper: 256"),
      option("momentum", o.momentum, range(0, 1), "of the copy that fills the queue", "Lighten"),
      option("noise", o.noise, range(0, 10), "without pairs: length of the noise that makes a vector's partner", "Lighten"),
      option("clip-norm", o.clip_norm, range(0, 1e6), "largest norm of the gradient", "recalled"),
      option("seed", o.seed, any_value(), "of weights, order and noise", "Lighten"),
  };
}

CodeEncoder train_bebr(const BebrPairs& pairs, const BebrOptions& options, const std::string& title, const OldCodes* old,
                       const fs::path& folder) {
  BebrOptions checked = options;
  validate(describe(checked));
  if (pairs.size() < kFewestPairs)
    throw_error<OptionError>("BEBR needs at least {} pairs to train on, not {}", kFewestPairs, pairs.size());
  if (!pairs.queries.empty() && pairs.queries.size() != pairs.documents.size())
    throw OptionError("BEBR needs as many queries as documents, of the same width");
  if (old != nullptr && (!(old->format == code_format(options.dimensions, options.loops)) ||
                         static_cast<int64_t>(old->rows.size()) != pairs.size() * old->format.row_bytes()))
    throw_error<OptionError>(
        "the old codes are {}; compatible training needs the same dimensions and loops, and one code a document",
        to_text(old->format));
  checked.batch_size = std::min(options.batch_size, pairs.size());
  torch::manual_seed(options.seed);
  BebrTraining training(pairs, checked, old);
  TrainTask task;
  task.title = title;
  task.modules = {{.name = "bebr", .module = training.trainer().get()}};
  for (int64_t i = 0; i < pairs.size(); ++i) task.samples.push_back(i);
  task.loss = [&](const TrainStep& step) { return training.loss(step); };
  if (checked.epochs > 0)
    train(task,
          {.epochs = checked.epochs,
           .batch_size = checked.batch_size,
           .optimizer = "adam",
           .learning_rate = checked.learning_rate,
           .weight_decay = 0,
           .schedule = "cosine",
           .clip_norm = checked.clip_norm,
           .seed = checked.seed},
          folder);
  training.trainer()->eval();
  return training.trainer()->online->encoder();
}

CodeEncoder train_itq(std::span<const float> vectors, int64_t columns, int64_t bits, int iterations, uint64_t seed) {
  if (bits < 1 || bits > columns)
    throw_error<OptionError>("itq makes at most as many bits as vectors have columns ({}), not {}", columns, bits);
  const torch::NoGradGuard no_gradients;
  torch::manual_seed(seed);
  const torch::Tensor x = tensor_of(vectors, columns), mean = x.mean(0), centred = x - mean;
  const torch::Tensor axes = std::get<1>(torch::linalg_eigh(centred.t().matmul(centred))).slice(1, columns - bits).contiguous();
  const torch::Tensor v = centred.matmul(axes);
  torch::Tensor rotation = std::get<0>(torch::linalg_qr(torch::randn({bits, bits})));
  for (int i = 0; i < iterations; ++i) {
    const torch::Tensor turned = v.matmul(rotation),
                        b = torch::where(turned >= 0, torch::ones_like(turned), -torch::ones_like(turned));
    const auto [u, s, vt] = torch::linalg_svd(v.t().matmul(b), false);
    rotation = u.matmul(vt);
  }
  const torch::Tensor weight = axes.matmul(rotation).t();
  return {"itq", columns, {bits, 0}, true, std::vector<DenseNet>{DenseNet{dense(weight, -weight.mv(mean))}}, {}};
}

CodeEncoder random_signs(int64_t columns, int64_t bits, uint64_t seed) {
  const torch::NoGradGuard no_gradients;
  torch::manual_seed(seed);
  std::vector<torch::Tensor> blocks;
  for (int64_t done = 0; done < bits; done += columns)
    blocks.push_back(
        std::get<0>(torch::linalg_qr(torch::randn({columns, columns}))).slice(0, 0, std::min(columns, bits - done)));
  const torch::Tensor weight = torch::cat(blocks);
  return {"random-signs", columns, {bits, 0}, true, std::vector<DenseNet>{DenseNet{dense(weight, torch::zeros({bits}))}}, {}};
}

}  // namespace lighten
