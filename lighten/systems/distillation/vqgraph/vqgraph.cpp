#include "lighten/systems/distillation/vqgraph/vqgraph.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/nn/product.h"
#include "lighten/train/loop.h"

namespace lighten {
namespace {

torch::Tensor unit(const torch::Tensor& x) { return x / x.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12); }

torch::nn::Linear linear(int64_t inputs, int64_t outputs, at::Generator& generator) {
  torch::nn::Linear layer(inputs, outputs);
  const torch::NoGradGuard no_grad;
  const double limit = std::sqrt(6.0 / static_cast<double>(inputs + outputs));
  layer->weight.uniform_(-limit, limit, generator);
  layer->bias.zero_();
  return layer;
}

torch::Tensor affine(torch::nn::Linear& layer, const torch::Tensor& x) { return product(x, layer->weight, layer->bias); }

/// Dense adjacency [b, b] of the nodes `block` (ascending).
torch::Tensor block_adjacency(const Sparse& a, const std::vector<int64_t>& block) {
  std::vector<int64_t> place(static_cast<size_t>(a->rows), -1);
  for (size_t i = 0; i < block.size(); ++i) place[static_cast<size_t>(block[i])] = static_cast<int64_t>(i);
  torch::Tensor dense = torch::zeros({std::ssize(block), std::ssize(block)});
  const auto *begin = a->row_begin.data_ptr<int64_t>(), *column = a->column.data_ptr<int64_t>();
  for (size_t i = 0; i < block.size(); ++i)
    for (int64_t k = begin[block[i]]; k < begin[block[i] + 1]; ++k)
      if (const int64_t j = place[static_cast<size_t>(column[k])]; j >= 0)
        dense.data_ptr<float>()[static_cast<int64_t>(i) * std::ssize(block) + j] = 1;
  return dense;
}

torch::Tensor edge_loss(const Sparse& adjacency, const torch::Tensor& q_e, int64_t size, uint64_t seed) {
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  const torch::Tensor nodes =
      std::get<0>(torch::randperm(q_e.size(0), generator, torch::kInt64).slice(0, 0, std::min(size, q_e.size(0))).sort());
  const std::vector<int64_t> block(nodes.data_ptr<int64_t>(), nodes.data_ptr<int64_t>() + nodes.numel());
  const torch::Tensor rows = q_e.index_select(0, nodes), gram = product(rows, rows);
  const torch::Tensor low = gram.min(), high = gram.max();
  return torch::mse_loss((gram - low) / (high - low).clamp_min(1e-12), block_adjacency(adjacency, block))
      .clamp_min(1e-12)
      .sqrt();
}

}  // namespace

OptionList describe(VqGraphOptions& options) {
  return {
      option("codes", options.codes, range(2, 100000), "entries of the codebook", "5,000 in the paper for larger graphs"),
      option("width", options.width, range(0, 8192), "of the codes; 0: as wide as the features", "release"),
      option("code-decay", options.code_decay, range(0, 0.9999), "of the moving average of codes", "release"),
      option("commit", options.commit, range(0, 100), "weight of staying near the code", "release"),
      option("feature-weight", options.feature_weight, range(0, 100), "weight of rebuilding nodes", "release"),
      option("edge-weight", options.edge_weight, range(0, 100), "weight of rebuilding edges", "release"),
      option("edge-block", options.edge_block, range(2, 20000), "nodes on which edges are rebuilt in a step", "Lighten"),
      option("teacher-dropout", options.teacher_dropout, range(0, 0.95), "of the teacher", "release"),
      option("teacher-rate", options.teacher_rate, above(0), "learning rate of the teacher", "release"),
      option("teacher-decay", options.teacher_decay, range(0, 1), "weight decay of the teacher", "release"),
      option("teacher-epochs", options.teacher_epochs, range(1, 100000), "of the teacher, at most", "Lighten"),
      option("hidden", options.hidden, range(1, 8192), "width of the student", "release (128)"),
      option("layers", options.layers, range(1, 16), "of the student", "release (2)"),
      option("dropout", options.dropout, range(0, 0.95), "of the student", "release (0.6 for Cora)"),
      option("rate", options.rate, above(0), "learning rate of the student", "release, Cora"),
      option("decay", options.decay, range(0, 1), "weight decay of the student", "release (0.005 for Cora)"),
      option("code-weight", options.code_weight, range(0, 100), "weight of the codes (lambda_tok)",
             "chosen on validation data"),
      option("label-share", options.label_share, range(0, 1), "weight of true labels against the teacher's", "release (0)"),
      option("temperature", options.temperature, above(0), "of the code assignments", "paper (4)"),
      option("scores", options.scores, one_of(std::vector<std::string>{"cosine", "l2"}), "student's scores of codes",
             "l2 in the release"),
      option("epochs", options.epochs, range(1, 100000), "of the student, at most", "release (500)"),
      option("batch", options.batch, range(1, 1'000'000), "nodes in a batch of the student", "release"),
      option("patience", options.patience, range(0, 100000), "epochs without a better validation score", "release"),
  };
}

