#include "lighten/nn/vision.h"

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/nn/norm.h"
#include "lighten/nn/state.h"

namespace lighten {

namespace {

namespace nn = torch::nn;

constexpr int64_t kHeadWidth = 32;  // of ViT's attention heads

nn::Conv2d conv3x3(int64_t in, int64_t out, int64_t stride = 1) {
  return nn::Conv2d(nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false));
}

struct MlpNetImpl : VisionNetImpl {
  explicit MlpNetImpl(const VisionConfig& given) : VisionNetImpl(given) {
    int64_t in = config.channels * config.height * config.width;
    for (int64_t i = 0; i < config.depth; ++i) {
      layers->push_back(nn::Linear(in, config.base_width));
      layers->push_back(nn::ReLU());
      in = config.base_width;
    }
    layers->push_back(nn::Linear(in, config.feature_size));
    layers->push_back(nn::ReLU());
    register_module("layers", layers);
    make_head(config.feature_size);
  }
  torch::Tensor features(const torch::Tensor& x) override { return layers->forward(x.flatten(1)); }
  nn::Sequential layers;
};

struct Conv3NetImpl : VisionNetImpl {
  explicit Conv3NetImpl(const VisionConfig& given) : VisionNetImpl(given) {
    int64_t in = config.channels;
    for (int64_t stage = 0; stage < 3; ++stage) {
      const int64_t out = config.base_width << stage;
      layers->push_back(conv3x3(in, out));
      layers->push_back(ChannelNorm(out, config.norm));
      layers->push_back(nn::ReLU());
      layers->push_back(nn::MaxPool2d(2));
      in = out;
    }
    layers->push_back(nn::Flatten());
    layers->push_back(nn::Linear(in * (config.height / 8) * (config.width / 8), config.feature_size));
    layers->push_back(nn::ReLU());
    register_module("layers", layers);
    make_head(config.feature_size);
  }
  torch::Tensor features(const torch::Tensor& x) override { return layers->forward(x); }
  nn::Sequential layers;
};

struct BasicBlockImpl : nn::Module {
  BasicBlockImpl(int64_t in, int64_t out, int64_t stride, const std::string& norm)
      : conv1(register_module("conv1", conv3x3(in, out, stride))),
        conv2(register_module("conv2", conv3x3(out, out))),
        norm1(register_module("norm1", ChannelNorm(out, norm))),
        norm2(register_module("norm2", ChannelNorm(out, norm))) {
    if (in == out && stride == 1) return;
    shortcut = nn::Sequential(nn::Conv2d(nn::Conv2dOptions(in, out, 1).stride(stride).bias(false)), ChannelNorm(out, norm));
    register_module("shortcut", shortcut);
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const torch::Tensor inner = norm2->forward(conv2->forward(norm1->forward(conv1->forward(x)).relu_()));
    return torch::relu(inner + (shortcut.is_empty() ? x : shortcut->forward(x)));
  }
  nn::Conv2d conv1, conv2;
  ChannelNorm norm1, norm2;
  nn::Sequential shortcut{nullptr};
};
TORCH_MODULE(BasicBlock);

/// Stages and blocks of each.
std::pair<int64_t, int64_t> resnet_shape(const std::string& architecture) {
  if (architecture == "resnet8") return {3, 1};
  if (architecture == "resnet14") return {3, 2};
  return {4, 2};
}

struct ResNetImpl : VisionNetImpl {
  explicit ResNetImpl(const VisionConfig& given) : VisionNetImpl(given) {
    stem->push_back(conv3x3(config.channels, config.base_width));
    stem->push_back(ChannelNorm(config.base_width, config.norm));
    stem->push_back(nn::ReLU());
    register_module("stem", stem);
    const auto [stages, blocks] = resnet_shape(config.architecture);
    int64_t in = config.base_width;
    for (int64_t stage = 0; stage < stages; ++stage)
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t out = config.base_width << stage;
        body->push_back(BasicBlock(in, out, stage > 0 && block == 0 ? 2 : 1, config.norm));
        in = out;
      }
    register_module("body", body);
    make_head(in);
  }
  torch::Tensor features(const torch::Tensor& x) override { return body->forward(stem->forward(x)).mean({2, 3}); }
  nn::Sequential stem, body;
};

