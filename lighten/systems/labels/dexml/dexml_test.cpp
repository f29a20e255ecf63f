#include "lighten/systems/labels/dexml/dexml.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lighten/base/error.h"

namespace lighten {
namespace {

const Positives kPositives = {{0, 3}, {5}, {}, {1, 2, 4}};

/// Each loss straight from its formula, in double.
double by_hand(const std::string& name, const torch::Tensor& s) {
  double total = 0;
  for (size_t i = 0; i < kPositives.size(); ++i) {
    const auto score = [&](int64_t l) { return s[static_cast<int64_t>(i)][l].item<double>(); };
    double row = 0;
    for (const int64_t l : kPositives[i]) {
      double sum = 0;
      for (int64_t n = 0; n < s.size(1); ++n) {
        const bool positive = std::find(kPositives[i].begin(), kPositives[i].end(), n) != kPositives[i].end();
        if (name == "infonce" || !positive || n == l) sum += std::exp(score(n));
      }
      row += (std::log(sum) - score(l)) / static_cast<double>(kPositives[i].size());
    }
    total += row / 3;  // three rows have positives
  }
  return total;
}

TEST(Dexml, LossesEqualTheirFormulas) {
  torch::manual_seed(1);
  const torch::Tensor s = 3 * torch::randn({4, 7}, torch::kDouble);
  EXPECT_NEAR(infonce_loss(s, kPositives).item<double>(), by_hand("infonce", s), 1e-6);
  EXPECT_NEAR(decoupled_softmax_loss(s, kPositives).item<double>(), by_hand("decoupled", s), 1e-6);
  double expected = 0;
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t l = 0; l < 7; ++l) {
      const auto& list = kPositives[static_cast<size_t>(i)];
      const double sign = std::find(list.begin(), list.end(), l) != list.end() ? 1 : -1;
      expected += std::log1p(std::exp(-sign * s[i][l].item<double>())) / 4;
    }
  EXPECT_NEAR(one_vs_rest_loss(s, kPositives).item<double>(), expected, 1e-9);
  // With one positive a row the decoupled loss is InfoNCE.
  const Positives single = {{2}, {0}, {6}, {1}};
  EXPECT_NEAR(decoupled_softmax_loss(s, single).item<double>(), infonce_loss(s, single).item<double>(), 1e-9);
}

TEST(Dexml, AStrongPositiveDoesNotPushAnotherInTheDecoupledLoss) {
  torch::Tensor s = torch::zeros({1, 4}, torch::kDouble);
  s[0][0] = 8;
  s.requires_grad_(true);
  decoupled_softmax_loss(s, {{0, 1}}).backward();
  EXPECT_LT(s.grad()[0][0].item<double>(), 0);  // a positive is only ever pulled up
  const torch::Tensor t = s.detach().clone().requires_grad_(true);
  infonce_loss(t, {{0, 1}}).backward();
  EXPECT_GT(t.grad()[0][0].item<double>(), 0);  // InfoNCE pushes the strong one down
}

TEST(Dexml, SoftTopKSumsToKAndItsImplicitGradientMatchesFiniteDifferences) {
  torch::manual_seed(2);
  torch::Tensor s = 2 * torch::randn({3, 12}, torch::kDouble);
  s.requires_grad_(true);
  const torch::Tensor p = soft_top_k(s, 4, 2), turn = torch::randn({3, 12}, torch::kDouble);
  EXPECT_TRUE(torch::allclose(p.sum(1), torch::full({3}, 4.0, torch::kDouble), 1e-6, 1e-6));
  (p * turn).sum().backward();
  const torch::NoGradGuard no_grad;
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t l = 0; l < 12; ++l) {
      const double before = s[i][l].item<double>(), step = 1e-4;
      s[i][l] = before + step;
      const double up = (soft_top_k(s, 4, 2) * turn).sum().item<double>();
      s[i][l] = before - step;
      const double down = (soft_top_k(s, 4, 2) * turn).sum().item<double>();
      s[i][l] = before;
      EXPECT_NEAR(s.grad()[i][l].item<double>(), (up - down) / (2 * step), 2e-4);
    }
  EXPECT_THROW(soft_top_k(s, 12, 2), OptionError);
}

