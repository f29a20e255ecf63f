#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <thread>

#include "lighten/base/error.h"
#include "lighten/base/file.h"
#include "lighten/base/half.h"
#include "lighten/base/options.h"
#include "lighten/base/output_file.h"
#include "lighten/base/process.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/base/table.h"
#include "lighten/base/threads.h"

namespace lighten {
namespace {

fs::path scratch(const std::string& name) {
  const fs::path path = fs::temp_directory_path() / ("lighten-base-test-" + std::to_string(::getpid())) / name;
  fs::remove_all(path);
  fs::create_directories(path.parent_path());
  return path;
}

TEST(Half, EveryBitPatternSurvivesTheRoundTripAndRoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = half_to_float(static_cast<Half>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
      continue;
    }
    ASSERT_EQ(float_to_half(value), bits) << value;
#if defined(__aarch64__)  // where C++ has no _Float16 before gcc 13
    ASSERT_EQ(value, static_cast<float>(std::bit_cast<__fp16>(static_cast<uint16_t>(bits))));
#elif defined(__FLT16_MAX__)
    ASSERT_EQ(value, static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits))));
#endif
  }
  EXPECT_EQ(float_to_half(65519.99f), 0x7bff);  // largest that still rounds to 65504
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);   // rounds to infinity
  EXPECT_EQ(float_to_half(2049.0f), float_to_half(2048.0f));
  EXPECT_EQ(float_to_half(2051.0f), float_to_half(2052.0f));
  EXPECT_EQ(float_to_half(0x1p-25f), 0);  // half of the smallest subnormal goes to even
  EXPECT_EQ(float_to_half(0x1.8p-25f), 1);
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(bfloat16_to_float(float_to_bfloat16(1.00390625f)), 1.0f);
  EXPECT_EQ(bfloat16_to_float(float_to_bfloat16(1.01171875f)), 1.015625f);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(ThreadPool, EveryItemRunsExactlyOnceForManySizes) {
  ThreadPool pool(3);
  for (const int64_t n : {1, 2, 7, 64, 1000, 4097}) {
    std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
    pool.parallel_for(n, 3, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
    });
    for (const auto& hit : hits) ASSERT_EQ(hit, 1);
  }
}

TEST(ThreadPool, RethrowsAndGoesOnWorking) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.parallel_for(100, 1,
                                 [](int64_t begin, int64_t) {
                                   if (begin == 50) throw FormatError("x");
                                 }),
               FormatError);
  std::atomic<int64_t> sum{0};
  for (int repeat = 0; repeat < 2000; ++repeat) pool.parallel_for(10, 1, [&](int64_t begin, int64_t) { sum += begin; });
  EXPECT_EQ(sum, 2000 * 45);
}

TEST(AtomicFile, NothingAppearsWithoutCommitAndTheOldFileStays) {
  const fs::path path = scratch("atomic/file.txt");
  fs::create_directories(path.parent_path());
  write_file(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(path.parent_path()), fs::directory_iterator()), 1);
  write_file(path, "new");
  EXPECT_EQ(read_file(path), "new");
}

TEST(AtomicFile, WritesThroughLinksAndStraightIntoDevices) {
  const fs::path folder = scratch("links");
  fs::create_directories(folder);
  write_file(folder / "real", "old");
  fs::create_symlink("real", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "real"), "new");
  fs::create_symlink("yet to come", folder / "dangling");
  write_file(folder / "dangling", "made");
  EXPECT_TRUE(fs::is_symlink(folder / "dangling"));
  EXPECT_EQ(read_file(folder / "yet to come"), "made");
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] { got = read_file(pipe); });
  check_writable(pipe);
  write_file(pipe, "through");
  reader.join();
  EXPECT_EQ(got, "through");
  EXPECT_TRUE(fs::is_fifo(pipe));
  write_file("/dev/null", "gone");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_THROW(write_file(folder, "x"), FileError);
}

