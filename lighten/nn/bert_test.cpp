#include "lighten/nn/bert.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"

namespace lighten {
namespace {

BertConfig tiny() {
  BertConfig config;
  config.vocab_size = 23;
  config.hidden_size = 12;
  config.layers = 2;
  config.heads = 3;
  config.intermediate_size = 20;
  config.positions = 10;
  config.dropout = 0;
  return config;
}

/// Weights large enough that attention is sharp.
Bert sharp_bert(uint64_t seed) {
  Bert bert = random_bert(tiny(), seed);
  const torch::NoGradGuard no_grad;
  for (auto& entry : bert->named_parameters())
    if (entry.key().find("norm") == std::string::npos) entry.value().normal_(0, 0.4);
  return bert;
}

double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

using Rows = std::vector<std::vector<double>>;

/// Plain loops over one text, from the equations of the paper.
struct Naive {
  const Bert& bert;

  static Rows linear(const Rows& x, const AdaptableLinear& layer) {
    Rows y(x.size(), std::vector<double>(static_cast<size_t>(layer->weight.size(0))));
    for (size_t t = 0; t < x.size(); ++t)
      for (size_t o = 0; o < y[t].size(); ++o) {
        y[t][o] = layer->bias[static_cast<int64_t>(o)].item<double>();
        for (size_t i = 0; i < x[t].size(); ++i)
          y[t][o] += layer->weight[static_cast<int64_t>(o)][static_cast<int64_t>(i)].item<double>() * x[t][i];
      }
    return y;
  }
  static Rows normalised(Rows x, const torch::nn::LayerNorm& norm) {
    for (auto& row : x) {
      double mean = 0, variance = 0;
      for (const double v : row) mean += v / static_cast<double>(row.size());
      for (const double v : row) variance += (v - mean) * (v - mean) / static_cast<double>(row.size());
      for (size_t i = 0; i < row.size(); ++i)
        row[i] = (row[i] - mean) / std::sqrt(variance + 1e-12) * norm->weight[static_cast<int64_t>(i)].item<double>() +
                 norm->bias[static_cast<int64_t>(i)].item<double>();
    }
    return x;
  }
  static Rows sum(const Rows& a, Rows b) {
    for (size_t t = 0; t < a.size(); ++t)
      for (size_t i = 0; i < a[t].size(); ++i) b[t][i] += a[t][i];
    return b;
  }
  static Rows attention(const Rows& q, const Rows& k, const Rows& v, size_t heads) {
    Rows context(q.size(), std::vector<double>(q[0].size()));
    const size_t width = q[0].size() / heads;
    for (size_t h = 0; h < heads; ++h)
      for (size_t t = 0; t < q.size(); ++t) {
        std::vector<double> weight(q.size());
        double total = 0;
        for (size_t s = 0; s < q.size(); ++s) {
          double dot = 0;
          for (size_t i = h * width; i < (h + 1) * width; ++i) dot += q[t][i] * k[s][i];
          total += weight[s] = std::exp(dot / std::sqrt(static_cast<double>(width)));
        }
        for (size_t s = 0; s < q.size(); ++s)
          for (size_t i = h * width; i < (h + 1) * width; ++i) context[t][i] += weight[s] / total * v[s][i];
      }
    return context;
  }
  Rows forward(const std::vector<int64_t>& ids) const {
    Rows x;
    for (size_t t = 0; t < ids.size(); ++t) {
      const torch::Tensor row = bert->words[ids[t]] + bert->positions[static_cast<int64_t>(t)] + bert->types[0];
      x.emplace_back(row.data_ptr<float>(), row.data_ptr<float>() + row.numel());
    }
    x = normalised(x, bert->norm);
    for (const BertLayer& layer : bert->layers) {
      const Rows context = attention(linear(x, layer->query), linear(x, layer->key), linear(x, layer->value), 3);
      x = normalised(sum(x, linear(context, layer->output)), layer->attention_norm);
      Rows inner = linear(x, layer->up);
      for (auto& row : inner)
        for (double& v : row) v = gelu(v);
      x = normalised(sum(x, linear(inner, layer->down)), layer->output_norm);
    }
    return x;
  }
};

TEST(Bert, EqualsPlainLoopsAndPaddingIsNotSeen) {
  Bert bert = sharp_bert(1);
  const std::vector<std::vector<int64_t>> texts = {{2, 5, 7, 11, 3}, {2, 22, 3}, {2, 0, 1, 3}};
  const torch::Tensor ids = torch::full({3, 5}, 9, torch::kInt64);
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < texts.size(); ++i) {
    for (size_t t = 0; t < texts[i].size(); ++t) ids[static_cast<int64_t>(i)][static_cast<int64_t>(t)] = texts[i][t];
    lengths.push_back(static_cast<int64_t>(texts[i].size()));
  }
  const torch::Tensor hidden = bert->forward(ids, lengths);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Rows expected = Naive{bert}.forward(texts[i]);
    for (size_t t = 0; t < expected.size(); ++t)
      for (size_t c = 0; c < expected[t].size(); ++c)
        EXPECT_NEAR(hidden[static_cast<int64_t>(i)][static_cast<int64_t>(t)][static_cast<int64_t>(c)].item<double>(),
                    expected[t][c], 2e-5);
  }
}