/// Eight groups: a query's features point to its group, labels too.
MatchTask groups(torch::Tensor& queries, torch::Tensor& labels) {
  torch::manual_seed(3);
  const torch::Tensor center = torch::randn({8, 16}), mixed = torch::randn({16, 16});
  MatchTask task{.queries = 160, .labels = 24, .positives = {}, .train = {}, .validation = {}};
  queries = torch::mm(center.repeat({20, 1}) + 0.3 * torch::randn({160, 16}), mixed);  // another basis than the labels'
  labels = center.repeat({3, 1}) + 0.3 * torch::randn({24, 16});
  queries = queries / queries.norm(2, 1, true);
  labels = labels / labels.norm(2, 1, true);
  for (int32_t i = 0; i < 160; ++i) {
    task.positives.push_back({i % 8, i % 8 + 8, i % 8 + 16});
    (i < 120 ? task.train : task.validation).push_back(i);
  }
  return task;
}

TEST(Dexml, CachedGradientsEqualThoseOfOneBatch) {
  torch::Tensor queries, labels;
  const MatchTask task = groups(queries, labels);
  std::vector<int64_t> batch(50), pool(24);
  std::iota(batch.begin(), batch.end(), int64_t{0});
  std::iota(pool.begin(), pool.end(), int64_t{0});
  for (const std::string loss : {"decoupled", "soft-topk", "infonce", "one-vs-rest"}) {
    MatchTower tower(16, 32, 1);
    {
      const torch::NoGradGuard no_grad;
      tower->w2.normal_(0, 0.1);
    }
    DualEncoder encoder = tower_encoder(tower, queries, labels);
    DexmlOptions options{.loss = loss, .chunk = 7};
    const double value = cached_gradients(task, encoder, batch, pool, options, 5);
    std::vector<torch::Tensor> cached;
    for (auto& parameter : tower->parameters()) {
      cached.push_back(parameter.grad().clone());
      parameter.mutable_grad() = torch::Tensor();
    }
    Positives positives;
    for (const int64_t i : batch)
      positives.emplace_back(task.positives[static_cast<size_t>(i)].begin(), task.positives[static_cast<size_t>(i)].end());
    const torch::Tensor scores =
        torch::mm(tower->forward(queries.slice(0, 0, 50)), tower->forward(labels).t()) / options.temperature;
    const torch::Tensor direct = match_loss(loss, scores, positives);
    direct.backward();
    EXPECT_NEAR(value, direct.item<double>(), 1e-4 * std::abs(value));
    for (size_t i = 0; i < cached.size(); ++i) {
      const torch::Tensor expected = tower->parameters()[i].grad();
      EXPECT_LT((cached[i] - expected).norm().item<double>(), 2e-4 * expected.norm().item<double>() + 1e-7) << loss << " " << i;
    }
  }
}

TEST(Dexml, CachedGradientsRepeatDropout) {
  BertConfig config{.vocab_size = 30, .hidden_size = 12, .layers = 1, .heads = 2, .intermediate_size = 16, .positions = 16};
  config.dropout = 0.3;
  TextEncoder encoder;
  encoder.bert = random_bert(config, 1);
  trainable_layers(encoder.bert, 1);
  encoder.bert->train();
  std::vector<std::vector<int32_t>> texts;
  for (int32_t i = 0; i < 12; ++i) texts.push_back({2, i + 5, (3 * i) % 20 + 4, 3});
  DualEncoder dual = text_dual_encoder(encoder, texts, texts);
  MatchTask task{.queries = 12, .labels = 12, .positives = {}, .train = {}, .validation = {}};
  for (int32_t i = 0; i < 12; ++i) task.positives.push_back({i});
  std::vector<int64_t> all(12);
  std::iota(all.begin(), all.end(), int64_t{0});
  const auto gradient = [&] {
    for (auto& parameter : encoder.bert->parameters()) parameter.mutable_grad() = torch::Tensor();
    const double loss = cached_gradients(task, dual, all, all, {.chunk = 5}, 9);
    return std::pair(loss, encoder.bert->layers[0]->up->weight.grad().clone());
  };
  const auto [first, first_gradient] = gradient();
  const auto [second, second_gradient] = gradient();
  EXPECT_EQ(first, second);
  EXPECT_TRUE(torch::equal(first_gradient, second_gradient));
  // Along the gradient the loss (with the same dropout) falls as it says: the second pass saw what the first saw.
  const torch::NoGradGuard no_grad;
  const double step = 1e-3, slope = first_gradient.square().sum().item<double>();
  encoder.bert->layers[0]->up->weight.add_(first_gradient, -step / std::sqrt(slope));
  torch::AutoGradMode with_grad(true);
  EXPECT_NEAR(gradient().first, first - step * std::sqrt(slope), 0.05 * step * std::sqrt(slope));
}