Codebook::Codebook(const torch::Tensor& vectors, int64_t codes, double decay, uint64_t seed) : decay_(decay) {
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  const torch::NoGradGuard no_grad;
  torch::Tensor rows = torch::randperm(vectors.size(0), generator, torch::kInt64);
  while (rows.size(0) < codes) rows = torch::cat({rows, torch::randperm(vectors.size(0), generator, torch::kInt64)});
  codes_ = unit(vectors.index_select(0, rows.slice(0, 0, codes)));
}

torch::Tensor Codebook::scores(const torch::Tensor& vectors) const { return product(unit(vectors), codes_); }

torch::Tensor Codebook::assign(const torch::Tensor& vectors) const {
  const torch::NoGradGuard no_grad;
  return scores(vectors).argmax(1);
}

void Codebook::update(const torch::Tensor& vectors, const torch::Tensor& assigned) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor count = torch::bincount(assigned, {}, codes_.size(0));
  const torch::Tensor sum = torch::zeros_like(codes_).index_add(0, assigned, unit(vectors));
  const torch::Tensor moved = unit(decay_ * codes_ + (1 - decay_) * unit(sum));
  codes_.copy_(torch::where((count > 0).unsqueeze(1), moved, codes_));  // in place: checkpoints share the memory
}

VqTeacherImpl::VqTeacherImpl(int64_t inputs, int64_t width, int64_t classes, double dropout_share, uint64_t seed)
    : dropout(dropout_share) {
  at::Generator generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  encode = register_module("encode", linear(inputs, width, generator));
  structure = register_module("structure", linear(width, width, generator));
  feature = register_module("feature", linear(width, width, generator));
  combine = register_module("combine", linear(width, width, generator));
  head = register_module("head", linear(width, classes, generator));
}

torch::Tensor VqTeacherImpl::embed(const Sparse& a, const torch::Tensor& x) {
  return torch::dropout(torch::relu(spmm(a, product(x, encode->weight)) + encode->bias), dropout, is_training());
}

torch::Tensor VqTeacherImpl::classify(const Sparse& a, const torch::Tensor& q_e) {
  return affine(head, spmm(a, product(q_e, combine->weight)) + combine->bias);
}

VqTeacherResult train_vq_teacher(const GraphTask& task, const VqGraphOptions& options, const std::string& title,
                                 const TrainPlace& place) {
  check_task(task);
  const int64_t width = options.width > 0 ? options.width : task.x.size(1);
  VqTeacher teacher(task.x.size(1), width, task.classes, options.teacher_dropout, options.seed);
  const Sparse a = normalised(task.adjacency, Normalisation::symmetric, true);
  teacher->eval();
  Codebook book(
      [&] {
        const torch::NoGradGuard no_grad;
        return teacher->embed(a, task.x);
      }(),
      options.codes, options.code_decay, options.seed + 1);
  // The codes are a buffer of the teacher: they are kept and restored with the best epoch.
  teacher->register_buffer("codes", book.codes_);
  const torch::Tensor nodes = torch::tensor(task.train), targets = training_targets(task);
  const auto forward = [&](const torch::Tensor& h, const torch::Tensor& assigned) {
    const torch::Tensor q = book.codes().index_select(0, assigned), normal = unit(h);
    return affine(teacher->structure, normal + (q - normal).detach());
  };
  TrainTask training;
  training.title = title + ", teacher";
  training.modules = {{.name = "teacher", .module = teacher.get()}};
  training.samples = {0};
  training.loss = [&](const TrainStep& step) {
    const torch::Tensor h = teacher->embed(a, task.x), assigned = book.assign(h), normal = unit(h);
    const torch::Tensor q = book.codes().index_select(0, assigned).clone(), through = normal + (q - normal).detach();
    const torch::Tensor q_e = affine(teacher->structure, through), q_n = affine(teacher->feature, through);
    book.update(h.detach(), assigned);
    return torch::nn::functional::cross_entropy(teacher->classify(a, q_e).index_select(0, nodes), targets) +
           options.commit * torch::mse_loss(normal, q) + options.feature_weight * torch::mse_loss(q_n, h.detach()) +
           options.edge_weight * edge_loss(task.adjacency, q_e, options.edge_block, step.seed);
  };
  const auto logits_of = [&](const torch::Tensor& h) { return teacher->classify(a, forward(h, book.assign(h))); };
  if (!task.validation.empty())
    training.validate = [&] {
      return accuracy_on(task.validation, argmax_of(logits_of(teacher->embed(a, task.x))), task.labels);
    };
  train(training,
        full_batch({.epochs = options.teacher_epochs,
                    .patience = options.patience,
                    .learning_rate = options.teacher_rate,
                    .weight_decay = options.teacher_decay,
                    .seed = options.seed}),
        place);
  const torch::NoGradGuard no_grad;
  teacher->eval();
  const torch::Tensor h = teacher->embed(a, task.x);
  VqTeacherResult result;
  result.logits = logits_of(h);
  result.assignments = book.scores(h);
  result.codes = book.codes().clone();
  result.used_codes =
      static_cast<double>(std::get<0>(at::_unique(book.assign(h))).numel()) / static_cast<double>(options.codes);
  result.validation_accuracy = accuracy_on(task.validation, argmax_of(result.logits), task.labels);
  return result;
}

