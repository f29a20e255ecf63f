#include "lighten/nn/mlp.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"

namespace lighten {
namespace {

TEST(FeatureNet, EqualsItsLayersByHand) {
  FeatureNet net(FeatureNetConfig{.inputs = 5, .widths = {7, 4}, .outputs = 3}, 1);
  const torch::Tensor x = torch::randn({6, 5});
  torch::Tensor h = torch::relu(torch::mm(x, net->weights[0].t()) + net->biases[0]);
  h = torch::relu(torch::mm(h, net->weights[1].t()) + net->biases[1]);
  EXPECT_TRUE(torch::allclose(net->hidden(x), h, 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(net->forward(x), torch::mm(h, net->weights[2].t()), 1e-5, 1e-6));
  EXPECT_EQ(net->parameters().size(), 6u);
  FeatureNet other(FeatureNetConfig{.inputs = 5, .widths = {7, 4}, .outputs = 3}, 1);
  EXPECT_TRUE(torch::equal(other->weights[0], net->weights[0]));  // the same seed
  EXPECT_THROW(FeatureNet(FeatureNetConfig{.inputs = 5, .widths = {0}, .outputs = 3}, 1), OptionError);
}

TEST(FeatureNet, PredictsInBatchesAndComesBackFromDisk) {
  FeatureNet net(FeatureNetConfig{.inputs = 5, .widths = {8}, .outputs = 2, .dropout = 0.5, .batch_norm = true}, 2);
  net->train();
  net->forward(torch::randn({32, 5}));  // moves the averages of the batch norm
  const torch::Tensor x = torch::randn({11, 5}), all = predict(net, x, 100);
  EXPECT_TRUE(torch::allclose(predict(net, x, 4), all, 1e-5, 1e-6));
  EXPECT_TRUE(net->is_training());
  const fs::path folder = fs::temp_directory_path() / "lighten-mlp-test";
  fs::create_directories(folder);
  save_feature_net(net, folder, {{"classes", {"a", "b"}}});
  FeatureNet again = load_feature_net(folder);
  EXPECT_TRUE(torch::allclose(predict(again, x), all, 1e-6, 1e-7));
  write_file(folder / "config.json", R"({"format": "lighten mlp 1", "net": {"inputs": 5, "widths": [0], "outputs": 2}})");
  EXPECT_THROW(load_feature_net(folder), FormatError);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace lighten
