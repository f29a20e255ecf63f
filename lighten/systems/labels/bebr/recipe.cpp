// The reproduction: synopses of Debian packages ask for their descriptions, MiniLM vectors, all descriptions in one index.
#include "lighten/systems/labels/bebr/recipe.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/base/threads.h"
#include "lighten/data/deb_sets.h"
#include "lighten/evidence/seeds.h"
#include "lighten/features/text_features.h"
#include "lighten/index/index.h"
#include "lighten/kernels/cpu.h"
#include "lighten/nn/product.h"
#include "lighten/systems/labels/bebr/bebr.h"
#include "lighten/systems/labels/bebr/lsa.h"
#include "lighten/train/loader.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;
constexpr int64_t kNeighbours = 10;
constexpr int64_t kOldDimensions = 128;

/// What the three sizes differ in.
struct Extent {
  int64_t limit;  ///< pairs of each split; 0: all
  int64_t train;  ///< pairs of the training side that are learnt from; 0: all
  int64_t epochs;
  int seeds;
  bool claims, ablations;
};
Extent extent_of(RecipeSize size) {
  if (size == RecipeSize::smoke) return {100, 0, 1, 1, false, false};
  if (size == RecipeSize::standard) return {3500, 0, 2, 3, true, false};
  return {0, 16000, 1, 3, true, true};
}

/// A learned or fixed code of the table.
struct CodeArm {
  std::string name;
  int64_t dimensions;
  int loops;
  bool trains = true;      ///< false: the warm start alone
  bool warm_start = true;  ///< false: from random weights, with the larger rate that these need
};
constexpr double kColdRate = 1e-3;  // where much must be learned: from random weights, or another encoder's codes
constexpr int64_t kCompatibleEpochs = 1;
const CodeArm kMain{"bebr-128B", 256, 3};

class Laboratory {
 public:
  explicit Laboratory(Bench& bench) : bench_(bench), extent_(extent_of(bench.size())), pool_(bench.threads()) {}
  const Extent& extent() const { return extent_; }

  /// Data, split and vectors of a seed; loaded only when an arm is measured.
  void use(uint64_t seed) {
    if (seed_ == static_cast<int64_t>(seed)) return;
    set_ = deb_pairs_set({.fetch = true, .limit = extent_.limit, .split_seed = seed});
    if (extent_.limit > 0) drop_validation();
    queries_ = minilm_features(set_.queries, "synopses");
    documents_ = minilm_features(set_.documents, "descriptions");
    train_ = samples_of(set_.splits, Split::train);
    if (extent_.train > 0 && extent_.train < static_cast<int64_t>(train_.size())) {
      Random random(derived_seed(seed, 30));
      random.shuffle(train_);
      train_.resize(static_cast<size_t>(extent_.train));
    }
    test_ = samples_of(set_.splits, Split::test);
    seed_ = static_cast<int64_t>(seed);
    const auto test_queries = gather(queries_.values, queries_.columns, test_);
    float_ids_ = float_neighbours(test_queries);
    old_.reset();
    trained_.clear();
  }

  Metrics float_arm() {
    Metrics metrics = recalls(float_ids_);
    metrics["bytes"] = static_cast<double>(documents_.columns) * 4;
    return metrics;
  }

  Metrics learned(const CodeArm& arm, uint64_t seed) {
    const auto begin = std::chrono::steady_clock::now();
    const CodeEncoder& encoder = trained(arm, seed);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    Metrics metrics = of_encoder(encoder, arm.name);
    metrics["training_seconds"] = seconds;
    return metrics;
  }
  Metrics fixed(const CodeArm& arm, uint64_t seed) {
    const std::vector<float> rows = gather(documents_.values, documents_.columns, train_);
    const bool few = arm.dimensions <= documents_.columns;
    return of_encoder(few ? train_itq(rows, documents_.columns, arm.dimensions, 50, seed)
                          : random_signs(documents_.columns, arm.dimensions, seed),
                      arm.name);
  }

