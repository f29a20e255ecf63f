#include "lighten/compress/pipeline.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "lighten/base/error.h"
#include "lighten/base/process.h"
#include "lighten/base/progress.h"
#include "lighten/compress/fold.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/quantizer.h"
#include "lighten/compress/request_test.h"
#include "lighten/compress/rtn.h"
#include "lighten/compress/test_model.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

using test::contains;
using test::contents;
using test::message_of;
using test::new_model;
using test::request_in;

/// Scales by powers of mean |x|: a transform that reads statistics and folds, as AWQ does.
class PowerFold : public Transform {
 public:
  void apply(BlockView& view, BlockCalibration& calibration, const GridOptions&) override {
    const std::vector<std::vector<std::string>> sets = {
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"mlp.gate_proj", "mlp.up_proj"}, {"mlp.down_proj"}};
    for (const auto& names : sets)
      fold_input_scale(view, calibration, names, calibration.mean_abs(names[0]).clamp_min(1e-3).pow(0.3));
  }
};

MethodEntry power_fold() {
  MethodEntry entry;
  entry.name = "fold";
  entry.is_transform = true;
  entry.transform = [] { return std::make_unique<PowerFold>(); };
  return entry;
}

MethodEntry gptq_with(const GptqOptions& options) {
  MethodEntry entry = gptq_method();
  *static_cast<GptqOptions*>(entry.options.get()) = options;
  return entry;
}

double mean_error(const QuantizeReport& report) {
  double sum = 0;
  for (const LayerError& e : report.errors) sum += e.relative_error;
  return sum / static_cast<double>(report.errors.size());
}

TEST(Pipeline, RoundToNearestWritesExactlyTheGroupQuantizersNumbers) {
  for (const ModelConfig& config : test::tiny_configs()) {
    const fs::path folder = new_model("rtn", config);
    QuantizeRequest request = request_in(folder, "out", {rtn_method()});
    request.calibration.clear();
    const QuantizeReport report = quantize(request);
    const LightModel light(folder / "out");
    const auto source = open_weights(folder / "model");
    uint64_t linears = 0;
    for (int64_t layer = 0; layer < config.layers; ++layer)
      for (const LinearShape& linear : block_linears(config, layer)) {
        const torch::Tensor w = torch::tensor(source->read(linear.name + ".weight")).reshape({linear.rows, linear.columns});
        const torch::Tensor expected = fake_quantize(w, {4, 32, ZeroKind::integer});
        const std::vector<float> got = light.read(linear.name + ".weight");
        ASSERT_TRUE(torch::equal(torch::tensor(got).reshape_as(expected), expected)) << linear.name;
        const double error = ((w - expected).square().sum() / w.square().sum()).item<double>();
        EXPECT_NEAR(report.errors[linears++].relative_error, error, 1e-6);
      }
    for (const TensorShape& tensor : expected_tensors(config))
      if (tensor.shape.size() == 1) {
        EXPECT_EQ(light.read(tensor.name), source->read(tensor.name)) << tensor.name;
      }
    EXPECT_EQ(report.errors.size(), linears);
    EXPECT_DOUBLE_EQ(report.linear_bits, 4 + 20 / 32.0);
    EXPECT_EQ(report.size_after, size_on_disk(folder / "out"));
  }
}

