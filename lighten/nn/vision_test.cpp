#include "lighten/nn/vision.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "lighten/base/error.h"
#include "lighten/nn/state.h"

namespace lighten {
namespace {

VisionConfig config_of(const std::string& architecture) {
  VisionConfig config;
  config.architecture = architecture;
  config.channels = 3;
  config.height = config.width = 16;
  config.classes = 7;
  return config;
}

TEST(VisionNet, ShapesAndParameterCountsAreTheDocumentedOnes) {
  for (const std::string& name : vision_architectures()) {
    for (const int64_t width : {0, 32}) {
      VisionConfig config = config_of(name);
      config.base_width = width;
      const VisionNet net = make_vision_net(config, 1);
      const torch::Tensor x = torch::randn({5, 3, 16, 16});
      EXPECT_EQ(net->forward(x).sizes(), (torch::IntArrayRef{5, 7})) << name;
      EXPECT_EQ(net->features(x).sizes(), (torch::IntArrayRef{5, completed(config).feature_size})) << name;
      EXPECT_EQ(parameter_count(*net), vision_parameters(config)) << name;
    }
  }
  // ResNet-18 at its paper's width with the small stem: the published 11.17 million parameters for ten classes.
  VisionConfig config = config_of("resnet18");
  config.base_width = 64;
  config.classes = 10;
  EXPECT_EQ(vision_parameters(config), 11'173'962);
}

TEST(VisionNet, WeightsDependOnTheSeedAlone) {
  for (const std::string& name : vision_architectures()) {
    const NamedTensors a = state_of(*make_vision_net(config_of(name), 4)), b = state_of(*make_vision_net(config_of(name), 4)),
                       c = state_of(*make_vision_net(config_of(name), 5));
    bool differs = false;
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(torch::equal(a[i].second, b[i].second)) << name << " " << a[i].first;
      differs |= !torch::equal(a[i].second, c[i].second);
    }
    EXPECT_TRUE(differs) << name;
  }
}

TEST(VisionNet, InitialisersHaveTheirDeviations) {
  VisionConfig config = config_of("resnet18");
  config.base_width = 64;
  const VisionNet net = make_vision_net(config, 1);
  // The last block's 3 x 3 convolution: He normal, fan out = 9 * 512, sqrt(2 / 4608).
  const torch::Tensor weight = net->named_parameters()["body.7.conv2.weight"];
  EXPECT_NEAR(weight.std().item<double>(), std::sqrt(2.0 / 4608), 1e-4);
  // The head: uniform in +-1 / sqrt(512).
  EXPECT_LE(net->head->weight.abs().max().item<double>(), 1 / std::sqrt(512.0));
  EXPECT_NEAR(net->head->weight.std().item<double>(), 1 / std::sqrt(3 * 512.0), 2e-3);
}

TEST(VisionNet, EveryParameterGetsAGradient) {
  for (const std::string& name : vision_architectures()) {
    const VisionNet net = make_vision_net(config_of(name), 2);
    net->train();
    torch::cross_entropy_loss(net->forward(torch::randn({6, 3, 16, 16})), torch::tensor({0, 1, 2, 3, 4, 5})).backward();
    for (const auto& item : net->named_parameters()) {
      ASSERT_TRUE(item.value().grad().defined()) << name << " " << item.key();
      EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << name << " " << item.key();
    }
  }
}

TEST(VisionNet, RefusesConfigsThatCannotBe) {
  VisionConfig config = config_of("conv4");
  EXPECT_THROW(make_vision_net(config, 0), OptionError);
  config = config_of("vit");
  config.patch = 5;
  EXPECT_THROW(make_vision_net(config, 0), OptionError);
  config = config_of("conv3");
  config.height = 7;
  EXPECT_THROW(make_vision_net(config, 0), OptionError);
}

class ClassifierFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("lighten-classifier-test-{}", ::getpid());
    fs::remove_all(folder_);
    classifier_.net = make_vision_net(config_of("resnet8"), 3);
    classifier_.mean = {0.1F, 0.2F, 0.3F};
    classifier_.deviation = {1, 2, 3};
    classifier_.class_names = {"a", "b", "c", "d", "e", "f", "g"};
    classifier_.net->train();
    classifier_.net->forward(torch::randn({8, 3, 16, 16}));  // moves the running means
    classifier_.net->eval();
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string message() {
    try {
      load_classifier(folder_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  fs::path folder_;
  Classifier classifier_;
};

TEST_F(ClassifierFile, ComesBackWithTheSameOutputs) {
  save_classifier(classifier_, folder_, false);
  const Classifier loaded = load_classifier(folder_);
  const torch::Tensor x = torch::randn({4, 3, 16, 16});
  EXPECT_TRUE(torch::equal(loaded.net->forward(x), classifier_.net->forward(x)));
  EXPECT_EQ(loaded.class_names, classifier_.class_names);
  EXPECT_EQ(loaded.mean, classifier_.mean);
  EXPECT_FALSE(loaded.net->is_training());
  EXPECT_THROW(save_classifier(classifier_, folder_, false), FileError);
  save_classifier(classifier_, folder_, true);
}

TEST_F(ClassifierFile, BadOnesAreRefusedWithFileAndField) {
  EXPECT_NE(message().find("no classifier"), std::string::npos);
  save_classifier(classifier_, folder_, false);
  const Json good = Json::parse(read_file(folder_ / "config.json"));
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json json = good;
    change(json);
    write_file(folder_ / "config.json", json_text(json));
    return message();
  };
  EXPECT_NE(with([](Json& j) { j["format"] = "x"; }).find("lighten-classifier"), std::string::npos);
  EXPECT_NE(with([](Json& j) { j["net"].erase("patch"); }).find("'patch' is missing"), std::string::npos);
  EXPECT_NE(with([](Json& j) { j["net"]["classes"] = 8; }).find("class_names"), std::string::npos);
  EXPECT_NE(with([](Json& j) { j["net"]["base_width"] = 8; }).find("model.safetensors: "), std::string::npos);
  EXPECT_NE(with([](Json& j) { j["deviation"][1] = 0; }).find("deviation"), std::string::npos);
  EXPECT_NE(with([](Json& j) { j["mean"] = "x"; }).find("'mean'"), std::string::npos);
}

}  // namespace
}  // namespace lighten