torch::Tensor soft_code_loss(const torch::Tensor& teacher, const torch::Tensor& student, double temperature) {
  const torch::Tensor p = torch::softmax(teacher / temperature, 1);
  const torch::Tensor gap = torch::log_softmax(teacher / temperature, 1) - torch::log_softmax(student / temperature, 1);
  return temperature * temperature * (p * gap).sum(1).mean();
}

torch::Tensor code_scores(const torch::Tensor& mapped, const torch::Tensor& codes, const std::string& kind) {
  if (kind == "cosine") return product(unit(mapped), codes);
  const torch::Tensor square = mapped.square().sum(1, true) + codes.square().sum(1) - 2 * product(mapped, codes);
  return -square.clamp_min(1e-12).sqrt();
}

DistilledStudent train_student(const GraphTask& task, const torch::Tensor& teacher_logits, const torch::Tensor& assignments,
                               const torch::Tensor& codes, const VqGraphOptions& options, const std::string& title,
                               const TrainPlace& place) {
  check_task(task);
  DistilledStudent student;
  student.net =
      FeatureNet(FeatureNetConfig{.inputs = task.x.size(1),
                                  .widths = std::vector<int64_t>(static_cast<size_t>(options.layers - 1), options.hidden),
                                  .outputs = task.classes,
                                  .dropout = options.dropout},
                 options.seed + 10);
  FeatureNet& net = student.net;
  const bool with_codes = assignments.defined() && options.code_weight > 0;
  at::Generator generator = torch::make_generator<at::CPUGeneratorImpl>(options.seed + 11);
  torch::nn::Linear map =
      linear(options.layers > 1 ? options.hidden : task.x.size(1), with_codes ? codes.size(1) : 1, generator);
  std::vector<bool> labelled(static_cast<size_t>(task.x.size(0)), false);
  for (const int64_t node : task.train) labelled[static_cast<size_t>(node)] = true;
  TrainTask training;
  training.title = title + ", student";
  training.modules = {{.name = "student", .module = net.get()}};
  if (with_codes) training.modules.push_back({.name = "map", .module = map.get()});
  // All observed nodes have a teacher; without one, labelled nodes are all there is.
  if (teacher_logits.defined())
    for (int64_t i = 0; i < task.x.size(0); ++i) training.samples.push_back(i);
  else
    training.samples = task.train;
  training.drop_last = false;
  training.loss = [&](const TrainStep& step) {
    const torch::Tensor batch = torch::tensor(std::vector<int64_t>(step.samples.begin(), step.samples.end()));
    const torch::Tensor u = net->hidden(task.x.index_select(0, batch));
    const torch::Tensor log_p = torch::log_softmax(product(u, net->weights.back(), net->biases.back()), 1);
    torch::Tensor loss = torch::zeros({});
    const double share = teacher_logits.defined() ? options.label_share : 1;
    if (share > 0) {
      std::vector<int64_t> places, targets;
      for (size_t i = 0; i < step.samples.size(); ++i)
        if (labelled[static_cast<size_t>(step.samples[i])]) {
          places.push_back(static_cast<int64_t>(i));
          targets.push_back(task.labels[static_cast<size_t>(step.samples[i])]);
        }
      if (!places.empty())
        loss = loss + share * torch::nll_loss(log_p.index_select(0, torch::tensor(places)), torch::tensor(targets));
    }
    if (share < 1) {
      const torch::Tensor log_t = torch::log_softmax(teacher_logits.index_select(0, batch), 1);
      loss = loss + (1 - share) * (log_t.exp() * (log_t - log_p)).sum(1).mean();
    }
    if (with_codes)
      loss =
          loss + options.code_weight * soft_code_loss(assignments.index_select(0, batch),
                                                      code_scores(affine(map, u), codes, options.scores), options.temperature);
    return loss;
  };
  if (!task.validation.empty())
    training.validate = [&] { return accuracy_on(task.validation, argmax_of(predict(net, task.x)), task.labels); };
  const TrainResult trained = train(training,
                                    {.epochs = options.epochs,
                                     .batch_size = std::min<int64_t>(options.batch, std::ssize(training.samples)),
                                     .optimizer = "adam",
                                     .learning_rate = options.rate,
                                     .weight_decay = options.decay,
                                     .schedule = "constant",
                                     .patience = options.patience,
                                     .seed = options.seed},
                                    place);
  student.best_epoch = trained.best_epoch;
  student.validation_accuracy = accuracy_on(task.validation, argmax_of(predict(net, task.x)), task.labels);
  return student;
}

VqGraphResult vqgraph(const GraphTask& task, const VqGraphOptions& options, const std::string& title, const TrainPlace& place) {
  validate(describe(const_cast<VqGraphOptions&>(options)));
  VqGraphResult result;
  result.teacher = train_vq_teacher(task, options, title, place.part("teacher"));
  result.student = train_student(task, result.teacher.logits, result.teacher.assignments, result.teacher.codes, options, title,
                                 place.part("student"));
  return result;
}

}  // namespace lighten