TEST(Pipeline, ThePlanForetellsTheSizeOfTheTensors) {
  const fs::path folder = new_model("plan");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  request.head_bits = 4;
  request.head_group_size = 32;
  const QuantizePlan plan = plan_quantize(request);
  EXPECT_FALSE(fs::exists(folder / "out"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
  quantize(request);
  EXPECT_EQ(plan.json["size_after"].get<uint64_t>(), LightModel(folder / "out").tensor_bytes());
  EXPECT_GT(plan.json["disk_needed"].get<uint64_t>(), plan.json["size_after"].get<uint64_t>());
  EXPECT_TRUE(contains(plan.text, "mlp.down_proj"));
}

TEST(Pipeline, GptqBeatsRoundToNearestOnItsCalibration) {
  const fs::path folder = new_model("gptq");
  QuantizeRequest rtn = request_in(folder, "rtn", {rtn_method()}), gptq = request_in(folder, "gptq", {gptq_method()});
  rtn.bits = gptq.bits = 3;
  const double plain = mean_error(quantize(rtn)), swept = mean_error(quantize(gptq));
  EXPECT_LT(swept, 0.8 * plain);
}

/// Runs to the end; stopped before block `stop` and resumed; both must give the same bytes.
void expect_resumed_equals_whole(const std::string& name, const std::vector<MethodEntry>& methods, int head_bits,
                                 int64_t stop) {
  const fs::path folder = new_model("resume-" + name);
  QuantizeRequest whole = request_in(folder, "whole", methods);
  whole.head_bits = head_bits;
  whole.head_group_size = 32;
  const QuantizeReport report = quantize(whole);

  QuantizeRequest part = whole;
  part.output = folder / "part";
  part.on_block = [stop](int64_t layer) {
    if (layer == stop) throw Interrupted();
  };
  EXPECT_THROW(quantize(part), Interrupted);
  EXPECT_FALSE(fs::exists(folder / "part"));
  std::vector<int64_t> done;
  part.on_block = [&done](int64_t layer) { done.push_back(layer); };
  const QuantizeReport resumed = quantize(part);
  EXPECT_EQ(done.front(), stop - 1) << "the checkpoint before the last finished block is taken up";
  EXPECT_EQ(contents(folder / "whole"), contents(folder / "part"));
  ASSERT_EQ(resumed.errors.size(), report.errors.size());
  for (size_t i = 0; i < report.errors.size(); ++i)
    EXPECT_EQ(resumed.errors[i].relative_error, report.errors[i].relative_error);
  EXPECT_FALSE(fs::exists(folder / "part.partial"));
}

TEST(Pipeline, InterruptedAndResumedEqualsUninterrupted) {
  expect_resumed_equals_whole("gptq", {gptq_method()}, 0, 2);
  expect_resumed_equals_whole("asymmetric", {power_fold(), gptq_with({.asymmetric = true, .passes = 2})}, 4, 2);
  expect_resumed_equals_whole("fold", {power_fold()}, 3, 2);
}

TEST(Pipeline, InterruptedBeforeTheFirstCheckpointStartsAgain) {
  const fs::path folder = new_model("early");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  request.checkpoint_seconds = 1e9;
  request.on_block = [](int64_t layer) {
    if (layer == 2) throw Interrupted();
  };
  EXPECT_THROW(quantize(request), Interrupted);
  request.on_block = {};
  quantize(request);
  QuantizeRequest whole = request_in(folder, "whole", {gptq_method()});
  quantize(whole);
  EXPECT_EQ(contents(folder / "out"), contents(folder / "whole"));
}

TEST(Pipeline, ACalibratedHeadIsKeptBeforeAnyBlockIs) {
  const fs::path folder = new_model("head");
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  request.head_bits = 4;
  request.head_group_size = 32;
  request.checkpoint_seconds = 1e9;
  const auto time_of_head = [&] {
    request.on_block = [](int64_t) { throw Interrupted(); };
    EXPECT_THROW(quantize(request), Interrupted);
    for (const auto& entry : fs::recursive_directory_iterator(partial_folder(request.output)))
      if (contains(entry.path().filename().string(), "ends")) return entry.last_write_time();
    throw std::runtime_error("no piece of embedding and head");
  };
  EXPECT_EQ(time_of_head(), time_of_head());
  request.on_block = {};
  quantize(request);
  request.output = folder / "whole";
  quantize(request);
  EXPECT_EQ(contents(folder / "out"), contents(folder / "whole"));
}

// Run by the next test in a process of its own.
TEST(Pipeline, DISABLED_ChildThatKillsItself) {
  const char* folder = std::getenv("LIGHTEN_TEST_KILL");
  if (folder == nullptr) GTEST_SKIP();
  set_quiet(true);
  QuantizeRequest request = request_in(folder, "killed", {gptq_method()});
  request.on_block = [](int64_t layer) {
    if (layer == 2) ::kill(::getpid(), SIGKILL);
  };
  quantize(request);
}

TEST(Pipeline, KilledAndResumedEqualsNeverKilled) {
  const fs::path folder = new_model("kill");
  const ProcessResult child =
      run_process({fs::read_symlink("/proc/self/exe").string(), "--gtest_filter=Pipeline.DISABLED_ChildThatKillsItself",
                   "--gtest_also_run_disabled_tests"},
                  {}, {"LIGHTEN_TEST_KILL=" + folder.string()});
  EXPECT_NE(child.exit_code, 0) << child.output;
  EXPECT_TRUE(fs::exists(folder / "killed.partial" / "state.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "killed"));
  quantize(request_in(folder, "killed", {gptq_method()}));
  quantize(request_in(folder, "whole", {gptq_method()}));
  EXPECT_EQ(contents(folder / "killed"), contents(folder / "whole"));
}

TEST(Pipeline, ResumingWithOtherSettingsIsRefusedAndNamesTheDifference) {
  const fs::path folder = new_model("other");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  request.on_block = [](int64_t layer) {
    if (layer == 2) throw Interrupted();
  };
  EXPECT_THROW(quantize(request), Interrupted);
  QuantizeRequest other = request;
  other.bits = 3;
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(other); }), "bits was 4, now it is 3"));
  other = request;
  write_file(folder / "text.txt", test::random_text(4000, 8));
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(other); }), "calibration text"));
  EXPECT_TRUE(fs::exists(folder / "out.partial" / "state.safetensors")) << "what was done is kept";
}