TEST(Dexml, PiecesAreBoundedByTokensWithPadding) {
  const EncoderSide side{{}, {9, 2, 3, 50, 2, 8, 3}};
  const std::vector<int64_t> rows = {6, 5, 4, 3, 2, 1, 0};  // lengths 3, 8, 2, 50, 3, 2, 9
  using Pieces = std::vector<std::vector<int64_t>>;
  // 2 2 3 | 3 8 | 9 | 50: padded to the longest a piece holds 9, 16, 9 tokens; the last row alone is above the bound.
  EXPECT_EQ(pieces_of(side, rows, 3, 16), (Pieces{{2, 5, 0}, {4, 1}, {6}, {3}}));
  EXPECT_EQ(pieces_of(side, rows, 2, 1000), (Pieces{{2, 5}, {0, 4}, {1, 6}, {3}}));
  EXPECT_EQ(pieces_of({{}, {}}, {5, 3, 9}, 2, 1), (Pieces{{0, 1}, {2}}));  // lengths unknown: in order, by number alone
}

TEST(Dexml, PiecesOfTextsKeepOrderAndGradient) {
  const BertConfig config{
      .vocab_size = 40, .hidden_size = 12, .layers = 2, .heads = 2, .intermediate_size = 16, .positions = 32};
  TextEncoder encoder;
  encoder.bert = random_bert(config, 3);
  trainable_layers(encoder.bert, -1);
  std::vector<std::vector<int32_t>> texts, labels;
  for (int32_t i = 0; i < 20; ++i) {
    texts.emplace_back(static_cast<size_t>(3 + (7 * i) % 23), 4 + i);
    labels.emplace_back(static_cast<size_t>(2 + (5 * i) % 9), 39 - i);
  }
  DualEncoder dual = text_dual_encoder(encoder, texts, labels);
  MatchTask task{.queries = 20, .labels = 20, .positives = {}, .train = {}, .validation = {}};
  Positives positives;
  for (int32_t i = 0; i < 20; ++i) {
    task.positives.push_back({i});
    positives.push_back({i});
  }
  std::vector<int64_t> all(20);
  std::iota(all.begin(), all.end(), int64_t{0});
  {
    const torch::NoGradGuard no_grad;  // all at once and in order, without any pieces
    EXPECT_TRUE(torch::allclose(encode_all(dual.queries, all, 5, 30), dual.queries.encode(all), 1e-4, 1e-5));
  }
  const auto gradient = [&](const auto& backward) {
    for (auto& parameter : encoder.bert->parameters()) parameter.mutable_grad() = torch::Tensor();
    backward();
    std::vector<torch::Tensor> parts;
    for (auto& parameter : encoder.bert->parameters()) parts.push_back(parameter.grad().reshape({-1}));
    return torch::cat(parts);
  };
  const DexmlOptions options{.chunk = 6, .chunk_tokens = 40};
  const torch::Tensor whole = gradient([&] {
    const torch::Tensor scores = torch::mm(dual.queries.encode(all), dual.labels.encode(all).t()) / options.temperature;
    match_loss(options.loss, scores, positives).backward();
  });
  const torch::Tensor pieces = gradient([&] { cached_gradients(task, dual, all, all, options, 9); });
  EXPECT_LT((whole - pieces).norm().item<double>(), 1e-4 * whole.norm().item<double>());
}

TEST(Dexml, LearnsToMatch) {
  torch::Tensor queries, labels;
  const MatchTask task = groups(queries, labels);
  MatchTower tower(16, 64, 1);
  DualEncoder encoder = tower_encoder(tower, queries, labels);
  IdLists truth;
  for (const int64_t i : task.validation) truth.push_back(task.positives[static_cast<size_t>(i)]);
  const auto precision = [&] {
    std::vector<int64_t> all(24);
    std::iota(all.begin(), all.end(), int64_t{0});
    return precision_at(best_labels(encode_all(encoder.queries, task.validation), encode_all(encoder.labels, all), 3), truth,
                        3);
  };
  EXPECT_LT(precision(), 0.5);
  train_dexml(task, encoder, {.pool = 0, .learning_rate = 5e-3, .epochs = 30, .batch = 32, .patience = 0}, "test");
  EXPECT_GT(precision(), 0.9);
}

