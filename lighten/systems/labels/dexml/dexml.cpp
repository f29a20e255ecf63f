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

/// Calls `run` with the rows of each piece, their places and the piece's number.
template <typename Run>
void in_pieces(const EncoderSide& side, const std::vector<int64_t>& rows, int64_t chunk, int64_t tokens, const Run& run) {
  const auto pieces = pieces_of(side, rows, chunk, tokens);
  for (size_t piece = 0; piece < pieces.size(); ++piece) {
    std::vector<int64_t> some;
    for (const int64_t place : pieces[piece]) some.push_back(rows[static_cast<size_t>(place)]);
    run(some, torch::tensor(pieces[piece], torch::kInt64), static_cast<int64_t>(piece));
  }
}

/// `encode` for every piece, put together in the order of `rows`.
template <typename Encode>
torch::Tensor encode_pieces(const EncoderSide& side, const std::vector<int64_t>& rows, int64_t chunk, int64_t tokens,
                            const Encode& encode) {
  const torch::NoGradGuard no_grad;
  torch::Tensor all;
  in_pieces(side, rows, chunk, tokens, [&](const std::vector<int64_t>& some, const torch::Tensor& places, int64_t piece) {
    const torch::Tensor part = encode(some, piece);
    if (!all.defined()) all = torch::empty({std::ssize(rows), part.size(1)}, part.options());
    all.index_copy_(0, places, part);
  });
  return all;
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

std::vector<int64_t> numbers_below(int64_t count) {
  std::vector<int64_t> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

/// What a training carries besides its encoder, as state of a module so that checkpoints hold it.
struct CompanionImpl : torch::nn::Module {
  CompanionImpl(const MatchTask& task, const DexmlOptions& options) {
    if (options.loss == "one-vs-rest") bias = register_parameter("bias", torch::full({}, kBias));
    if (options.hard == 0) return;
    shortlists = register_buffer("shortlists", torch::full({task.queries, options.shortlist}, -1, torch::kInt));
    searched = register_buffer("searched", torch::full({}, -1, torch::kInt64));
  }
  static constexpr double kBias = -10;
  torch::Tensor bias, shortlists;
  torch::Tensor searched;  ///< the epoch before which the shortlists were searched; -1: never
};
TORCH_MODULE(Companion);

}  // namespace

OptionList describe(DexmlOptions& options) {
  return {
      option("loss", options.loss, one_of(std::vector<std::string>{"decoupled", "soft-topk", "infonce", "one-vs-rest"}),
             "what is minimised", "paper"),
      option("temperature", options.temperature, above(0), "of the scores", "release"),
      option("pool", options.pool, range(0, 100'000'000), "labels that each step compares with; 0: all", "paper (all)"),
      option("hard-negatives", options.hard, range(0, 10000),
             "wrong labels from its shortlist that each text brings to its step; 0: none", "Lighten"),
      option("shortlist", options.shortlist, range(1, 10000), "wrong labels that ranked best for a text", "release"),
      option("refresh", options.refresh, range(1, 100000), "epochs between two searches for them", "release"),
      option("hidden", options.hidden, range(1, 65536), "width of the tower on frozen features", "Lighten"),
      option("chunk", options.chunk, range(1, 65536), "texts encoded at once", "Lighten"),
      option("chunk-tokens", options.chunk_tokens, range(1, 100'000'000),
             "and at most so many tokens of them (--tune-layers): less memory, other draws of dropout", "Lighten"),
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
  auto encode = [tower](const torch::Tensor& features) {
    return EncoderSide{[tower, features](const std::vector<int64_t>& rows) mutable {
      return tower->forward(features.index_select(0, torch::tensor(rows, torch::kInt64)));
    }};
  };
  return {encode(query_features), encode(label_features), tower.get()};
}

DualEncoder text_dual_encoder(TextEncoder& encoder, const std::vector<std::vector<int32_t>>& queries,
                              const std::vector<std::vector<int32_t>>& labels) {
  const auto encode = [&encoder](const std::vector<std::vector<int32_t>>& ids) {
    EncoderSide side{[&encoder, &ids](const std::vector<int64_t>& rows) {
      std::vector<std::vector<int32_t>> some;
      for (const int64_t row : rows) some.push_back(ids[static_cast<size_t>(row)]);
      return embed(encoder, some);
    }};
    for (const auto& text : ids) side.lengths.push_back(std::ssize(text));
    return side;
  };
  return {encode(queries), encode(labels), encoder.bert.get()};
}

std::vector<std::vector<int64_t>> pieces_of(const EncoderSide& side, const std::vector<int64_t>& rows, int64_t chunk,
                                            int64_t tokens) {
  std::vector<int64_t> places = numbers_below(std::ssize(rows));
  const auto length = [&](int64_t place) {
    return side.lengths.empty() ? int64_t{0} : side.lengths[static_cast<size_t>(rows[static_cast<size_t>(place)])];
  };
  std::stable_sort(places.begin(), places.end(), [&](int64_t a, int64_t b) { return length(a) < length(b); });
  std::vector<std::vector<int64_t>> pieces;
  for (const int64_t place : places) {
    // Ascending: the new row is the longest of its piece, to which the others are padded.
    if (pieces.empty() || std::ssize(pieces.back()) >= chunk || (std::ssize(pieces.back()) + 1) * length(place) > tokens)
      pieces.emplace_back();
    pieces.back().push_back(place);
  }
  return pieces;
}

std::vector<int64_t> pool_of(const MatchTask& task, std::span<const int64_t> queries, int64_t size, uint64_t seed,
                             const torch::Tensor& shortlists, int64_t hard) {
  if (size <= 0 || size >= task.labels) return numbers_below(task.labels);
  std::vector<int64_t> pool;
  std::vector<bool> taken(static_cast<size_t>(task.labels), false);
  const auto take = [&](int64_t label) {
    if (taken[static_cast<size_t>(label)]) return;
    taken[static_cast<size_t>(label)] = true;
    pool.push_back(label);
  };
  for (const int64_t query : queries)
    for (const int32_t label : task.positives[static_cast<size_t>(query)]) take(label);
  Random random(seed);
  if (shortlists.defined()) {
    const auto rows = shortlists.accessor<int32_t, 2>();
    for (int64_t turn = 0; turn < hard; ++turn)
      for (const int64_t query : queries) {
        if (std::ssize(pool) >= size) break;
        const int32_t label = rows[query][static_cast<int64_t>(random.below(static_cast<uint64_t>(rows.size(1))))];
        if (label >= 0) take(label);
      }
  }
  while (std::ssize(pool) < size) take(static_cast<int64_t>(random.below(static_cast<uint64_t>(task.labels))));
  std::sort(pool.begin(), pool.end());
  return pool;
}

torch::Tensor search_shortlists(const MatchTask& task, const DualEncoder& encoder, int64_t k, int64_t chunk, int64_t tokens) {
  const torch::Tensor shortlists = torch::full({task.queries, k}, -1, torch::kInt);
  auto rows = shortlists.accessor<int32_t, 2>();
  size_t most = 0;
  for (const int64_t query : task.train) most = std::max(most, task.positives[static_cast<size_t>(query)].size());
  const IdLists best = best_labels(encode_all(encoder.queries, task.train, chunk, tokens),
                                   encode_all(encoder.labels, numbers_below(task.labels), chunk, tokens),
                                   std::min(task.labels, k + static_cast<int64_t>(most)));
  for (size_t i = 0; i < best.size(); ++i) {
    const auto& own = task.positives[static_cast<size_t>(task.train[i])];
    int64_t kept = 0;
    for (const int32_t label : best[i])
      if (kept < k && !std::binary_search(own.begin(), own.end(), label)) rows[task.train[i]][kept++] = label;
  }
  return shortlists;
}

torch::Tensor encode_all(const EncoderSide& side, const std::vector<int64_t>& rows, int64_t chunk, int64_t tokens) {
  return encode_pieces(side, rows, chunk, tokens, [&](const std::vector<int64_t>& some, int64_t) { return side.encode(some); });
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
  // A piece's random numbers (dropout) come from its own seed, so that the second pass repeats the first.
  const auto encode = [&](const EncoderSide& side, const std::vector<int64_t>& some, int64_t piece) {
    torch::manual_seed(derived_seed(seed, static_cast<uint64_t>(&side == &encoder.labels), static_cast<uint64_t>(piece)));
    return side.encode(some);
  };
  const auto without_graph = [&](const EncoderSide& side, const std::vector<int64_t>& rows) {
    return encode_pieces(side, rows, options.chunk, options.chunk_tokens,
                         [&](const auto& some, int64_t piece) { return encode(side, some, piece); })
        .requires_grad_(true);
  };
  const torch::Tensor x = without_graph(encoder.queries, queries), y = without_graph(encoder.labels, pool);
  torch::Tensor scores = product(x, y) / options.temperature;
  if (encoder.bias.defined()) scores = scores + encoder.bias;
  const torch::Tensor loss = match_loss(options.loss, scores, positives_in(task, queries, pool));
  loss.backward();
  const auto send_back = [&](const EncoderSide& side, const std::vector<int64_t>& rows, const torch::Tensor& gradient) {
    in_pieces(side, rows, options.chunk, options.chunk_tokens,
              [&](const std::vector<int64_t>& some, const torch::Tensor& places, int64_t piece) {
                encode(side, some, piece).backward(gradient.index_select(0, places));
              });
  };
  send_back(encoder.queries, queries, x.grad());
  send_back(encoder.labels, pool, y.grad());
  return loss.item<double>();
}

void train_dexml(const MatchTask& task, DualEncoder& encoder, const DexmlOptions& options, const std::string& title,
                 const TrainPlace& place) {
  check_task(task);
  validate(describe(const_cast<DexmlOptions&>(options)));
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "encoder", .module = encoder.module}};
  Companion companion(task, options);
  encoder.bias = companion->bias;
  training.modules.push_back({.name = "companion", .module = companion.get(), .rate_scale = 100, .weight_decay = 0});
  for (const int64_t query : task.train)
    if (!task.positives[static_cast<size_t>(query)].empty()) training.samples.push_back(query);
  training.loss = [&](const TrainStep& step) {
    const std::vector<int64_t> queries(step.samples.begin(), step.samples.end());
    const std::vector<int64_t> pool =
        pool_of(task, step.samples, options.pool, derived_seed(step.seed, 3), companion->shortlists, options.hard);
    // The gradients are in place already; the loop gets a value whose own backward adds nothing.
    return torch::tensor(static_cast<float>(cached_gradients(task, encoder, queries, pool, options, step.seed)))
        .requires_grad_(true);
  };
  if (options.hard > 0)
    training.before_epoch = [&](int64_t epoch) {
      // A resumed epoch keeps the shortlists it began with.
      if (epoch == 0 || epoch % options.refresh != 0 || companion->searched.item<int64_t>() == epoch) return;
      encoder.module->eval();
      companion->shortlists.copy_(search_shortlists(task, encoder, options.shortlist, options.chunk, options.chunk_tokens));
      companion->searched.fill_(epoch);
      encoder.module->train();
    };
  const std::vector<int64_t> all_labels = numbers_below(task.labels);
  IdLists truth;
  for (const int64_t query : task.validation) truth.push_back(task.positives[static_cast<size_t>(query)]);
  const bool judge = std::any_of(truth.begin(), truth.end(), [](const auto& list) { return !list.empty(); });
  if (judge)
    training.validate = [&] {
      return precision_at(best_labels(encode_all(encoder.queries, task.validation, options.chunk, options.chunk_tokens),
                                      encode_all(encoder.labels, all_labels, options.chunk, options.chunk_tokens), 5),
                          truth, 5);
    };
  const int64_t batch = std::min<int64_t>(options.batch, std::ssize(training.samples));
  train(training,
        {.epochs = options.epochs,
         .batch_size = batch,
         .optimizer = "adamw",
         .learning_rate = options.learning_rate,
         .weight_decay = options.weight_decay,
         .schedule = "cosine",
         .warmup_steps = std::max<int64_t>(1, options.epochs * (std::ssize(training.samples) / batch) / 10),
         .patience = options.patience,
         .seed = options.seed},
        place);
}

}  // namespace lighten