TEST(Pipeline, OtherSettingsStartAnewWhereNothingIsLostOrItIsAskedFor) {
  const fs::path folder = new_model("settings");
  QuantizeRequest wanted = request_in(folder, "whole", {gptq_method()});
  wanted.bits = 3;
  quantize(wanted);
  wanted.output = folder / "out";
  for (const int stop : {0, 2}) {  // no block is finished, then one is
    QuantizeRequest request = request_in(folder, "out", {gptq_method()});
    request.resume = false;
    request.on_block = [stop](int64_t layer) {
      if (layer == stop) throw Interrupted();
    };
    EXPECT_THROW(quantize(request), Interrupted);
    QuantizeRequest next = wanted;
    next.force = stop > 0;
    quantize(next);
    EXPECT_EQ(contents(folder / "whole"), contents(folder / "out"));
    fs::remove_all(folder / "out");
  }
}

TEST(Pipeline, ResumingWithAnotherModelOfEqualSizeIsRefused) {
  const fs::path folder = new_model("swapped");
  const fs::path weights = folder / "model" / "model.safetensors";
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  request.on_block = [](int64_t layer) {
    if (layer == 2) throw Interrupted();
  };
  EXPECT_THROW(quantize(request), Interrupted);
  EXPECT_THROW(quantize(request), Interrupted) << "the same model is taken up";
  const auto size = fs::file_size(weights);
  const auto time = fs::last_write_time(weights);
  test::write_test_model(folder, test::tiny_llama_linear(), 2);
  fs::last_write_time(weights, time);
  ASSERT_EQ(fs::file_size(weights), size);
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "contents of the model"));
}

TEST(Pipeline, UnfinishedWorkIsKeptUnlessForced) {
  const fs::path folder = new_model("anew");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  fs::create_directories(folder / "out.partial");
  write_file(folder / "out.partial" / "request.json", "{}");
  write_file(folder / "out.partial" / "state.safetensors", "");
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "holds unfinished work"));
  EXPECT_EQ(read_file(folder / "out.partial" / "request.json"), "{}");
  request.force = true;
  quantize(request);
  EXPECT_NO_THROW(LightModel(folder / "out"));
}