  /// Old encoder and old documents; new queries on them, with and without compatible training; all of the same m and u.
  Metrics old_on_old(const CodeArm& arm, uint64_t seed) {
    const Old& old = old_index(arm, seed);
    return recalls(search(old.encoder, old.vectors.queries, old.rows, "old"));
  }
  Metrics new_on_old(const CodeArm& arm, uint64_t seed, bool compatible) {
    const Old& old = old_index(arm, seed);
    if (!compatible) return recalls(search(trained(arm, seed), queries_.values, old.rows, arm.name));
    // The training pairs, then every document that has an old code beside itself: test queries are in neither.
    const int64_t width = documents_.columns, row_bytes = code_format(arm.dimensions, arm.loops).row_bytes();
    std::vector<float> q = gather(queries_.values, width, train_), d = gather(documents_.values, width, train_);
    std::vector<int64_t> groups = train_;
    std::vector<uint8_t> rows;
    for (const int64_t i : train_)
      rows.insert(rows.end(), old.rows.begin() + i * row_bytes, old.rows.begin() + (i + 1) * row_bytes);
    for (std::vector<float>* side : {&q, &d}) side->insert(side->end(), documents_.values.begin(), documents_.values.end());
    rows.insert(rows.end(), old.rows.begin(), old.rows.end());
    for (int64_t i = 0; i < set_.size(); ++i) groups.push_back(i);
    const OldCodes codes{code_format(arm.dimensions, arm.loops), rows};
    const BebrOptions options{.dimensions = arm.dimensions,
                              .loops = arm.loops,
                              .epochs = kCompatibleEpochs * extent_.epochs,
                              .learning_rate = kColdRate,
                              .seed = seed};
    const CodeEncoder encoder = train_bebr({.columns = width, .queries = q, .documents = d, .groups = groups}, options,
                                           fmt::format("compatible, seed {}", seed), &codes);
    return recalls(search(encoder, queries_.values, old.rows, "compatible"));
  }

  /// Milliseconds a query on one thread for all documents, and whether all forms find the same.
  Json scan_forms(const CodeArm& arm, uint64_t seed);

 private:
  struct Old {
    bebr::LsaVectors vectors;
    CodeEncoder encoder;
    std::vector<uint8_t> rows;
  };

  static std::vector<float> gather(const std::vector<float>& values, int64_t columns, const std::vector<int64_t>& rows) {
    std::vector<float> out;
    out.reserve(rows.size() * static_cast<size_t>(columns));
    for (const int64_t i : rows) out.insert(out.end(), values.begin() + i * columns, values.begin() + (i + 1) * columns);
    return out;
  }

  /// Trained once a seed.
  const CodeEncoder& trained(const CodeArm& arm, uint64_t seed) {
    const auto it = trained_.find(arm.name);
    if (it != trained_.end()) return it->second;
    return trained_.emplace(arm.name, train_on(queries_.values, documents_.values, documents_.columns, arm, seed))
        .first->second;
  }
  CodeEncoder train_on(const std::vector<float>& queries, const std::vector<float>& documents, int64_t columns,
                       const CodeArm& arm, uint64_t seed) {
    const std::vector<float> q = gather(queries, columns, train_), d = gather(documents, columns, train_);
    BebrOptions options{.dimensions = arm.dimensions, .loops = arm.loops, .warm_start = arm.warm_start};
    options.epochs = arm.trains ? extent_.epochs : 0;
    if (!arm.warm_start) options.learning_rate = kColdRate;
    options.seed = seed;
    const std::string title = columns != documents_.columns ? "old" : arm.name;
    return train_bebr({.columns = columns, .queries = q, .documents = d, .groups = {}}, options,
                      fmt::format("{}, seed {}", title, seed));
  }

  /// Small runs have no use for the validation side: neither its features nor its place in the index.
  void drop_validation() {
    PairSet kept;
    for (int64_t i = 0; i < set_.size(); ++i) {
      const auto at = static_cast<size_t>(i);
      if (set_.splits[at] == Split::validation) continue;
      kept.ids.push_back(set_.ids[at]);
      kept.queries.push_back(set_.queries[at]);
      kept.documents.push_back(set_.documents[at]);
      kept.keys.push_back(set_.keys[at]);
      kept.splits.push_back(set_.splits[at]);
    }
    set_ = std::move(kept);
  }

