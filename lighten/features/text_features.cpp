#include "lighten/features/text_features.h"

#include <ATen/Parallel.h>

#include <map>
#include <memory>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/data/packages.h"
#include "lighten/data/sha256.h"
#include "lighten/features/vector_store.h"
#include "lighten/nn/bert.h"

namespace lighten {
namespace {

constexpr int64_t kBatchTokens = 4096;   // a batch's activations stay in the caches, its products are large enough
constexpr int64_t kSaveTokens = 131072;  // what an interruption may cost: some seconds of work

/// Where the vectors of one call come from and go to.
struct Work {
  Features features;
  std::vector<std::vector<int64_t>> places;  ///< the rows that a distinct missing text fills
  std::vector<int64_t> missing;              ///< one row of each such text
  std::vector<VectorStore::Key> keys;        ///< and its key
};

Work look_up(const std::vector<std::string>& texts, int64_t width, const VectorStore* store) {
  Work work;
  work.features.rows = static_cast<int64_t>(texts.size());
  work.features.columns = width;
  work.features.values.resize(texts.size() * static_cast<size_t>(width));
  std::vector<VectorStore::Key> keys(texts.size());
  at::parallel_for(0, work.features.rows, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) keys[static_cast<size_t>(i)] = VectorStore::key_of(texts[static_cast<size_t>(i)]);
  });
  std::map<VectorStore::Key, size_t> seen;
  for (size_t i = 0; i < texts.size(); ++i) {
    float* row = work.features.values.data() + i * static_cast<size_t>(width);
    if (store && store->find(keys[i], {row, static_cast<size_t>(width)})) continue;
    const auto [it, added] = seen.try_emplace(keys[i], work.missing.size());
    if (added) {
      work.missing.push_back(static_cast<int64_t>(i));
      work.keys.push_back(keys[i]);
      work.places.emplace_back();
    }
    work.places[it->second].push_back(static_cast<int64_t>(i));
  }
  return work;
}

/// Computes the missing texts, longest first, and keeps them in the store from time to time.
void compute(Work& work, TextEncoder& encoder, const std::vector<std::string>& texts, const std::string& title,
             VectorStore* store) {
  const torch::NoGradGuard no_grad;
  const auto count = static_cast<int64_t>(work.missing.size());
  const auto width = static_cast<size_t>(work.features.columns);
  std::vector<std::vector<int32_t>> ids(work.missing.size());
  std::vector<int64_t> lengths(work.missing.size());
  at::parallel_for(0, count, 64, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      ids[i] = token_ids(encoder, texts[static_cast<size_t>(work.missing[i])]);
      lengths[i] = static_cast<int64_t>(ids[i].size());
    }
  });
  int64_t total = 0, unsaved = 0;
  for (const int64_t length : lengths) total += length;
  Progress progress(title, total, "tokens");
  std::vector<VectorStore::Key> new_keys;
  std::vector<float> new_rows;
  const auto save = [&] {
    if (store && !new_keys.empty()) store->append(new_keys, new_rows);
    new_keys.clear();
    new_rows.clear();
    unsaved = 0;
  };
  for (const auto& batch : batches_by_length(lengths, kBatchTokens)) {
    std::vector<std::vector<int32_t>> rows;
    int64_t tokens = 0;
    for (const int64_t i : batch) {
      rows.push_back(ids[static_cast<size_t>(i)]);
      tokens += lengths[static_cast<size_t>(i)];
    }
    const torch::Tensor vectors = embed(encoder, rows).contiguous();
    const float* from = vectors.data_ptr<float>();
    for (size_t k = 0; k < batch.size(); ++k, from += width) {
      const auto i = static_cast<size_t>(batch[k]);
      for (const int64_t place : work.places[i])
        std::copy(from, from + width, work.features.values.data() + static_cast<size_t>(place) * width);
      new_keys.push_back(work.keys[i]);
      new_rows.insert(new_rows.end(), from, from + width);
    }
    unsaved += tokens;
    if (unsaved >= kSaveTokens || interrupt_requested()) save();
    progress.advance(tokens);
  }
  save();
  progress.finish();
}

Features features_of(const std::function<fs::path()>& model, const std::string& store_name, int64_t width,
                     const std::vector<std::string>& texts, const std::string& name, const FeatureOptions& options) {
  if (options.max_tokens < 3 || options.max_tokens > 512)
    throw_error<OptionError>("max_tokens is {}; it must lie between 3 and 512", options.max_tokens);
  std::optional<VectorStore> store;
  if (options.cache) store.emplace(cache_folder() / "features", fmt::format("{}-{}", store_name, options.max_tokens), width);
  Work work = look_up(texts, width, store ? &*store : nullptr);
  if (work.missing.empty()) return std::move(work.features);
  TextEncoder encoder = load_text_encoder(model());
  encoder.max_tokens = std::min(options.max_tokens, encoder.bert->config.positions);
  compute(work, encoder, texts, "features of " + name, store ? &*store : nullptr);
  return std::move(work.features);
}

}  // namespace

Features minilm_features(const std::vector<std::string>& texts, const std::string& name, const FeatureOptions& options) {
  return features_of([] { return data_path("minilm-l6"); }, "minilm-l6", 384, texts, name, options);
}

Features text_features(const fs::path& model, const std::vector<std::string>& texts, const std::string& name,
                       const FeatureOptions& options) {
  std::string hashes;
  if (options.cache)
    for (const char* file : {"config.json", "tokenizer.json", "model.safetensors"})
      hashes += fs::exists(model / file) ? sha256_of_file(model / file) : "-";
  return features_of([&] { return model; }, sha256(hashes).substr(0, 16), read_bert_config(model).hidden_size, texts, name,
                     options);
}

}  // namespace lighten