struct VitBlockImpl : nn::Module {
  VitBlockImpl(int64_t width)
      : heads(width / kHeadWidth),
        norm1(register_module("norm1", nn::LayerNorm(nn::LayerNormOptions({width})))),
        norm2(register_module("norm2", nn::LayerNorm(nn::LayerNormOptions({width})))),
        qkv(register_module("qkv", nn::Linear(width, 3 * width))),
        out(register_module("out", nn::Linear(width, width))),
        up(register_module("up", nn::Linear(width, 2 * width))),
        down(register_module("down", nn::Linear(2 * width, width))) {}
  /// x [n, tokens, width] -> same shape
  torch::Tensor forward(const torch::Tensor& x) {
    const int64_t n = x.size(0), tokens = x.size(1), width = x.size(2);
    const auto parts =
        qkv->forward(norm1->forward(x)).view({n, tokens, 3, heads, kHeadWidth}).permute({2, 0, 3, 1, 4}).unbind(0);
    const torch::Tensor attended = torch::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
    const torch::Tensor h = x + out->forward(attended.transpose(1, 2).reshape({n, tokens, width}));
    return h + down->forward(torch::gelu(up->forward(norm2->forward(h))));
  }
  int64_t heads;
  nn::LayerNorm norm1, norm2;
  nn::Linear qkv, out, up, down;
};
TORCH_MODULE(VitBlock);

struct VitImpl : VisionNetImpl {
  explicit VitImpl(const VisionConfig& given) : VisionNetImpl(given) {
    const int64_t width = config.base_width;
    patches =
        register_module("patches", nn::Conv2d(nn::Conv2dOptions(config.channels, width, config.patch).stride(config.patch)));
    const int64_t tokens = (config.height / config.patch) * (config.width / config.patch) + 1;
    token = register_parameter("token", torch::empty({1, 1, width}));
    positions = register_parameter("positions", torch::empty({1, tokens, width}));
    for (int64_t i = 0; i < config.depth; ++i) blocks->push_back(VitBlock(width));
    register_module("blocks", blocks);
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({width})));
    make_head(width);
  }
  torch::Tensor features(const torch::Tensor& x) override {
    const torch::Tensor pieces = patches->forward(x).flatten(2).transpose(1, 2);
    const torch::Tensor tokens = torch::cat({token.expand({x.size(0), -1, -1}), pieces}, 1) + positions;
    return norm->forward(blocks->forward(tokens).select(1, 0));
  }
  nn::Conv2d patches{nullptr};
  torch::Tensor token, positions;
  nn::Sequential blocks;
  nn::LayerNorm norm{nullptr};
};

void check(const VisionConfig& c) {
  const std::vector<std::string>& known = vision_architectures();
  if (std::find(known.begin(), known.end(), c.architecture) == known.end())
    throw OptionError(unknown_name_message("architecture", c.architecture, known));
  if (c.channels < 1 || c.height < 1 || c.width < 1 || c.classes < 1 || c.base_width < 0 || c.feature_size < 0 || c.depth < 0 ||
      c.patch < 1 || !(c.dropout >= 0) || !(c.dropout < 1))
    throw_error<OptionError>(
        "{}: a net of {} x {} x {} pictures, {} classes, width {}, features {}, depth {}, dropout {} cannot be", c.architecture,
        c.channels, c.height, c.width, c.classes, c.base_width, c.feature_size, c.depth, c.dropout);
  if (c.architecture == "conv3" && (c.height < 8 || c.width < 8))
    throw_error<OptionError>("conv3 halves pictures three times: {} x {} is smaller than 8 x 8", c.height, c.width);
  if (c.architecture != "vit") return;
  if (c.height % c.patch != 0 || c.width % c.patch != 0)
    throw_error<OptionError>("vit: patches of {} do not divide {} x {} pictures", c.patch, c.height, c.width);
  if (c.base_width % kHeadWidth != 0)
    throw_error<OptionError>("vit: the width {} must be a multiple of {}", c.base_width, kHeadWidth);
}