  std::vector<uint8_t> encode(const CodeEncoder& encoder, const std::vector<float>& vectors) {
    const CodeWriter writer(encoder);
    const int64_t n = static_cast<int64_t>(vectors.size()) / encoder.inputs;
    std::vector<uint8_t> rows(static_cast<size_t>(n * writer.format().row_bytes()));
    writer.encode(vectors.data(), n, rows.data(), pool_);
    return rows;
  }

  /// Neighbours of the test queries through an index on disk. `vectors` has a row for every pair.
  std::vector<int64_t> search(const CodeEncoder& encoder, const std::vector<float>& vectors, const std::vector<uint8_t>& rows,
                              const std::string& name) {
    const fs::path folder = bench_.folder() / ("index-" + name);
    create_index(folder, {.method = encoder.method, .format = encoder.format()}, rows.data(), set_.size(), {}, true, pool_);
    const Index index(folder);
    const std::vector<uint8_t> asked = encode(encoder, gather(vectors, encoder.inputs, test_));
    std::vector<int64_t> ids = index.search(asked.data(), static_cast<int64_t>(test_.size()), {.k = kNeighbours}, pool_).ids;
    fs::remove_all(folder);
    return ids;
  }

  Metrics of_encoder(const CodeEncoder& encoder, const std::string& name) {
    Metrics metrics = recalls(search(encoder, queries_.values, encode(encoder, documents_.values), name));
    metrics["bytes"] = static_cast<double>(encoder.format().row_bytes());
    return metrics;
  }

  std::vector<int64_t> float_neighbours(const std::vector<float>& test_queries) {
    const torch::NoGradGuard no_gradients;
    const int64_t d = documents_.columns, n = static_cast<int64_t>(test_queries.size()) / d;
    const torch::Tensor all = torch::from_blob(documents_.values.data(), {documents_.rows, d});
    std::vector<int64_t> ids;
    for (int64_t begin = 0; begin < n; begin += 512) {
      const int64_t count = std::min<int64_t>(512, n - begin);
      const torch::Tensor q = torch::from_blob(const_cast<float*>(test_queries.data()) + begin * d, {count, d});
      const torch::Tensor best = std::get<1>(product(q, all).topk(kNeighbours, 1)).contiguous();
      ids.insert(ids.end(), best.data_ptr<int64_t>(), best.data_ptr<int64_t>() + best.numel());
    }
    return ids;
  }

  Metrics recalls(const std::vector<int64_t>& ids) const {
    double first = 0, among = 0, shared = 0;
    for (size_t q = 0; q < test_.size(); ++q) {
      const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(q) * kNeighbours, end = begin + kNeighbours;
      const auto float_begin = float_ids_.begin() + static_cast<std::ptrdiff_t>(q) * kNeighbours;
      first += *begin == test_[q] ? 1 : 0;
      among += std::find(begin, end, test_[q]) != end ? 1 : 0;
      const std::set<int64_t> own(begin, end);
      for (auto it = float_begin; it != float_begin + kNeighbours; ++it) shared += own.contains(*it) ? 1.0 / kNeighbours : 0;
    }
    const auto n = static_cast<double>(test_.size());
    return {{"recall_1", first / n}, {"recall_10", among / n}, {"float_10", shared / n}};
  }

  const Old& old_index(const CodeArm& arm, uint64_t seed) {
    if (old_) return *old_;
    Old old{bebr::lsa_vectors(set_.queries, set_.documents, kOldDimensions), {}, {}};
    old.encoder = train_on(old.vectors.queries, old.vectors.documents, kOldDimensions, arm, seed);
    old.rows = encode(old.encoder, old.vectors.documents);
    return old_.emplace(std::move(old));
  }

