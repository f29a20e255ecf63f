#include "lighten/systems/labels/bebr/bebr.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/systems/labels/bebr/binarizer.h"

namespace lighten {
namespace {

class Bebr : public testing::Test {
 protected:
  void SetUp() override { set_quiet(true); }
  void TearDown() override { set_quiet(false); }
  ThreadPool pool_{2};

  /// Vectors around `centres` random directions; queries stand `spread` beside their documents.
  static void clustered(int64_t n, int64_t d, int centres, uint64_t seed, std::vector<float>& queries,
                        std::vector<float>& documents) {
    Random random(seed);
    std::vector<std::vector<double>> centre(static_cast<size_t>(centres), std::vector<double>(static_cast<size_t>(d)));
    for (auto& c : centre)
      for (double& value : c) value = random.normal();
    for (int64_t i = 0; i < n; ++i) {
      const auto& c = centre[random.below(static_cast<uint64_t>(centres))];
      for (int64_t j = 0; j < d; ++j) {
        const double own = c[static_cast<size_t>(j)] + random.normal();
        documents.push_back(static_cast<float>(own));
        queries.push_back(static_cast<float>(own + 0.4 * random.normal()));
      }
    }
  }

  /// Share of queries whose own document is the nearest by code cosine.
  double found_first(const CodeEncoder& encoder, const std::vector<float>& queries, const std::vector<float>& documents) {
    const CodeWriter writer(encoder);
    const int64_t n = static_cast<int64_t>(documents.size()) / encoder.inputs, m = encoder.shape.dimensions;
    std::vector<uint8_t> q(static_cast<size_t>(n * writer.format().row_bytes())), d = q;
    writer.encode(queries.data(), n, q.data(), pool_);
    writer.encode(documents.data(), n, d.data(), pool_);
    std::vector<float> x(static_cast<size_t>(n * m)), y = x;
    for (int64_t i = 0; i < n; ++i) {
      unit_vector_of_row(writer.format(), q.data() + i * writer.format().row_bytes(), x.data() + i * m);
      unit_vector_of_row(writer.format(), d.data() + i * writer.format().row_bytes(), y.data() + i * m);
    }
    const torch::Tensor s = torch::from_blob(x.data(), {n, m}).matmul(torch::from_blob(y.data(), {n, m}).t());
    return (s.argmax(1) == torch::arange(n)).to(torch::kFloat64).mean().item<double>();
  }
};

TEST_F(Bebr, SignPassesGradientsInsideOne) {
  const torch::Tensor x = torch::tensor({-2.0, -1.0, -0.5, 0.0, 0.5, 1.5}, torch::requires_grad());
  const torch::Tensor y = bebr::straight_through_sign(x);
  EXPECT_TRUE(torch::equal(y, torch::tensor({-1.0, -1.0, -1.0, 1.0, 1.0, 1.0}).to(y.dtype())));
  y.sum().backward();
  EXPECT_TRUE(torch::equal(x.grad(), torch::tensor({0.0, 1.0, 1.0, 1.0, 1.0, 0.0}).to(y.dtype())));
}

TEST_F(Bebr, LossIsMinusLogOfThePositivesShare) {
  const torch::Tensor loss = bebr::contrastive_loss(torch::tensor({0.5}), torch::tensor({{0.1, -0.3}}), 0.5);
  const double p = std::exp(1.0), others = std::exp(0.2) + std::exp(-0.6);
  EXPECT_NEAR(loss.item<double>(), -std::log(p / (p + others)), 1e-6);
}

TEST_F(Bebr, TheIndexRunsWhatWasTrained) {
  BebrOptions options{.dimensions = 24, .loops = 3, .hidden = 20};
  torch::manual_seed(1);
  bebr::Binarizer net(16, options);
  net->train();
  for (int i = 0; i < 5; ++i) net->forward(torch::randn({64, 16}) * 2 + 1);  // batch norms with means and variances
  net->eval();
  const torch::Tensor x =
      torch::nn::functional::normalize(torch::randn({200, 16}), torch::nn::functional::NormalizeFuncOptions().dim(1));
  const torch::Tensor expected = net->forward(x).detach().contiguous();
  const CodeWriter writer(net->encoder());
  std::vector<uint8_t> rows(static_cast<size_t>(200 * writer.format().row_bytes())), levels(24);
  writer.encode(x.data_ptr<float>(), 200, rows.data(), pool_);
  int differing = 0;
  for (int64_t i = 0; i < 200; ++i) {
    levels_of_row(writer.format(), rows.data() + i * writer.format().row_bytes(), levels.data());
    for (int64_t d = 0; d < 24; ++d)
      differing += std::abs((2 * levels[static_cast<size_t>(d)] - 15) / 8.0 - expected[i][d].item<double>()) > 1e-6 ? 1 : 0;
  }
  EXPECT_LE(differing, 5);  // of 4800: a pre-activation within rounding of zero may fall on the other side
}

TEST_F(Bebr, WarmStartIsTheSignsOfARotation) {
  torch::manual_seed(4);
  const int64_t n = 3000, d = 16;
  const torch::Tensor turn = std::get<0>(torch::linalg_qr(torch::randn({d, d})));
  const torch::Tensor x =
      torch::nn::functional::normalize(torch::randn({n, d}), torch::nn::functional::NormalizeFuncOptions().dim(1));
  const torch::Tensor y = x.matmul(turn.t());
  bebr::Binarizer net(d, BebrOptions{.dimensions = d, .loops = 3});
  net->warm_start(x, y * std::sqrt(static_cast<double>(d)));
  net->eval();
  const torch::Tensor code = net->forward(x).detach();
  EXPECT_LT(((code >= 0) != (y >= 0)).to(torch::kFloat64).mean().item<double>(), 0.01);
  // Four bits a dimension say far more about y than its signs: cosine of codes and vectors.
  const auto similar = [&](const torch::Tensor& b) { return torch::cosine_similarity(b, y).mean().item<double>(); };
  EXPECT_NEAR(similar(torch::sign(y)), std::sqrt(2 / M_PI), 0.02);  // E|z| of a normal z
  EXPECT_GT(similar(code), 0.98);
}

TEST_F(Bebr, WithoutTrainingMoreBitsStayCloserToTheVectors) {
  std::vector<float> queries, documents;
  clustered(600, 32, 600, 1, queries, documents);
  const BebrPairs pairs{.columns = 32, .queries = queries, .documents = documents};
  const auto found = [&](int64_t dimensions, int loops) {
    return found_first(train_bebr(pairs, {.dimensions = dimensions, .loops = loops, .epochs = 0}, "test"), queries, documents);
  };
  EXPECT_GT(found(16, 3), found(16, 0) + 0.2);
  EXPECT_GT(found(16, 3), found_first(random_signs(32, 16, 1), queries, documents) + 0.2);
  EXPECT_GT(found(48, 1), found(16, 1));  // more dimensions than columns
}

TEST_F(Bebr, PairsTeachWhatMatters) {
  // Queries know the first 12 columns of their document; the other 20 are noise.
  std::vector<float> queries, documents, test_queries, test_documents;
  Random random(7);
  const auto draw = [&](int n, std::vector<float>& q, std::vector<float>& d) {
    for (int i = 0; i < n * 32; ++i) {
      d.push_back(static_cast<float>(random.normal()));
      q.push_back(static_cast<float>(i % 32 < 12 ? d.back() + 0.3 * random.normal() : random.normal()));
    }
  };
  draw(2000, queries, documents);
  draw(300, test_queries, test_documents);
  const BebrPairs pairs{.columns = 32, .queries = queries, .documents = documents};
  const BebrOptions options{
      .dimensions = 16, .loops = 2, .epochs = 6, .batch_size = 128, .learning_rate = 2e-3, .queue = 4, .seed = 3};
  BebrOptions untrained = options;
  untrained.epochs = 0;
  const double learned = found_first(train_bebr(pairs, options, "test"), test_queries, test_documents);
  const double before = found_first(train_bebr(pairs, untrained, "test"), test_queries, test_documents);
  const double signs = found_first(random_signs(32, 48, 3), test_queries, test_documents);
  RecordProperty("found", fmt::format("learned {}, before {}, signs {}", learned, before, signs));
  EXPECT_GT(learned, 1.5 * before);
  EXPECT_GT(learned, 1.5 * signs);
}

TEST_F(Bebr, WithoutQueriesNoisyCopiesArePartners) {
  std::vector<float> queries, documents;
  clustered(500, 32, 500, 1, queries, documents);
  const BebrPairs alone{.columns = 32, .queries = {}, .documents = documents};
  const BebrOptions options{.dimensions = 16, .loops = 1, .epochs = 3, .batch_size = 100, .learning_rate = 1e-3, .queue = 4};
  EXPECT_GT(found_first(train_bebr(alone, options, "test"), queries, documents),
            found_first(random_signs(32, 32, 3), queries, documents));
}

TEST_F(Bebr, ASeedGivesTheSameEncoderAgain) {
  std::vector<float> queries, documents;
  clustered(200, 16, 10, 1, queries, documents);
  const BebrPairs pairs{.columns = 16, .queries = queries, .documents = documents};
  const BebrOptions options{.dimensions = 8, .loops = 1, .epochs = 2, .batch_size = 50, .seed = 5};
  const CodeEncoder a = train_bebr(pairs, options, "test"), b = train_bebr(pairs, options, "test");
  EXPECT_EQ(a.binarizers[1][1].weight, b.binarizers[1][1].weight);
  EXPECT_NE(a.binarizers[1][1].weight,
            train_bebr(pairs, {.dimensions = 8, .loops = 1, .epochs = 2, .batch_size = 50, .seed = 6}, "test")
                .binarizers[1][1]
                .weight);
}

TEST_F(Bebr, NewQueriesFindOldCodes) {
  std::vector<float> queries, documents;
  clustered(500, 24, 250, 2, queries, documents);
  // Old vectors: another view of the same things, the first half of the columns turned around.
  std::vector<float> old_queries = queries, old_documents = documents;
  for (auto* view : {&old_queries, &old_documents})
    for (size_t i = 0; i < view->size(); ++i)
      if (i % 24 < 12) (*view)[i] = -(*view)[i];
  const BebrOptions options{
      .dimensions = 32, .loops = 1, .epochs = 3, .batch_size = 100, .learning_rate = 1e-3, .queue = 4, .seed = 1};
  const CodeEncoder old = train_bebr({.columns = 24, .queries = old_queries, .documents = old_documents}, options, "old");
  const CodeWriter writer(old);
  std::vector<uint8_t> rows(static_cast<size_t>(500 * writer.format().row_bytes()));
  writer.encode(old_documents.data(), 500, rows.data(), pool_);
  const OldCodes codes{writer.format(), rows};
  const BebrPairs pairs{.columns = 24, .queries = queries, .documents = documents};
  const auto finds = [&](const CodeEncoder& encoder) {
    const CodeWriter query_writer(encoder);
    std::vector<uint8_t> q(rows.size());
    query_writer.encode(queries.data(), 500, q.data(), pool_);
    std::vector<float> x(500 * 32), y = x;
    for (int64_t i = 0; i < 500; ++i) {
      unit_vector_of_row(codes.format, q.data() + i * codes.format.row_bytes(), x.data() + i * 32);
      unit_vector_of_row(codes.format, rows.data() + i * codes.format.row_bytes(), y.data() + i * 32);
    }
    const torch::Tensor s = torch::from_blob(x.data(), {500, 32}).matmul(torch::from_blob(y.data(), {500, 32}).t());
    return (s.argmax(1) == torch::arange(500)).to(torch::kFloat64).mean().item<double>();
  };
  EXPECT_GT(finds(train_bebr(pairs, options, "new", &codes)), 0.3);
  EXPECT_LT(finds(train_bebr(pairs, options, "new")), 0.02);  // two encoders that never met
}

TEST_F(Bebr, RefusesWhatCannotBe) {
  std::vector<float> few(10 * 4, 1.0f), enough(40 * 4, 1.0f);
  EXPECT_THROW(train_bebr({.columns = 4, .queries = {}, .documents = few}, {}, "x"), OptionError);
  EXPECT_THROW(train_bebr({.columns = 4, .queries = few, .documents = enough}, {}, "x"), OptionError);
  EXPECT_THROW(train_bebr({.columns = 4, .queries = {}, .documents = enough}, {.loops = 4}, "x"), OptionError);
  const OldCodes other{code_format(8, 1), {}};
  EXPECT_THROW(train_bebr({.columns = 4, .queries = {}, .documents = enough}, {.dimensions = 16, .loops = 1}, "x", &other),
               OptionError);
  EXPECT_THROW(train_itq(enough, 4, 5, 1, 0), OptionError);
}

TEST_F(Bebr, ItqTurnsTheAxesTowardsTheSigns) {
  // Points at the corners of a turned square: after the right turn each corner has its own two bits and the loss is zero.
  std::vector<float> x;
  Random random(1);
  for (int i = 0; i < 400; ++i) {
    const double a = 0.3, u = random.below(2) == 0 ? 1 : -1, v = random.below(2) == 0 ? 1 : -1;
    x.push_back(static_cast<float>(u * std::cos(a) - v * std::sin(a) + 0.02 * random.normal()));
    x.push_back(static_cast<float>(u * std::sin(a) + v * std::cos(a) + 0.02 * random.normal()));
  }
  const CodeEncoder itq = train_itq(x, 2, 2, 50, 1);
  for (int i = 0; i < 400; ++i)
    for (int bit = 0; bit < 2; ++bit) {
      const double y = itq.binarizers[0][0].weight[static_cast<size_t>(bit * 2)] * x[static_cast<size_t>(i * 2)] +
                       itq.binarizers[0][0].weight[static_cast<size_t>(bit * 2 + 1)] * x[static_cast<size_t>(i * 2 + 1)];
      ASSERT_NEAR(std::abs(y), 1, 0.15);  // far from the border, where it would be near 0 without the turn
    }
}

}  // namespace
}  // namespace lighten
