#include "lighten/systems/labels/dexml/dexml.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/nn/product.h"
#include "lighten/train/loader.h"
#include "lighten/train/loop.h"

namespace lighten {
namespace {

/// Calls `run` for pieces of `rows`.
template <typename Run>
void in_chunks(const std::vector<int64_t>& rows, int64_t chunk, const Run& run) {
  for (int64_t at = 0; at < std::ssize(rows); at += chunk) {
    const int64_t end = std::min(at + chunk, std::ssize(rows));
    run(std::vector<int64_t>(rows.begin() + at, rows.begin() + end), at);
  }
}

/// The labels of a step: all positives of its queries, then others drawn without repeats up to `size`. Ascending.
std::vector<int64_t> pool_of(const MatchTask& task, std::span<const int64_t> queries, int64_t size, uint64_t seed) {
  std::vector<int64_t> pool;
  if (size <= 0 || size >= task.labels) {
    pool.resize(static_cast<size_t>(task.labels));
    std::iota(pool.begin(), pool.end(), int64_t{0});
    return pool;
  }
  std::vector<bool> taken(static_cast<size_t>(task.labels), false);
  const auto take = [&](int64_t label) {
    if (taken[static_cast<size_t>(label)]) return;
    taken[static_cast<size_t>(label)] = true;
    pool.push_back(label);
  };
  for (const int64_t query : queries)
    for (const int32_t label : task.positives[static_cast<size_t>(query)]) take(label);
  Random random(seed);
  while (std::ssize(pool) < size) take(static_cast<int64_t>(random.below(static_cast<uint64_t>(task.labels))));
  std::sort(pool.begin(), pool.end());
  return pool;
}

Positives positives_in(const MatchTask& task, const std::vector<int64_t>& queries, const std::vector<int64_t>& pool) {
  std::unordered_map<int64_t, int64_t> place;
  for (size_t i = 0; i < pool.size(); ++i) place[pool[i]] = static_cast<int64_t>(i);
  Positives positives;
  for (const int64_t query : queries) {
    positives.emplace_back();
    for (const int32_t label : task.positives[static_cast<size_t>(query)])
      if (const auto it = place.find(label); it != place.end()) positives.back().push_back(it->second);
  }
  return positives;
}

torch::Tensor unit(const torch::Tensor& x) { return x / x.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12); }

}  // namespace

OptionList describe(DexmlOptions& options) {
  return {
      option("loss", options.loss, one_of(std::vector<std::string>{"decoupled", "soft-topk", "infonce", "one-vs-rest"}),
             "what is minimised", "paper"),
      option("temperature", options.temperature, above(0), "of the scores", "release"),
      option("pool", options.pool, range(0, 100'000'000), "labels that each step compares with; 0: all", "paper (all)"),
      option("hidden", options.hidden, range(1, 65536), "width of the tower on frozen features", "Lighten"),
      option("chunk", options.chunk, range(1, 65536), "texts encoded with a graph at once", "Lighten"),
      option("learning-rate", options.learning_rate, above(0), "of AdamW",
             "Lighten (release: 5e-5 to 3e-4 for whole encoders)"),
      option("weight-decay", options.weight_decay, range(0, 10), "of AdamW", "release"),
      option("epochs", options.epochs, range(1, 100000), "at most", "release (100)"),
      option("batch", options.batch, range(1, 1'000'000), "queries in a step", "release (512 to 3,000)"),
      option("patience", options.patience, range(0, 100000), "epochs without a better validation score", "Lighten"),
  };
}

MatchTowerImpl::MatchTowerImpl(int64_t width, int64_t hidden, uint64_t seed) {
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  const double limit = std::sqrt(6.0 / static_cast<double>(width));
  w1 = register_parameter("w1", torch::empty({hidden, width}).uniform_(-limit, limit, generator));
  b1 = register_parameter("b1", torch::zeros({hidden}));
  w2 = register_parameter("w2", torch::zeros({width, hidden}));
  b2 = register_parameter("b2", torch::zeros({width}));
}

torch::Tensor MatchTowerImpl::forward(const torch::Tensor& x) {
  return unit(x + product(torch::gelu(product(x, w1, b1)), w2, b2));
}

void check_task(const MatchTask& task) {
  if (std::ssize(task.positives) != task.queries)
    throw_error<OptionError>("{} lists of labels for {} texts", task.positives.size(), task.queries);
  bool any = false;
  for (const auto* queries : {&task.train, &task.validation})
    for (const int64_t query : *queries) {
      if (query < 0 || query >= task.queries) throw_error<OptionError>("text {} of {}", query, task.queries);
      any = any || (queries == &task.train && !task.positives[static_cast<size_t>(query)].empty());
    }
  for (const auto& list : task.positives)
    for (const int32_t label : list)
      if (label < 0 || label >= task.labels) throw_error<OptionError>("label {} of {}", label, task.labels);
  if (!any) throw OptionError("no training text has a label");
}

DualEncoder tower_encoder(MatchTower& tower, const torch::Tensor& query_features, const torch::Tensor& label_features) {
  auto encode = [tower](const torch::Tensor& features) mutable {
    return [tower, features](const std::vector<int64_t>& rows) mutable {
      return tower->forward(features.index_select(0, torch::tensor(rows, torch::kInt64)));
    };
  };
  return {encode(query_features), encode(label_features), tower.get()};
}