TEST(Pipeline, ASecondRunIntoTheSameOutputIsRefusedWhileTheFirstWorks) {
  const fs::path folder = new_model("twice");
  QuantizeRequest first = request_in(folder, "out", {gptq_method()});
  int refused = 0;
  first.on_block = [&](int64_t) {
    QuantizeRequest second = request_in(folder, "out", {gptq_method()});
    for (const bool resume : {false, true})
      for (const bool force : {false, true}) {
        second.resume = resume;
        second.force = force;
        const std::string said = message_of<FileError>([&] { quantize(second); });
        refused += contains(said, "another process is working in " + (folder / "out.partial").string());
      }
  };
  quantize(first);
  EXPECT_EQ(refused, 4 * 3) << "at each of three blocks";
  quantize(request_in(folder, "alone", {gptq_method()}));
  EXPECT_EQ(contents(folder / "out"), contents(folder / "alone"));
}

TEST(Pipeline, SpilledActivationsGiveTheSameBytes) {
  const fs::path folder = new_model("spill");
  quantize(request_in(folder, "memory", {power_fold(), gptq_with({.asymmetric = true})}));
  QuantizeRequest request = request_in(folder, "disk", {power_fold(), gptq_with({.asymmetric = true})});
  request.spill_bytes = 1;
  quantize(request);
  EXPECT_EQ(contents(folder / "memory"), contents(folder / "disk"));
}

TEST(Pipeline, AnExistingOutputIsKeptUnlessForcedAndThenReplacedAsAWhole) {
  const fs::path folder = new_model("force");
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  quantize(request);
  const auto before = contents(folder / "out");
  EXPECT_TRUE(contains(message_of<FileError>([&] { quantize(request); }), "--force"));
  request.force = true;
  request.bits = 3;
  request.on_block = [](int64_t layer) {
    if (layer == 1) throw Interrupted();
  };
  EXPECT_THROW(quantize(request), Interrupted);
  EXPECT_EQ(contents(folder / "out"), before);
  request.on_block = {};
  quantize(request);
  EXPECT_NE(contents(folder / "out"), before);
  EXPECT_NO_THROW(LightModel(folder / "out"));
}

TEST(Pipeline, ForceReplacesOnlyLightModelsAndEmptyFolders) {
  const fs::path folder = new_model("precious");
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  request.force = true;
  fs::create_directories(folder / "out");
  write_file(folder / "out" / "precious.txt", "kept");
  write_file(folder / "out" / "config.json", R"({"model_type": "llama"})");
  EXPECT_TRUE(contains(message_of<FileError>([&] { quantize(request); }), "is no light model"));
  EXPECT_TRUE(contains(message_of<FileError>([&] { check_quantize(request); }), "is no light model"));
  EXPECT_EQ(read_file(folder / "out" / "precious.txt"), "kept");
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
  request.output = folder / "empty";
  fs::create_directories(request.output);
  quantize(request);
  EXPECT_NO_THROW(LightModel(folder / "empty"));
}

TEST(Pipeline, AFolderInThePlaceOfUnfinishedWorkIsKept) {
  const fs::path folder = new_model("in-the-way");
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  fs::create_directories(folder / "out.partial");
  write_file(folder / "out.partial" / "precious.txt", "kept");
  EXPECT_TRUE(contains(message_of<FileError>([&] { quantize(request); }), "out.partial is in the way"));
  EXPECT_EQ(read_file(folder / "out.partial" / "precious.txt"), "kept");
}

