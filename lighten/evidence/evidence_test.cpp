#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/evidence/recipe.h"

namespace lighten {
namespace {

class Evidence : public testing::Test {
 protected:
  void SetUp() override { folder_ = fs::temp_directory_path() / fmt::format("lighten-evidence-test-{}", ::getpid()); }
  void TearDown() override { fs::remove_all(folder_); }
  Bench bench(RecipeSize size = RecipeSize::standard, uint64_t seed = 0) {
    return Bench("sample", "A claim & more", size, seed, folder_, 1);
  }
  Json result() const { return Json::parse(read_file(folder_ / "result.json")); }
  fs::path folder_;
};

/// Checks nesting of the tags, quoting of attributes, uniqueness of ids; returns what is wrong with the page, "" if nothing.
std::string html_faults(const std::string& page) {
  static const std::vector<std::string> empty_elements = {"meta", "link", "br", "img", "!DOCTYPE"};
  std::vector<std::string> open, ids;
  for (size_t at = 0; (at = page.find('<', at)) != std::string::npos;) {
    const size_t end = page.find('>', at);
    if (end == std::string::npos) return "a tag that does not end";
    const std::string tag = page.substr(at + 1, end - at - 1);
    const bool closing = tag[0] == '/';
    const std::string name = tag.substr(closing, tag.find_first_of(" /\n", 1) - closing);
    for (size_t id = 0; (id = tag.find(" id=\"", id)) != std::string::npos; ++id) {
      const std::string value = tag.substr(id + 5, tag.find('"', id + 5) - id - 5);
      if (std::find(ids.begin(), ids.end(), value) != ids.end()) return "id twice: " + value;
      ids.push_back(value);
    }
    if (std::count(tag.begin(), tag.end(), '"') % 2) return "quotes in <" + tag + ">";
    if (closing) {
      if (open.empty() || open.back() != name) return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back());
      open.pop_back();
    } else if (tag.back() != '/' && std::find(empty_elements.begin(), empty_elements.end(), name) == empty_elements.end()) {
      open.push_back(name);
    }
    at = end;
    if (name == "style" && !closing) at = page.find("</style>", at) - 1;
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

TEST(HtmlFaults, FindsWhatItIsMeantToFind) {
  EXPECT_EQ(html_faults("<p>a<br>b</p>"), "");
  EXPECT_NE(html_faults("<p><b>a</p></b>"), "");
  EXPECT_NE(html_faults("<p>a"), "");
  EXPECT_NE(html_faults("<p id=\"a\"></p><p id=\"a\"></p>"), "");
}

TEST_F(Evidence, MeanAndSampleDeviationAreInClosedForm) {
  Bench b = bench();
  const std::vector<double> values = {2, 4, 9};
  for (const uint64_t seed : b.seeds(3))
    b.arm("a", seed, [&] { return std::map<std::string, double>{{"loss", values[seed]}}; });
  EXPECT_DOUBLE_EQ(b.mean("a", "loss"), 5);
  EXPECT_DOUBLE_EQ(b.sd("a", "loss"), std::sqrt(13.0));  // (9 + 1 + 16) / 2
  b.finish();
  const Json arm = result().at("arms").at("a").at("loss");
  EXPECT_EQ(arm.at("values"), Json::parse("[2.0, 4.0, 9.0]"));
  EXPECT_DOUBLE_EQ(arm.at("mean").get<double>(), 5);
  EXPECT_DOUBLE_EQ(arm.at("sd").get<double>(), std::sqrt(13.0));
}

TEST_F(Evidence, MarginIsTheMeanOfThePairedRelativeDifferences) {
  Bench b = bench(RecipeSize::standard, 5);
  const std::vector<double> good = {8, 18}, bad = {10, 24};
  for (const uint64_t seed : b.seeds(2)) {
    b.arm("good", seed, [&] { return std::map<std::string, double>{{"loss", good[seed - 5]}}; });
    b.arm("bad", seed, [&] { return std::map<std::string, double>{{"loss", bad[seed - 5]}}; });
  }
  b.claim_below("good is below bad", "good", "bad", "loss");
  b.claim_below("bad is below good", "bad", "good", "loss");
  b.claim("free", -0.25);
  const std::string text = b.finish();
  const Json claims = result().at("claims");
  EXPECT_TRUE(claims[0].at("holds").get<bool>());
  EXPECT_DOUBLE_EQ(claims[0].at("margin").get<double>(), (0.2 + 0.25) / 2);
  EXPECT_FALSE(claims[1].at("holds").get<bool>());
  EXPECT_DOUBLE_EQ(claims[1].at("margin").get<double>(), (-0.25 - 1.0 / 3) / 2);
  EXPECT_DOUBLE_EQ(claims[2].at("margin").get<double>(), -0.25);
  EXPECT_NE(text.find("FAILS  free (margin -25.0 %)"), std::string::npos) << text;
}

TEST_F(Evidence, OnlySeedsOfBothArmsArePaired) {
  Bench b = bench();
  b.arm("a", 0, [] { return std::map<std::string, double>{{"m", 1}}; });
  b.arm("a", 1, [] { return std::map<std::string, double>{{"m", 100}}; });
  b.arm("b", 0, [] { return std::map<std::string, double>{{"m", 2}}; });
  b.claim_below("one pair", "a", "b", "m");
  EXPECT_THROW(b.claim_below("none", "a", "c", "m"), Error);
  b.finish();
  EXPECT_DOUBLE_EQ(result().at("claims")[0].at("margin").get<double>(), 0.5);
}

TEST_F(Evidence, AKilledRunGoesOnWhereItWas) {
  int measured = 0;
  const auto measure = [&] {
    return ++measured, std::map<std::string, double>{{"m", 7}, {"inf", std::numeric_limits<double>::infinity()}};
  };
  {
    Bench b = bench();
    b.arm("a", 0, measure);
    EXPECT_THROW(b.arm("a", 1, [&]() -> std::map<std::string, double> { throw Interrupted(); }), Interrupted);
  }
  Bench b = bench();
  b.arm("a", 0, measure);
  b.arm("a", 1, measure);
  EXPECT_EQ(measured, 2);
  b.finish();
  EXPECT_EQ(result().at("arms").at("a").at("m").at("values").size(), 2u);
  EXPECT_TRUE(result().at("arms").at("a").at("inf").at("values")[0].is_null());
  Bench next = bench();  // a finished run leaves nothing to resume
  next.arm("a", 0, measure);
  EXPECT_EQ(measured, 3);
}

TEST_F(Evidence, AnotherSizeDoesNotReuseMeasurements) {
  int measured = 0;
  const auto measure = [&] { return ++measured, std::map<std::string, double>{{"m", 7}}; };
  bench(RecipeSize::smoke).arm("a", 0, measure);
  bench(RecipeSize::full).arm("a", 0, measure);
  EXPECT_EQ(measured, 2);
}

TEST_F(Evidence, ADamagedStateFileIsNamed) {
  fs::create_directories(folder_);
  write_file(folder_ / "state-default.json", "{\"id\": \"sample\"");
  try {
    bench();
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("state-default.json"), std::string::npos);
  }
}

TEST_F(Evidence, ResultSaysWhatItIs) {
  Bench b = bench(RecipeSize::full, 3);
  b.arm("a", 3, [] { return std::map<std::string, double>{{"m", 1}}; });
  b.setting("text", "prose");
  b.version("torch", "2");
  b.finish();
  const Json json = result();
  EXPECT_EQ(json.at("id"), "sample");
  EXPECT_EQ(json.at("size"), "full");
  EXPECT_EQ(json.at("seeds"), Json::parse("[3]"));
  EXPECT_EQ(json.at("settings").at("text"), "prose");
  EXPECT_EQ(json.at("versions").at("lighten"), LIGHTEN_VERSION);
  EXPECT_EQ(json.at("command"), "lighten reproduce sample --full --seed 3");
  EXPECT_GE(json.at("seconds").get<double>(), 0);
  EXPECT_GT(json.at("peak_bytes").get<uint64_t>(), 100000u);
}

TEST_F(Evidence, ReportIsWellFormedAndSelfContained) {
  Bench b = bench();
  for (const uint64_t seed : b.seeds(3)) {
    b.arm("rtn <3>", seed, [&] {
      return std::map<std::string, double>{{"perplexity", 50.0 + static_cast<double>(seed)}, {"size", 60}};
    });
    b.arm("awq \"3\" & co", seed, [&] { return std::map<std::string, double>{{"perplexity", 30.0}, {"size", 60}}; });
  }
  b.baseline("rtn <3>");
  b.describe_metric("perplexity", "perplexity, near text");
  b.describe_metric("size", "size", "MB");
  b.claim_below("awq < rtn", "awq \"3\" & co", "rtn <3>", "perplexity");
  b.note("A note with `code` & <tags>.");
  b.plot({Plot::Kind::scatter,
          "Quality against size",
          "caption",
          "size, MB",
          "perplexity",
          {{"a", {1, 2, std::nan("")}, {3, 4, 5}, {"x", "y & z", ""}, {}}, {"b", {}, {}, {}, {}}},
          true,
          true});
  b.plot_lines("Error", "block", "error", {{"q", {0, 1, 2}, {0.1, 0.0, 0.3}, {}, {}}}, true);
  b.plot_bars("Bars", "ppl",
              {{"near", {}, {1, 2}, {"rtn", "awq"}, {0.1, 0.2}},
               {"far", {}, {3, std::numeric_limits<double>::infinity()}, {"rtn", "awq"}, {}}});
  b.finish();
  const std::string page = read_file(folder_ / "report.html");
  EXPECT_EQ(html_faults(page), "");
  for (const char* word : {"http:", "https:", "src=", "href=", "url(", "<script", "@import"})
    EXPECT_EQ(page.find(word), std::string::npos) << word;
  for (const char* word : {"name=\"viewport\"", "prefers-color-scheme:dark", "role=\"img\"", "rtn &lt;3&gt;", "holds",
                           "size, MB", "-41.2 %", "<code>code</code>"})
    EXPECT_NE(page.find(word), std::string::npos) << word;
  EXPECT_EQ(page.find("nan"), std::string::npos);
}

TEST(Plot, TicksAreRoundAndCoverTheRange) {
  EXPECT_EQ(axis_ticks(0, 10, false), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(axis_ticks(20, 33, false), (std::vector<double>{20, 25, 30}));
  EXPECT_EQ(axis_ticks(1, 1000, true), (std::vector<double>{1, 3, 10, 30, 100, 300, 1000}));
  EXPECT_EQ(axis_ticks(21, 29, true), (std::vector<double>{22, 24, 26, 28}));
  EXPECT_EQ(axis_ticks(-0.4, 0.4, false), (std::vector<double>{-0.4, -0.2, 0, 0.2, 0.4}));
}

TEST(Plot, NumbersAreShort) {
  EXPECT_EQ(axis_number(0), "0");
  EXPECT_EQ(axis_number(0.25), "0.25");
  EXPECT_EQ(axis_number(1234567), "1,234,567");
  EXPECT_EQ(axis_number(-12345), "-12,345");
  EXPECT_EQ(axis_number(0.00002), "2e-05");
  EXPECT_EQ(axis_number(21.451), "21.45");
  EXPECT_EQ(axis_number(100), "100");
}

TEST(Plot, PointsStandWhereTheScaleSaysTheyStand) {
  // On a log axis equal ratios are equal distances: 1, 10, 100 are drawn at equal steps.
  const std::string svg =
      to_svg({Plot::Kind::scatter, "t", "", "x", "y", {{"s", {1, 10, 100}, {1, 2, 3}, {}, {}}}, true, false}, 400, "p");
  std::vector<double> xs, ys;
  for (size_t at = 0; (at = svg.find("<circle cx=\"", at)) != std::string::npos; ++at) {
    xs.push_back(std::stod(svg.substr(at + 12)));
    ys.push_back(std::stod(svg.substr(svg.find("cy=\"", at) + 4)));
  }
  ASSERT_EQ(xs.size(), 4u);  // one stands in the legend
  EXPECT_NEAR(xs[2] - xs[1], xs[3] - xs[2], 0.11);
  EXPECT_NEAR(ys[1] - ys[2], ys[2] - ys[3], 0.11);
  EXPECT_GT(ys[1], ys[2]);  // larger is higher
}

TEST(Plot, AnSvgDocumentStandsAlone) {
  const Plot plot{Plot::Kind::scatter, "T", "", "x", "y", {{"a", {1, 2}, {3, 4}, {"a", "b"}, {}}}, false, false};
  const std::string svg = svg_document(plot, 600);
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_NE(svg.find("<style>"), std::string::npos);
  EXPECT_NE(svg.find("--c0:"), std::string::npos);
  EXPECT_LT(svg.find("<style>"), svg.find("<text"));
}

TEST(Plot, LengthOfABarIsProportionalToItsValue) {
  const std::string svg =
      to_svg({Plot::Kind::bars, "t", "", "", "y", {{"s", {}, {10, 20, 40}, {"a", "b", "c"}, {}}}, false, false}, 400, "p");
  std::vector<double> widths;
  for (size_t at = 0; (at = svg.find("width=\"", at + 1)) != std::string::npos;)
    if (svg.compare(svg.rfind('<', at), 5, "<rect") == 0) widths.push_back(std::stod(svg.substr(at + 7)));
  ASSERT_EQ(widths.size(), 3u);
  EXPECT_NEAR(widths[1] / widths[0], 2, 0.01);
  EXPECT_NEAR(widths[2] / widths[0], 4, 0.01);
}

}  // namespace
}  // namespace lighten
