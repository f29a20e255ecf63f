#include "lighten/compress/head_bands.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "lighten/base/error.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/request_test.h"
#include "lighten/compress/rtn.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

using test::contains;
using test::contents;
using test::message_of;
using test::new_model;
using test::request_in;

TEST(HeadBands, FrequentTokensGetTheirOwnBits) {
  for (const ModelConfig& config : {test::tiny_llama_linear(), test::tiny_llama3()}) {
    const fs::path folder = new_model("frequent", config);
    QuantizeRequest request = request_in(folder, "plain", {gptq_method()});
    request.head_bits = 2;
    request.head_group_size = 32;
    quantize(request);
    request.output = folder / "banded";
    request.head_frequent = {{8, 10}, {4, 20}};
    const QuantizePlan plan = plan_quantize(request);
    EXPECT_TRUE(contains(plan.text, "8 bits for the 10 most frequent tokens")) << plan.text;
    quantize(request);

    const LightModel plain(folder / "plain"), banded(folder / "banded");
    const auto source = open_weights(folder / "model");
    std::vector<int64_t> counts(static_cast<size_t>(config.vocab_size));
    for (const int32_t id : source->tokenizer()->encode(read_file(folder / "text.txt"), false))
      ++counts[static_cast<size_t>(id)];
    std::set<int64_t> named(config.end_tokens.begin(), config.end_tokens.end());  // they lead, whatever the text holds
    named.insert({config.bos_token, source->tokenizer()->bos(), source->tokenizer()->eos()});
    EXPECT_EQ(banded.banded().size(), config.tied_head ? 1u : 2u);
    for (const auto& [name, rows] : banded.banded()) {
      ASSERT_EQ(rows.bands.size(), 3u);
      EXPECT_EQ(rows.bands[0].spec.bits, 8);
      EXPECT_EQ(rows.bands[1].spec.rows, 20);
      EXPECT_EQ(rows.bands[2].spec.bits, 2);
      EXPECT_EQ(rows.bands[2].spec.rows, config.vocab_size - 30);
      int64_t least = 1 << 30, most = 0;  // counts in the first band, in the last
      double errors[2][2] = {};           // [banded][last band]: sums of squares
      const std::vector<float> want = source->read(name), old = plain.read(name), now = banded.read(name);
      const auto width = static_cast<size_t>(config.hidden_size);
      for (size_t id = 0; id < rows.places.size(); ++id) {
        const bool first = rows.places[id] < 10, last = rows.places[id] >= 30;
        const bool leads = named.contains(static_cast<int64_t>(id));
        EXPECT_TRUE(first || !leads) << id;
        if (first && !leads) least = std::min(least, counts[id]);
        if (last) most = std::max(most, counts[id]);
        if (!first && !last) continue;
        for (size_t i = id * width; i < (id + 1) * width; ++i) {
          errors[0][last] += std::pow(old[i] - want[i], 2);
          errors[1][last] += std::pow(now[i] - want[i], 2);
        }
      }
      EXPECT_GE(least, most) << name;
      EXPECT_LT(errors[1][0], errors[0][0] / 100) << "8 bits in place of 2";
      EXPECT_DOUBLE_EQ(errors[1][1], errors[0][1]) << "the others are as they were";
    }
    EXPECT_EQ(plan.json["size_after"].get<uint64_t>(), banded.tensor_bytes());
  }
}

TEST(HeadBands, ListsOfBandsAreChecked) {
  const std::vector<HeadBand> bands = parse_head_bands("8:4096,4:16384");
  ASSERT_EQ(bands.size(), 2u);
  EXPECT_EQ(bands[0].bits, 8);
  EXPECT_EQ(bands[1].tokens, 16384);
  EXPECT_EQ(parse_head_bands("8:2, 4:3").size(), 2u);
  for (const char* bad : {"8", "8:", ":5", "8:4096,", ",8:3", "8:4k", "8:3;4:5", "8:3:4", "eight:3", ",", "", " "})
    EXPECT_THROW(parse_head_bands(bad), OptionError) << bad;
  const fs::path folder = new_model("bands");
  QuantizeRequest request = request_in(folder, "out", {rtn_method()});
  const auto refused = [&](std::vector<HeadBand> wrong, const std::string& word) {
    request.head_frequent = std::move(wrong);
    const std::string message = message_of<OptionError>([&] { plan_quantize(request); });
    EXPECT_TRUE(contains(message, word)) << message;
  };
  refused({{8, 10}}, "--head-bits");
  request.head_bits = 4;
  request.head_group_size = 32;
  refused({{5, 10}}, "5:10");
  refused({{8, 0}}, "at least one");
  refused({{8, 96}}, "96 tokens");
  refused({{4, 10}}, "must fall");
  refused({{8, 10}, {8, 10}}, "must fall");
  refused(std::vector<HeadBand>(8, HeadBand{8, 2}), "bands");
  request.head_bits = 2;
  refused({{8, 50}, {3, 46}}, "96 tokens");
  refused({{8, 50}, {3, 46}}, "46 are left");
  request.head_frequent = {{8, 10}};
  request.calibration.clear();
  EXPECT_TRUE(contains(message_of<CalibrationError>([&] { plan_quantize(request); }), "--calib"));
}

TEST(HeadBands, FrequentComesFirstAndWhatTextsDoNotHoldBeforeAll) {
  EXPECT_EQ(by_frequency({0, 5, 2, 5}, {4, -1, 99, 0}, 6), (std::vector<int32_t>{0, 4, 1, 3, 2, 5}));
  EXPECT_EQ(by_frequency({1, 2, 3, 4}, {}, 2), (std::vector<int32_t>{1, 0})) << "counts of ids without a row are passed over";
}

TEST(HeadBands, UnfinishedWorkWithBandsGoesOnWithTheSameBandsOnly) {
  const fs::path folder = new_model("bands-resume");
  QuantizeRequest whole = request_in(folder, "whole", {gptq_method()});
  whole.head_bits = 3;
  whole.head_group_size = 32;
  whole.head_frequent = {{8, 10}};
  quantize(whole);
  QuantizeRequest part = whole;
  part.output = folder / "part";
  part.on_block = [](int64_t layer) {
    if (layer == 2) throw Interrupted();
  };
  EXPECT_THROW(quantize(part), Interrupted);
  part.on_block = {};
  for (const std::vector<HeadBand>& other : {std::vector<HeadBand>{}, {{8, 11}}, {{8, 10}, {4, 3}}}) {
    part.head_frequent = other;
    const std::string message = message_of<OptionError>([&] { quantize(part); });
    EXPECT_TRUE(contains(message, "head_frequent")) << message;
  }
  part.head_frequent = whole.head_frequent;
  quantize(part);
  EXPECT_EQ(contents(folder / "whole"), contents(folder / "part"));
}

}  // namespace
}  // namespace lighten