TEST(Pipeline, TheModelAndItsSurroundingsAreNoOutput) {
  const fs::path folder = new_model("source");
  const auto before = contents(folder);
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  request.force = true;
  fs::create_directory_symlink("model", folder / "alias");
  for (const fs::path& output : {folder / "model", folder / "model/", folder / "alias", folder, folder / "out/../model"}) {
    request.output = output;
    EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "take the place of the model")) << output;
  }
  for (const fs::path& output : {folder / "model/light", folder / "alias/light"}) {
    request.output = output;
    EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "inside the model's folder")) << output;
  }
  fs::create_directories(folder / "texts");
  write_file(folder / "texts" / "text.txt", test::random_text(4000, 7));
  request.calibration = {folder / "texts" / "text.txt"};
  request.output = folder / "texts";
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "calibration text"));
  fs::remove_all(folder / "texts");
  fs::remove(folder / "alias");
  EXPECT_EQ(contents(folder), before);
}

TEST(Pipeline, AGroupSizeThatDoesNotDivideNamesTheTensorAndWhatWouldDo) {
  ModelConfig config = test::tiny_llama_linear();
  config.intermediate_size = 96;
  const fs::path folder = new_model("group", config);
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  request.group_size = 64;
  for (const auto& work : std::vector<std::function<void()>>{[&] { quantize(request); }, [&] { plan_quantize(request); }}) {
    const std::string message = message_of<OptionError>(work);
    EXPECT_TRUE(contains(message, "96 inputs of model.layers.0.mlp.down_proj.weight")) << message;
    EXPECT_TRUE(contains(message, "32 or 0 (per channel)")) << message;
  }
  request.group_size = 40;
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "multiple of 32"));
  request.group_size = kLargestThatFits;
  EXPECT_EQ(plan_quantize(request).json["method"]["group_size"], 32);
  request.bits = 5;
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "2, 3, 4 or 8"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(Pipeline, MissingCalibrationTextIsSaidBeforeAnyWork) {
  const fs::path folder = new_model("text");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  request.calibration.clear();
  EXPECT_TRUE(contains(message_of<CalibrationError>([&] { quantize(request); }), "--calib"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(Pipeline, CalibrationTextIsReadBeforeTheOutputIsTouched) {
  const fs::path folder = new_model("short");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  write_file(folder / "text.txt", "Just one line.\n");
  EXPECT_TRUE(contains(message_of<CalibrationError>([&] { check_quantize(request); }), "fewer than one row"));
  EXPECT_TRUE(contains(message_of<CalibrationError>([&] { quantize(request); }), "fewer than one row"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(Pipeline, NotANumberInAWeightIsNamed) {
  const fs::path folder = new_model("nan");
  const ModelConfig config = test::tiny_llama_linear();
  test::Tensors tensors = test::random_tensors(config, 1);
  tensors["model.layers.1.mlp.up_proj.weight"][5] = std::nanf("");
  test::write_hf_folder(folder / "model", config, tensors);
  const std::string message = message_of<FormatError>([&] { quantize(request_in(folder, "out", {rtn_method()})); });
  EXPECT_TRUE(contains(message, "model.layers.1.mlp.up_proj.weight")) << message;
}

TEST(Pipeline, ALowBitTiedHeadIsWrittenOnceAndServesBothEnds) {
  const fs::path folder = new_model("head");
  QuantizeRequest request = request_in(folder, "out", {gptq_method()});
  request.head_bits = 3;
  request.head_group_size = 32;
  quantize(request);
  const LightModel light(folder / "out");
  EXPECT_EQ(light.packed().at("model.embed_tokens.weight").spec.bits, 3);
  EXPECT_FALSE(light.has("lm_head.weight"));

  const fs::path untied = new_model("untied", test::tiny_llama3());
  request = request_in(untied, "out", {gptq_method()});
  request.head_bits = 4;
  request.head_group_size = 32;
  quantize(request);
  const LightModel both(untied / "out");
  EXPECT_EQ(both.packed().at("model.embed_tokens.weight").spec.bits, 4);
  EXPECT_EQ(both.packed().at("lm_head.weight").spec.bits, 4);
}

}  // namespace
}  // namespace lighten