void initialise(VisionNetImpl& net) {
  const torch::NoGradGuard no_grad;
  const bool vit = net.config.architecture == "vit";
  for (const auto& item : net.named_modules()) {
    if (auto* conv = item.value()->as<nn::Conv2dImpl>()) {
      vit ? nn::init::normal_(conv->weight, 0, 0.02) : nn::init::kaiming_normal_(conv->weight, 0, torch::kFanOut, torch::kReLU);
      if (conv->bias.defined()) conv->bias.zero_();
    } else if (auto* linear = item.value()->as<nn::LinearImpl>()) {
      const bool is_head = linear == net.head.get();
      const double fan = static_cast<double>(linear->weight.size(1)), bound = is_head ? 1 / std::sqrt(fan) : std::sqrt(6 / fan);
      vit ? linear->weight.normal_(0, 0.02).clamp_(-0.04, 0.04) : linear->weight.uniform_(-bound, bound);
      if (linear->bias.defined()) linear->bias.zero_();
    }
  }
  for (const auto& item : net.named_parameters(false))
    item.value().normal_(0, 0.02).clamp_(-0.04, 0.04);  // ViT's token, positions
}

}  // namespace

const std::vector<std::string>& vision_architectures() {
  static const std::vector<std::string> names = {"mlp", "conv3", "resnet8", "resnet14", "resnet18", "vit"};
  return names;
}

VisionNetImpl::VisionNetImpl(VisionConfig config) : config(std::move(config)) {}

void VisionNetImpl::make_head(int64_t size) {
  feature_size = size;
  head = register_module("head", nn::Linear(nn::LinearOptions(size, config.classes).bias(config.head_bias)));
}

torch::Tensor VisionNetImpl::classify(const torch::Tensor& features) {
  return head->forward(config.dropout > 0 ? torch::dropout(features, config.dropout, is_training()) : features);
}

torch::Tensor VisionNetImpl::forward(const torch::Tensor& x) { return classify(features(x)); }

VisionConfig completed(const VisionConfig& config) {
  VisionConfig c = config;
  const auto or_else = [](int64_t& value, int64_t otherwise) {
    if (value == 0) value = otherwise;
  };
  if (c.architecture == "mlp") or_else(c.base_width, 256), or_else(c.depth, 2);
  if (c.architecture == "conv3") or_else(c.base_width, 32);
  if (c.architecture == "vit") or_else(c.base_width, 96), or_else(c.depth, 4);
  if (c.architecture.starts_with("resnet")) or_else(c.base_width, 16);
  if (c.architecture == "mlp" || c.architecture == "conv3")
    or_else(c.feature_size, 256);
  else
    c.feature_size = c.architecture == "vit" ? c.base_width : c.base_width << (resnet_shape(c.architecture).first - 1);
  return c;
}

VisionNet make_vision_net(const VisionConfig& config, uint64_t seed) {
  const VisionConfig c = completed(config);
  check(c);
  torch::manual_seed(seed);
  VisionNet net;
  if (c.architecture == "mlp")
    net = std::make_shared<MlpNetImpl>(c);
  else if (c.architecture == "conv3")
    net = std::make_shared<Conv3NetImpl>(c);
  else if (c.architecture == "vit")
    net = std::make_shared<VitImpl>(c);
  else
    net = std::make_shared<ResNetImpl>(c);
  initialise(*net);
  return net;
}

int64_t vision_parameters(const VisionConfig& config) {
  const VisionConfig c = completed(config);
  const int64_t w = c.base_width, f = c.feature_size, head = f * c.classes + (c.head_bias ? c.classes : 0);
  if (c.architecture == "mlp") {
    const int64_t in = c.channels * c.height * c.width;
    return (in + 1) * w + (c.depth - 1) * (w + 1) * w + (w + 1) * f + head;
  }
  if (c.architecture == "conv3")
    return 9 * (c.channels * w + 2 * w * w + 8 * w * w) + 2 * 7 * w + (4 * w * (c.height / 8) * (c.width / 8) + 1) * f + head;
  if (c.architecture == "vit") {
    const int64_t tokens = (c.height / c.patch) * (c.width / c.patch) + 1;
    const int64_t block = 2 * 2 * w + (w + 1) * 3 * w + (w + 1) * w + (w + 1) * 2 * w + (2 * w + 1) * w;
    return (c.channels * c.patch * c.patch + 1) * w + w + tokens * w + c.depth * block + 2 * w + head;
  }
  const auto [stages, blocks] = resnet_shape(c.architecture);
  int64_t count = 9 * c.channels * w + 2 * w + head;
  for (int64_t s = 0; s < stages; ++s) {
    const int64_t out = w << s, in = s == 0 ? out : out / 2;
    count += 9 * in * out + (2 * blocks - 1) * 9 * out * out + blocks * 4 * out;
    if (s > 0) count += in * out + 2 * out;
  }
  return count;
}

}  // namespace lighten