TEST(CheckWritable, RefusesFoldersAndMissingFoldersAndLeavesNothing) {
  const fs::path folder = scratch("writable");
  fs::create_directories(folder);
  write_file(folder / "kept", "old");
  check_writable(folder / "kept");
  check_writable(folder / "fresh");
  EXPECT_EQ(read_file(folder / "kept"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
  EXPECT_THROW(check_writable(folder), FileError);
  EXPECT_THROW(check_writable(folder / "no" / "file"), FileError);
}

TEST(CheckOutputFile, KeepsAFileThatExistsUnlessForced) {
  fs::create_directories(scratch("output"));
  const fs::path file = scratch("output/file");
  EXPECT_NO_THROW(check_output_file(file, false));
  EXPECT_FALSE(fs::exists(file));
  write_file(file, "old");
  EXPECT_THROW(check_output_file(file, false), FileError);
  EXPECT_NO_THROW(check_output_file(file, true));
  EXPECT_EQ(read_file(file), "old");
  EXPECT_NO_THROW(check_output_file("/dev/null", false));
  EXPECT_THROW(check_output_file(file.parent_path(), true), FileError);
}

TEST(IsWithin, ComparesWholeNamesAndResolvesLinks) {
  const fs::path folder = scratch("within");
  fs::create_directories(folder / "model");
  fs::create_directory_symlink("model", folder / "alias");
  EXPECT_TRUE(is_within(folder / "model", folder / "model/"));
  EXPECT_TRUE(is_within(folder / "model/new/out", folder / "model"));
  EXPECT_TRUE(is_within(folder / "alias/out", folder / "model"));
  EXPECT_TRUE(is_within(folder / "x/../model", folder / "alias"));
  EXPECT_FALSE(is_within(folder / "model-light", folder / "model"));
  EXPECT_FALSE(is_within(folder, folder / "model"));
}

TEST(ReadFile, ReadsFilesThatTellNoSize) { EXPECT_NE(read_file("/proc/cpuinfo").find("processor"), std::string::npos); }

TEST(JsonText, TakesBytesThatAreNoUtf8) {
  EXPECT_EQ(json_text({{"path", "a\xff"}}), "{\"path\":\"a\xef\xbf\xbd\"}");
  EXPECT_EQ(json_text(Json::array({1}), 1), "[\n 1\n]");
}

TEST(AtomicFolder, RefusesAnExistingFolderAndReplacesItOnlyOnCommit) {
  const fs::path path = scratch("folder");
  {
    AtomicFolder first(path, false);
    write_file(first.path() / "a", "1");
    first.commit();
  }
  EXPECT_THROW(AtomicFolder(path, false), FileError);
  {
    AtomicFolder folder(path, true);
    write_file(folder.path() / "b", "2");
  }
  EXPECT_TRUE(fs::exists(path / "a"));
  AtomicFolder folder(path, true);
  write_file(folder.path() / "b", "2");
  folder.commit();
  EXPECT_FALSE(fs::exists(path / "a"));
  EXPECT_EQ(read_file(path / "b"), "2");
}

TEST(AtomicFolder, ForceNeverCostsForeignFiles) {
  const fs::path path = scratch("foreign");
  const auto refusal = [&] {
    try {
      AtomicFolder folder(path, true);
    } catch (const FileError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  fs::create_directories(path);
  EXPECT_EQ(refusal(), "") << "an empty folder may be replaced";
  write_file(path / "thesis.txt", "years");
  EXPECT_NE(refusal().find("not written by lighten"), std::string::npos) << "never a folder of others";
  EXPECT_EQ(read_file(path / "thesis.txt"), "years");
  fs::remove(path / "thesis.txt");
  {
    AtomicFolder folder(path, true);
    write_file(folder.path() / "b", "2");
    write_file(folder.path() / ".lighten", "segment-*\n");
    folder.commit();
  }
  EXPECT_EQ(read_file(path / ".lighten"), "b\nsegment-*\n");
  write_file(path / "segment-7", "added later");
  EXPECT_EQ(refusal(), "");
  write_file(path / "thesis.txt", "years");
  EXPECT_NE(refusal().find("thesis.txt"), std::string::npos) << "nor files of others in a folder of ours";
}

TEST(MappedFile, MissingFileAndFolderAreNamed) {
  try {
    MappedFile file("/nonexistent/x");
    FAIL();
  } catch (const FileError& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/x"), std::string::npos);
  }
  EXPECT_THROW(MappedFile file(fs::temp_directory_path()), FileError);
}

struct Example {
  int bits = 4;
  bool clip = true;
  double ratio = 0.5;
  std::string mode = "fast";
};
OptionList describe(Example& e) {
  return {option("bits", e.bits, one_of({2, 3, 4, 8}), "bits", "test"),
          {"clip", e.clip, "clip", "test"},
          option("ratio", e.ratio, range(0, 1), "ratio", "test"),
          option("mode", e.mode, one_of(std::vector<std::string>{"fast", "exact"}), "mode", "test")};
}

TEST(Options, SetValidateAndJson) {
  Example e;
  OptionList list = describe(e);
  list[0].set("3");
  EXPECT_EQ(e.bits, 3);
  EXPECT_THROW(list[0].set("5"), OptionError);
  EXPECT_THROW(list[0].set("3x"), OptionError);
  EXPECT_THROW(list[2].set("1.5"), OptionError);
  EXPECT_THROW(list[2].set("nan"), OptionError);
  Example fresh;
  set_from_json(describe(fresh), Json{{"bits", 8}, {"clip", false}});
  EXPECT_EQ(fresh.bits, 8);
  EXPECT_FALSE(fresh.clip);
  try {
    set_from_json(describe(fresh), Json{{"bist", 8}});
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'bits'"), std::string::npos) << error.what();
  }
  EXPECT_EQ(to_json(describe(fresh)).dump(), R"({"bits":8,"clip":false,"ratio":0.5,"mode":"fast"})");
}

TEST(Options, NearestNameNeedsToBeNear) {
  EXPECT_EQ(nearest_name("agw", {"awq", "gptq", "rtn"}), "awq");
  EXPECT_EQ(nearest_name("xyz", {"awq", "gptq", "rtn"}), "");
  EXPECT_EQ(nearest_name("smollm2-1.7b", {"gemma3-270m", "prose"}), "");
  EXPECT_EQ(nearest_name("aqw", {"awq", "gptq", "rtn"}), "awq");
  EXPECT_EQ(nearest_name("qptq", {"awq", "gptq", "rtn"}), "gptq");
}

TEST(ThreadPool, NeverHoldsMoreThanFourThreadsAProcessor) {
  EXPECT_EQ(usable_threads(0), available_processors());
  EXPECT_EQ(usable_threads(1), 1);
  EXPECT_EQ(usable_threads(4 * available_processors()), 4 * available_processors());
  EXPECT_EQ(usable_threads(1 << 30), 4 * available_processors());
  EXPECT_EQ(ThreadPool(4096).size(), 4 * available_processors());
}

TEST(ReadFile, ReadsPipesToTheirEnd) {
  const fs::path pipe = scratch("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string text(200000, 'x');  // more than a pipe holds
  std::thread writer([&] { std::ofstream(pipe, std::ios::binary) << text; });
  EXPECT_EQ(read_file(pipe), text);
  writer.join();
  EXPECT_EQ(read_file("/dev/null"), "");
  EXPECT_THROW(read_file(pipe.parent_path()), FileError);
}

TEST(Random, IsReproducibleAndUniform) {
  Random a(7), b(7);
  double sum = 0;
  for (int i = 0; i < 100000; ++i) {
    const double u = a.uniform();
    ASSERT_EQ(u, b.uniform());
    sum += u;
  }
  EXPECT_NEAR(sum / 100000, 0.5, 4 * 0.2887 / std::sqrt(100000.0));  // four standard errors
}

TEST(Process, ReturnsOutputAndExitCode) {
  EXPECT_EQ(run_process({"sh", "-c", "echo hello; exit 3"}).exit_code, 3);
  EXPECT_EQ(run_process({"echo", "a b"}).output, "a b\n");
  EXPECT_EQ(run_process({"no-such-program-here"}).exit_code, 127);
}

TEST(Text, BytesSecondsAndTables) {
  EXPECT_EQ(human_bytes(98.4e6), "98.4 MB");
  EXPECT_EQ(human_seconds(61), "61 s");
  EXPECT_EQ(human_seconds(200), "3 min 20 s");
  Table table({"name", "size"});
  table.row({"a", "10"});
  table.row({"long", "9"});
  EXPECT_EQ(table.text(), "name  size\n----------\na       10\nlong     9\n");
}

}  // namespace
}  // namespace lighten