TEST(Bert, StoredParametersCarryTheNamesOfACheckpoint) {
  const Bert bert = random_bert(tiny(), 3);
  const NamedTensors stored = stored_parameters(bert);
  EXPECT_EQ(stored.size(), bert->parameters().size());
  std::map<std::string, torch::Tensor> by_name(stored.begin(), stored.end());
  EXPECT_TRUE(torch::equal(by_name.at("embeddings.word_embeddings.weight"), bert->words));
  EXPECT_TRUE(torch::equal(by_name.at("encoder.layer.1.attention.output.dense.bias"), bert->layers[1]->output->bias));
  EXPECT_TRUE(torch::equal(by_name.at("encoder.layer.0.intermediate.dense.weight"), bert->layers[0]->up->weight));
}

TEST(Bert, RefusesForeignIdsAndTooLongRows) {
  Bert bert = random_bert(tiny(), 1);
  EXPECT_THROW(bert->forward(torch::full({1, 3}, 23, torch::kInt64), {3}), ModelError);
  EXPECT_THROW(bert->forward(torch::full({1, 3}, -1, torch::kInt64), {3}), ModelError);
  EXPECT_THROW(bert->forward(torch::zeros({1, 11}, torch::kInt64), {11}), ModelError);
  EXPECT_THROW(bert->forward(torch::zeros({2, 4}, torch::kInt64), {4}), ModelError);
}

TEST(Bert, LoraStartsAsTheModelAndAloneHasGradients) {
  Bert bert = sharp_bert(2);
  const torch::Tensor ids = torch::randint(23, {2, 6}, torch::kInt64);
  const torch::Tensor before = bert->forward(ids, {6, 6});
  add_lora(bert, 3, 6, 7, 1);
  EXPECT_TRUE(torch::allclose(bert->forward(ids, {6, 6}), before, 0, 1e-6));
  int with_gradient = 0;
  for (const auto& entry : bert->named_parameters()) {
    if (!entry.value().requires_grad()) continue;
    ++with_gradient;
    EXPECT_NE(entry.key().find("layer_1"), std::string::npos) << entry.key();
    EXPECT_NE(entry.key().find("lora"), std::string::npos) << entry.key();
  }
  EXPECT_EQ(with_gradient, 4);  // A and B of query and value of one layer
  {
    const torch::NoGradGuard no_grad;
    bert->layers[1]->query->lora->b.normal_(0, 0.5);
    bert->layers[1]->value->lora->b.normal_(0, 0.5);
  }
  const torch::Tensor adapted = bert->forward(ids, {6, 6}).detach();
  EXPECT_GT((adapted - before).abs().max().item<double>(), 1e-2);
  merge_lora(bert);
  EXPECT_TRUE(torch::allclose(bert->forward(ids, {6, 6}), adapted, 1e-4, 1e-5));
  EXPECT_TRUE(bert->layers[1]->query->lora.is_empty());
}

TEST(Bert, GradientsOfTheLastLayerMatchFiniteDifferences) {
  Bert bert = sharp_bert(3);
  bert->to(torch::kFloat64);
  trainable_layers(bert, 1);
  EXPECT_FALSE(bert->layers[0]->up->weight.requires_grad());
  const torch::Tensor ids = torch::randint(23, {2, 5}, torch::kInt64), direction = torch::randn({2, 5, 12}, torch::kFloat64);
  const auto loss = [&] { return (bert->forward(ids, {5, 3}) * direction).slice(1, 0, 3).sum(); };
  loss().backward();
  for (torch::Tensor* weight : {&bert->layers[1]->query->weight, &bert->layers[1]->down->weight}) {
    const torch::Tensor turn = torch::randn_like(*weight);
    const torch::NoGradGuard no_grad;
    const double step = 1e-6;
    weight->add_(turn, step);
    const double up = loss().item<double>();
    weight->add_(turn, -2 * step);
    const double down = loss().item<double>();
    weight->add_(turn, step);
    const double expected = (up - down) / (2 * step), found = (weight->grad() * turn).sum().item<double>();
    EXPECT_NEAR(found, expected, 1e-5 * std::max(1.0, std::abs(expected)));
  }
}

TEST(Bert, BatchesCoverAllRowsWithinTheBudget) {
  const std::vector<int64_t> lengths = {3, 9, 4, 50, 8, 8, 1};
  const auto batches = batches_by_length(lengths, 18);
  std::vector<int> seen(lengths.size());
  for (const auto& batch : batches) {
    int64_t longest = 0;
    for (const int64_t i : batch) {
      ++seen[static_cast<size_t>(i)];
      longest = std::max(longest, lengths[static_cast<size_t>(i)]);
    }
    EXPECT_TRUE(batch.size() == 1 || longest * static_cast<int64_t>(batch.size()) <= 18);
  }
  EXPECT_EQ(seen, std::vector<int>(lengths.size(), 1));
}

TEST(BertInterop, WritesEmbeddings) {
  const char* folder = std::getenv("LIGHTEN_INTEROP_DIR");
  if (!folder) GTEST_SKIP() << "run by tests/interop/bert_interop.py";
  for (const Json& job : Json::parse(read_file(fs::path(folder) / "bert_jobs.json"))) {
    TextEncoder encoder = load_text_encoder(job["model"].get<std::string>());
    encoder.max_tokens = job["max_tokens"].get<int64_t>();
    encoder.pooling = job["pooling"] == "cls" ? Pooling::cls : Pooling::mean;
    const torch::Tensor result = embed_texts(encoder, job["texts"].get<std::vector<std::string>>(), 600).contiguous();
    const std::span bytes(static_cast<const std::byte*>(result.data_ptr()), result.nbytes());
    write_safetensors(fs::path(folder) / (job["name"].get<std::string>() + ".embeddings.safetensors"),
                      {{"embeddings", DType::f32, result.sizes().vec(), bytes}});
  }
}

}  // namespace
}  // namespace lighten