TEST(Dexml, PoolsHoldPositivesThenHardNegatives) {
  torch::Tensor queries, labels;
  MatchTask task = groups(queries, labels);
  MatchTower tower(16, 32, 1);  // the identity
  DualEncoder encoder =
      tower_encoder(tower, labels.repeat({7, 1}).slice(0, 0, 160), labels);  // query i stands where label i % 24 does
  const torch::Tensor lists = search_shortlists(task, encoder, 5, 64, 2048);
  ASSERT_EQ(lists.sizes(), (std::vector<int64_t>{160, 5}));
  const torch::Tensor scores = torch::mm(labels, labels.t());
  for (int64_t query = 0; query < 160; ++query) {
    const int64_t place = query % 24;
    double last = 2;
    for (int64_t i = 0; i < 5; ++i) {
      const int64_t label = lists[query][i].item<int>();
      if (query >= 120) {
        EXPECT_EQ(label, -1) << "only training queries have lists";
        continue;
      }
      EXPECT_NE(label % 8, query % 8) << "no positive is a hard negative";
      EXPECT_LE(scores[place][label].item<double>(), last + 1e-6) << "best first";
      last = scores[place][label].item<double>();
    }
    if (query >= 120) continue;
    for (int64_t label = 0; label < 24; ++label) {
      const bool listed = (lists[query] == label).any().item<bool>();
      if (!listed && label % 8 != query % 8) {
        EXPECT_LE(scores[place][label].item<double>(), last + 1e-6);
      }
    }
  }
  // With room for a query's positives and its five hard negatives alone, and turns enough, the pool is just these.
  const std::vector<int64_t> batch = {0, 9}, one = {9};
  std::vector<int64_t> expected = {1, 9, 17};
  for (int64_t i = 0; i < 5; ++i) expected.push_back(lists[9][i].item<int>());
  std::sort(expected.begin(), expected.end());
  for (uint64_t seed = 0; seed < 50; ++seed) EXPECT_EQ(pool_of(task, one, 8, seed, lists, 200), expected) << seed;
  EXPECT_NE(pool_of(task, one, 8, 1), expected);
  EXPECT_EQ(pool_of(task, batch, 0, 1).size(), 24);
  EXPECT_EQ(pool_of(task, batch, 4, 1).size(), 6) << "positives are never left out";
}

TEST(Dexml, OneVsRestTrainsABias) {
  torch::Tensor queries, labels;
  const MatchTask task = groups(queries, labels);
  MatchTower tower(16, 64, 1);
  DualEncoder encoder = tower_encoder(tower, queries, labels);
  train_dexml(task, encoder,
              {.loss = "one-vs-rest", .pool = 0, .learning_rate = 5e-3, .epochs = 20, .batch = 32, .patience = 0}, "test");
  ASSERT_TRUE(encoder.bias.defined());
  EXPECT_NE(encoder.bias.item<float>(), -10.0F);
  {
    // With it the mean probability is near the share of positives, an eighth.
    const torch::NoGradGuard no_grad;
    const torch::Tensor scores = torch::mm(tower->forward(queries), tower->forward(labels).t()) / 0.05 + encoder.bias;
    EXPECT_NEAR(torch::sigmoid(scores).mean().item<double>(), 0.125, 0.05);
  }
  DualEncoder other = tower_encoder(tower, queries, labels);
  train_dexml(task, other, {.pool = 0, .epochs = 1, .batch = 32}, "test");
  EXPECT_FALSE(other.bias.defined());
}

TEST(Dexml, RefusesTasksThatCannotBe) {
  MatchTask task{.queries = 2, .labels = 3, .positives = {{0}, {3}}, .train = {0}, .validation = {}};
  EXPECT_THROW(check_task(task), OptionError);
  task.positives = {{}, {1}};
  EXPECT_THROW(check_task(task), OptionError);
  task.positives = {{1}, {1}};
  EXPECT_NO_THROW(check_task(task));
}

}  // namespace
}  // namespace lighten
