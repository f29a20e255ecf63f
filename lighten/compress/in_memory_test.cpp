#include "lighten/compress/in_memory.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/compress/rtn.h"
#include "lighten/compress/test_model.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

TEST(InMemory, ASavedModelHoldsTheWeightsThatTheModuleComputesWith) {
  torch::NoGradGuard no_grad;
  const ModelConfig config = test::tiny_llama3();
  const auto tensors_of = std::make_shared<test::Tensors>(test::random_tensors(config, 6));
  Decoder model = load_decoder(config, [tensors_of](const std::string& name) { return tensors_of->at(name); });
  const std::unique_ptr<Rounding> nearest = make_rtn();
  const RoundedModel rounded = round_in_memory(model, {}, nullptr, *nearest, {.bits = 4, .group_size = 32});
  EXPECT_EQ(rounded.tensors.size(), 7 * model->blocks.size());
  EXPECT_TRUE(rounded.block_errors.empty());  // no calibration text, nothing to measure on
  const auto tokenizer = Tokenizer::from_json(test::byte_tokenizer(), "test");
  const fs::path folder = test::scratch("in-memory") / "light";
  save_light(model, rounded, *tokenizer, "", {{"name", "rtn"}}, folder);
  const LightModel light(folder);
  for (const NamedTensor& tensor : tensors(model)) {
    const torch::Tensor got = torch::tensor(light.read(tensor.name)).reshape_as(*tensor.tensor);
    const bool halved = tensor.tensor->dim() == 2 && !rounded.tensors.contains(tensor.name);  // embedding and head: binary16
    EXPECT_TRUE(torch::equal(got, halved ? tensor.tensor->to(torch::kHalf).to(torch::kFloat) : *tensor.tensor)) << tensor.name;
  }
  EXPECT_THROW(save_light(model, rounded, *tokenizer, "", {}, folder), FileError);
}

}  // namespace
}  // namespace lighten