DualEncoder text_dual_encoder(TextEncoder& encoder, const std::vector<std::vector<int32_t>>& queries,
                              const std::vector<std::vector<int32_t>>& labels) {
  const auto encode = [&encoder](const std::vector<std::vector<int32_t>>& ids) {
    return [&encoder, &ids](const std::vector<int64_t>& rows) {
      std::vector<std::vector<int32_t>> some;
      for (const int64_t row : rows) some.push_back(ids[static_cast<size_t>(row)]);
      return embed(encoder, some);
    };
  };
  return {encode(queries), encode(labels), encoder.bert.get()};
}

torch::Tensor encode_all(const std::function<torch::Tensor(const std::vector<int64_t>&)>& encode,
                         const std::vector<int64_t>& rows, int64_t chunk) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> parts;
  in_chunks(rows, chunk, [&](const std::vector<int64_t>& some, int64_t) { parts.push_back(encode(some)); });
  return torch::cat(parts);
}

IdLists best_labels(const torch::Tensor& queries, const torch::Tensor& labels, int64_t k) {
  const torch::NoGradGuard no_grad;
  IdLists lists;
  for (int64_t at = 0; at < queries.size(0); at += 256) {
    const torch::Tensor scores = product(queries.slice(0, at, at + 256), labels).contiguous();
    const IdLists some = top_k_rows({scores.data_ptr<float>(), static_cast<size_t>(scores.numel())}, labels.size(0), k);
    lists.insert(lists.end(), some.begin(), some.end());
  }
  return lists;
}

double cached_gradients(const MatchTask& task, DualEncoder& encoder, const std::vector<int64_t>& queries,
                        const std::vector<int64_t>& pool, const DexmlOptions& options, uint64_t seed) {
  // A chunk's random numbers (dropout) come from its own seed, so that the second pass repeats the first.
  const auto seeded = [&](int64_t side, int64_t at) {
    torch::manual_seed(derived_seed(seed, static_cast<uint64_t>(side), static_cast<uint64_t>(at)));
  };
  const auto without_graph = [&](const auto& encode, const std::vector<int64_t>& rows, int64_t side) {
    const torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> parts;
    in_chunks(rows, options.chunk, [&](const std::vector<int64_t>& some, int64_t at) {
      seeded(side, at);
      parts.push_back(encode(some));
    });
    return torch::cat(parts).requires_grad_(true);
  };
  const torch::Tensor x = without_graph(encoder.queries, queries, 0), y = without_graph(encoder.labels, pool, 1);
  const torch::Tensor loss = match_loss(options.loss, product(x, y) / options.temperature, positives_in(task, queries, pool));
  loss.backward();
  const auto send_back = [&](const auto& encode, const std::vector<int64_t>& rows, int64_t side,
                             const torch::Tensor& gradient) {
    in_chunks(rows, options.chunk, [&](const std::vector<int64_t>& some, int64_t at) {
      seeded(side, at);
      encode(some).backward(gradient.slice(0, at, at + std::ssize(some)));
    });
  };
  send_back(encoder.queries, queries, 0, x.grad());
  send_back(encoder.labels, pool, 1, y.grad());
  return loss.item<double>();
}

void train_dexml(const MatchTask& task, DualEncoder& encoder, const DexmlOptions& options, const std::string& title) {
  check_task(task);
  validate(describe(const_cast<DexmlOptions&>(options)));
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "encoder", .module = encoder.module}};
  for (const int64_t query : task.train)
    if (!task.positives[static_cast<size_t>(query)].empty()) training.samples.push_back(query);
  training.loss = [&](const TrainStep& step) {
    const std::vector<int64_t> queries(step.samples.begin(), step.samples.end());
    const std::vector<int64_t> pool = pool_of(task, step.samples, options.pool, derived_seed(step.seed, 3));
    // The gradients are in place already; the loop gets a value whose own backward adds nothing.
    return torch::tensor(static_cast<float>(cached_gradients(task, encoder, queries, pool, options, step.seed)))
        .requires_grad_(true);
  };
  std::vector<int64_t> all_labels(static_cast<size_t>(task.labels));
  std::iota(all_labels.begin(), all_labels.end(), int64_t{0});
  IdLists truth;
  for (const int64_t query : task.validation) truth.push_back(task.positives[static_cast<size_t>(query)]);
  const bool judge = std::any_of(truth.begin(), truth.end(), [](const auto& list) { return !list.empty(); });
  if (judge)
    training.validate = [&] {
      return precision_at(best_labels(encode_all(encoder.queries, task.validation), encode_all(encoder.labels, all_labels), 5),
                          truth, 5);
    };
  const int64_t batch = std::min<int64_t>(options.batch, std::ssize(training.samples));
  train(training, {.epochs = options.epochs,
                   .batch_size = batch,
                   .optimizer = "adamw",
                   .learning_rate = options.learning_rate,
                   .weight_decay = options.weight_decay,
                   .schedule = "cosine",
                   .warmup_steps = std::max<int64_t>(1, options.epochs * (std::ssize(training.samples) / batch) / 10),
                   .patience = options.patience,
                   .seed = options.seed});
}

}  // namespace lighten
