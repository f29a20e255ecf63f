// The C++ side of tests/interop/logits_interop.py: reads jobs, writes ids and logits. Skipped unless that script runs it.
#include <gtest/gtest.h>

#include <cstdlib>

#include "lighten/base/file.h"
#include "lighten/formats/safetensors.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/nn/decoder.h"

namespace lighten {
namespace {

std::span<const std::byte> bytes_of(const torch::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

/// The job's "ids", or the first "tokens" of its "text" by the model's own tokenizer, BOS before them if the model expects one.
std::vector<int64_t> ids_of(const Json& job, const WeightSource& source) {
  if (job.contains("ids")) return job["ids"].get<std::vector<int64_t>>();
  const auto tokenizer = source.tokenizer();
  const auto encoded = tokenizer->encode(read_file(job["text"].get<std::string>()));
  std::vector<int64_t> ids;
  if (tokenizer->adds_bos()) ids.push_back(tokenizer->bos());
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  const auto tokens = job["tokens"].get<size_t>();
  EXPECT_GE(ids.size(), tokens) << "the text is too short";
  ids.resize(std::min(ids.size(), tokens));
  return ids;
}

TEST(Interop, WritesTheLogitsOfEveryJob) {
  const char* folder = std::getenv("LIGHTEN_INTEROP_DIR");
  if (!folder) GTEST_SKIP() << "run by tests/interop/logits_interop.py";
  const torch::InferenceMode inference;
  for (const Json& job : Json::parse(read_file(fs::path(folder) / "jobs.json"))) {
    const auto source = open_weights(job["model"].get<std::string>());
    Decoder decoder = load_decoder(*source);
    const auto ids = torch::tensor(ids_of(job, *source));
    const auto logits = decoder->forward(ids.unsqueeze(0)).squeeze(0).contiguous();
    write_safetensors(fs::path(folder) / (job["name"].get<std::string>() + ".logits.safetensors"),
                      {{"ids", DType::i64, ids.sizes().vec(), bytes_of(ids)},
                       {"logits", DType::f32, logits.sizes().vec(), bytes_of(logits)}});
  }
}

}  // namespace
}  // namespace lighten
