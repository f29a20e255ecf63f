// Training steps a second of the shared nets, by the one loop: batches, forward, backward, update. bench/training/compare.py
// runs it by turns with the same nets in Python.
#include <benchmark/benchmark.h>

#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/nn/bert.h"
#include "lighten/nn/graph.h"
#include "lighten/nn/mlp.h"
#include "lighten/train/classify.h"

namespace lighten {
namespace {

constexpr int64_t kClasses = 10;

/// Runs the loop for one epoch an iteration; a sample is a picture, a text or a node.
void run(benchmark::State& state, TrainTask& task, TrainOptions options, int64_t samples_a_step) {
  set_quiet(true);
  options.epochs = 1;
  options.schedule = "constant";
  options.weight_decay = 5e-4;
  const int64_t steps = std::max<int64_t>(static_cast<int64_t>(task.samples.size()) / options.batch_size, 1);
  train(task, options);  // warm
  for (auto _ : state) train(task, options);
  state.SetItemsProcessed(state.iterations() * steps * samples_a_step);
}

/// Random grey pictures of 28 x 28.
ImageSet pictures(int64_t n) {
  ImageSet set;
  set.channels = 1;
  set.height = set.width = 28;
  for (int64_t c = 0; c < kClasses; ++c) set.class_names.push_back(std::to_string(c));
  Random random(1);
  set.pixels.reserve(static_cast<size_t>(n * 28 * 28));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t p = 0; p < 28 * 28; ++p) set.pixels.push_back(static_cast<uint8_t>(random.below(256)));
    set.labels.push_back(static_cast<int32_t>(i % kClasses));
    set.ids.push_back(std::to_string(i));
  }
  set.keys = set.ids;
  set.splits.assign(set.labels.size(), Split::train);
  return set;
}

void vision(benchmark::State& state, const char* architecture, int64_t steps) {
  constexpr int64_t kBatch = 128;
  const ImageSet set = pictures(steps * kBatch);
  const Normalization normalization = {{0.5F}, {0.3F}};
  const VisionNet net = make_vision_net({.architecture = architecture, .classes = kClasses}, 1);
  TrainTask task;
  task.title = architecture;
  task.modules = {{"net", net.get()}};
  for (int64_t i = 0; i < set.size(); ++i) task.samples.push_back(i);
  task.loss = [&](const TrainStep& step) {
    return torch::cross_entropy_loss(net->forward(image_batch(set, step.samples, normalization)),
                                     label_batch(set.labels, step.samples));
  };
  run(state, task, {.batch_size = kBatch, .optimizer = "sgd", .learning_rate = 1e-3}, kBatch);
}

/// GCN of two layers on 5,000 nodes with 50,000 random undirected edges, all nodes a step.
void gcn(benchmark::State& state) {
  constexpr int64_t kNodes = 5000, kEdges = 50000, kInputs = 384, kSteps = 10;
  Random random(1);
  std::vector<std::vector<int32_t>> rows(kNodes);
  for (int64_t e = 0; e < kEdges; ++e) {
    const auto a = static_cast<int32_t>(random.below(kNodes)), b = static_cast<int32_t>(random.below(kNodes));
    if (a == b) continue;
    rows[a].push_back(b);
    rows[b].push_back(a);
  }
  std::vector<int64_t> row_begin = {0};
  std::vector<int32_t> column;
  for (std::vector<int32_t>& row : rows) {
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    column.insert(column.end(), row.begin(), row.end());
    row_begin.push_back(static_cast<int64_t>(column.size()));
  }
  GraphNet net(GraphNetConfig{.kind = "gcn", .inputs = kInputs, .hidden = 256, .outputs = kClasses}, 1);
  const Sparse a = net->prepare(make_sparse(kNodes, row_begin, column));
  const torch::Tensor x = torch::randn({kNodes, kInputs}), y = torch::arange(kNodes) % kClasses;
  TrainTask task;
  task.title = "gcn";
  task.modules = {{"net", net.get()}};
  for (int64_t i = 0; i < kSteps; ++i) task.samples.push_back(i);
  task.loss = [&](const TrainStep&) { return torch::cross_entropy_loss(net->forward(a, x), y); };
  run(state, task, {.batch_size = 1, .optimizer = "adam", .learning_rate = 1e-3}, kNodes);
}

/// A BERT of MiniLM's shape with adapters of rank 8 on query and value, a linear head on the mean; texts of 64 tokens.
void bert_lora(benchmark::State& state) {
  constexpr int64_t kBatch = 16, kTokens = 64, kSteps = 3, kWords = 30522;
  const BertConfig config{
      .vocab_size = kWords, .hidden_size = 384, .layers = 6, .heads = 12, .intermediate_size = 1536, .dropout = 0};
  Bert bert = random_bert(config, 1);
  add_lora(bert, 8, 16, 1);
  FeatureNet head(FeatureNetConfig{.inputs = 384, .widths = {}, .outputs = kClasses}, 1);
  const torch::Tensor ids = torch::randint(kWords, {kSteps * kBatch, kTokens}), y = torch::arange(kSteps * kBatch) % kClasses;
  TrainTask task;
  task.title = "bert-lora";
  task.modules = {{"bert", bert.get()}, {"head", head.get()}};
  for (int64_t i = 0; i < kSteps * kBatch; ++i) task.samples.push_back(i);
  task.loss = [&](const TrainStep& step) {
    const torch::Tensor rows = torch::tensor(std::vector<int64_t>(step.samples.begin(), step.samples.end()));
    const std::vector<int64_t> lengths(step.samples.size(), kTokens);
    return torch::cross_entropy_loss(head->forward(bert->forward(ids.index_select(0, rows), lengths).mean(1)),
                                     y.index_select(0, rows));
  };
  run(state, task, {.batch_size = kBatch, .optimizer = "adamw", .learning_rate = 1e-4}, kBatch);
}

BENCHMARK_CAPTURE(vision, mlp, "mlp", 40)->UseRealTime();
BENCHMARK_CAPTURE(vision, conv3, "conv3", 4)->UseRealTime();
BENCHMARK_CAPTURE(vision, resnet8, "resnet8", 4)->UseRealTime();
BENCHMARK_CAPTURE(vision, vit, "vit", 4)->UseRealTime();
BENCHMARK(gcn)->UseRealTime();
BENCHMARK(bert_lora)->UseRealTime();

}  // namespace
}  // namespace lighten