  Bench& bench_;
  Extent extent_;
  ThreadPool pool_;
  int64_t seed_ = -1;
  PairSet set_;
  Features queries_, documents_;
  std::vector<int64_t> train_, test_, float_ids_;
  std::optional<Old> old_;
  std::map<std::string, CodeEncoder> trained_;
};

Json Laboratory::scan_forms(const CodeArm& arm, uint64_t seed) {
  const SdcShape shape{arm.dimensions, arm.loops};
  const int64_t n = set_.size(), queries = std::min<int64_t>(64, static_cast<int64_t>(test_.size()));
  std::vector<uint8_t> levels(static_cast<size_t>((n + queries) * arm.dimensions));
  Random random(seed);
  for (auto& level : levels) level = static_cast<uint8_t>(random.below(static_cast<uint64_t>(shape.levels()) + 1));
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  const auto blocks_of = [&](size_t bytes) {
    return std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  };
  const auto packed = blocks_of(sdc_bytes(n, shape)), planes = blocks_of(plane_bytes(n, shape));
  const int64_t blocks = (n + kScanBlock - 1) / kScanBlock;
  std::vector<float> norms(static_cast<size_t>(blocks * kScanBlock));
  pack_planes(shape, levels.data(), n, planes.get(), norms.data());
  pack_sdc(shape, levels.data(), n, packed.get(), norms.data());
  Json result{{"instruction_set", isa_name(current_isa())}, {"codes", n}};
  std::vector<std::vector<Hit>> reference;
  for (const auto& [name, form] : {std::pair<const char*, SdcForm>{"planes", SdcForm::planes}, {"sdc", best_sdc_form(shape)}}) {
    const SdcQueries panel(shape, levels.data() + n * arm.dimensions, queries, {}, form);
    double best_seconds = 1e9;
    std::vector<std::vector<Hit>> hits;
    for (int repeat = 0; repeat < 5; ++repeat) {
      std::vector<TopK> best(static_cast<size_t>(queries), TopK(kNeighbours, true));
      std::vector<TopK*> pointers;
      for (TopK& one : best) pointers.push_back(&one);
      const auto begin = std::chrono::steady_clock::now();
      scan_sdc({form == SdcForm::planes ? planes.get() : packed.get(), norms.data(), n, shape}, 0, blocks, panel, {pointers});
      best_seconds = std::min(best_seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      hits.clear();
      for (const TopK& one : best) hits.push_back(one.sorted());
    }
    result[fmt::format("{}_microseconds_per_query", name)] = best_seconds * 1e6 / static_cast<double>(queries);
    if (reference.empty()) reference = hits;
    result["identical"] = hits == reference;
  }
  return result;
}

void describe_metrics(Bench& bench) {
  bench.describe_metric("recall_10", "true description among the first 10");
  bench.describe_metric("recall_1", "true description first");
  bench.describe_metric("float_10", "share of float's first 10 found");
  bench.describe_metric("bytes", "a description's code", "bytes");
  bench.describe_metric("training_seconds", "training", "s");
  bench.baseline("float");
}

void run(Bench& bench) {
  describe_metrics(bench);
  Laboratory laboratory(bench);
  const Extent& extent = laboratory.extent();
  const std::vector<uint64_t> seeds = bench.seeds(extent.seeds);
  std::vector<CodeArm> learned = {kMain}, fixed = {{"signs-128B", 1024, 0}};
  if (extent.claims) {
    learned.push_back({"untrained-128B", 256, 3, false});
    learned.push_back({"bebr-u0-128B", 1024, 0});
    learned.push_back({"bebr-48B", 192, 1});
    fixed.push_back({"itq-48B", 384, 0});
  }
  if (extent.ablations) {
    learned.push_back({"bebr-96B", 192, 3});
    learned.push_back({"bebr-u1-128B", 512, 1});
    learned.push_back({"cold-128B", 256, 3, true, false});
  }
  std::vector<SeedArm> arms;
  const auto arm = [&](const std::string& name, const std::function<Metrics(uint64_t)>& measure) {
    arms.push_back({name, [&laboratory, measure](uint64_t seed) {
                      laboratory.use(seed);
                      return measure(seed);
                    }});
  };
  arm("float", [&](uint64_t) { return laboratory.float_arm(); });
  for (const CodeArm& one : fixed) arm(one.name, [&laboratory, one](uint64_t seed) { return laboratory.fixed(one, seed); });
  for (const CodeArm& one : learned) arm(one.name, [&laboratory, one](uint64_t seed) { return laboratory.learned(one, seed); });
  if (extent.claims) {
    arm("old-on-old", [&](uint64_t seed) { return laboratory.old_on_old(kMain, seed); });
    arm("new-on-old", [&](uint64_t seed) { return laboratory.new_on_old(kMain, seed, true); });
    arm("stranger-on-old", [&](uint64_t seed) { return laboratory.new_on_old(kMain, seed, false); });
  }
  run_seeds(bench, arms, seeds);

  const auto ratio = [&](const std::string& name) {
    std::vector<double> margins;
    const std::vector<double> own = bench.values(name, "recall_10"), whole = bench.values("float", "recall_10");
    for (size_t i = 0; i < own.size(); ++i) margins.push_back(own[i] / whole[i] - 0.97);
    return margins;
  };
  bench.claim_paired("BEBR in 128 bytes keeps at least 97 % of float's recall at 10 (1536 bytes); margin: what it keeps beyond",
                     ratio("bebr-128B"));
  claim_higher(bench, "BEBR finds more than signs of random projections of as many bits, recall at 10", "bebr-128B",
               "signs-128B", "recall_10");
  if (extent.claims) {
    claim_higher(bench, "training finds more than its start, a recurrently binarized rotation, recall at 10", "bebr-128B",
                 "untrained-128B", "recall_10");
    claim_higher(bench, "BEBR finds more than ITQ in 48 bytes, recall at 10", "bebr-48B", "itq-48B", "recall_10");
    claim_higher(bench, "three loops find more than none in 128 bytes, recall at 10", "bebr-128B", "bebr-u0-128B", "recall_10");
    claim_higher(bench, "new queries on old codes find at least what old queries find, recall at 10", "new-on-old",
                 "old-on-old", "recall_10");
    laboratory.use(seeds[0]);
    const Json forms = laboratory.scan_forms(kMain, seeds[0]);
    bench.setting("scan", forms);
    bench.claim(
        "the SDC scan is faster than popcounts of all pairs of bit planes, with identical hits (one thread)",
        forms.at("identical").get<bool>()
            ? forms.at("planes_microseconds_per_query").get<double>() / forms.at("sdc_microseconds_per_query").get<double>() - 1
            : -1);
    SweepLine line{"BEBR", {{48, "bebr-48B"}, {128, "bebr-128B"}}};
    if (extent.ablations) line.points.insert(line.points.begin() + 1, {96, "bebr-96B"});
    SweepLine signs{"signs", {{48, "itq-48B"}, {128, "signs-128B"}}};
    plot_sweep(bench, "Recall against size", "bytes a description", "recall_10", {line, signs}, 100, "recall at 10, %");
  }
  bench.note(
      "Synopsis asks for description; every description of the set is in the index, training pairs included; pairs are split "
      "by "
      "source package. Float: exhaustive inner products of MiniLM vectors (384 x float32). Old vectors: LSA of 128 "
      "dimensions. Stranger: new queries of an encoder that never saw the old codes. Compatible training sees the old codes of "
      "all documents, as "
      "whoever runs the index does, but no test query.");
  bench.setting("data", "deb-pairs");
  BebrOptions options{.epochs = extent.epochs};
  bench.setting("bebr", to_json(describe(options)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe bebr_recipe() {
  return {
      .id = "bebr",
      .claim =
          "Recurrently binarized embeddings keep almost all of the float embeddings' recall at 8 to 16 times fewer bytes, far "
          "above 1-bit sign codes, and new encoders can query old codes.",
      .run = run};
}

}  // namespace lighten
