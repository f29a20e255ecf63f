#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/index/index.h"

namespace lighten {
namespace {

constexpr int64_t kQueriesAtOnce = 4096;
constexpr int64_t kFewestBlocks = 64;  // of a piece of work
constexpr int64_t kPieces = 256;

/// Codes that stand together: all of a segment, or one list of it.
struct Run {
  const Segment* segment;
  const uint32_t* removed;
  SegmentList list;
  int64_t begin, end;  ///< blocks of the list
};

/// The queries of one batch in both forms that scans want.
struct Batch {
  const CodeFormat& format;
  const uint8_t* rows;
  int64_t count;
  std::vector<uint8_t> levels;  // SDC: [count, m]

  Batch(const CodeFormat& code_format, const uint8_t* first, int64_t n) : format(code_format), rows(first), count(n) {
    if (format.kind == ScanKind::hamming) return;
    levels.resize(static_cast<size_t>(n * format.shape.dimensions));
    for (int64_t i = 0; i < n; ++i)
      levels_of_row(format, rows + i * format.row_bytes(), levels.data() + i * format.shape.dimensions);
  }
};

/// Panels of some of a batch's queries.
struct Panel {
  std::optional<HammingQueries> hamming;
  std::optional<SdcQueries> sdc;
  Panel(const Batch& batch, std::span<const int32_t> which) {
    if (batch.format.kind == ScanKind::hamming)
      hamming.emplace(batch.rows, batch.count, batch.format.row_bytes(), which);
    else
      sdc.emplace(batch.format.shape, batch.levels.data(), batch.count, which);
  }
  void scan(const Run& run, std::span<TopK* const> best) const {
    const ScanSink sink{best, run.segment->ids().data() + run.list.first_block * kScanBlock,
                        run.removed == nullptr ? nullptr : run.removed + run.list.first_block};
    if (hamming)
      scan_hamming(run.segment->hamming(run.list), run.begin, run.end, *hamming, sink);
    else
      scan_sdc(run.segment->sdc(run.list), run.begin, run.end, *sdc, sink);
  }
};

/// One set of best hits per worker: hits are found without locks and put together at the end. Which worker scanned what does
/// not matter: the k best by (cost, id) are the same.
class Workers {
 public:
  Workers(int64_t queries, int64_t k, bool ascending, ThreadPool& pool) : pool_(pool) {
    best_.assign(static_cast<size_t>(pool.size()), std::vector<TopK>(static_cast<size_t>(queries), TopK(k, ascending)));
  }
  /// Calls work(i, best of this worker) for i in [0, n), each once, in ascending order in every worker.
  template <typename Work>
  void each(int64_t n, Work work) {
    std::atomic<int64_t> next{0};
    pool_.parallel_for(static_cast<int64_t>(best_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; ++worker)
        for (int64_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) work(i, best_[static_cast<size_t>(worker)]);
    });
  }
  std::vector<Hit> merged(size_t query, int64_t k) const {
    TopK all(k);
    for (const auto& worker : best_)
      for (const Hit& hit : worker[query].sorted()) all.offer(hit.cost, hit.id);
    return all.sorted();
  }

 private:
  ThreadPool& pool_;
  std::vector<std::vector<TopK>> best_;
};

void scan_flat(const Batch& batch, const std::vector<Run>& wholes, Workers& workers, const SearchOptions& options) {
  int64_t blocks = 0;
  for (const Run& run : wholes) blocks += run.end;
  const int64_t piece = std::max(kFewestBlocks, blocks / kPieces + 1);
  std::vector<Run> pieces;
  int64_t number = 0;
  for (const Run& run : wholes)
    for (int64_t begin = 0; begin < run.end; begin += piece)
      if (number++ % options.shares == options.share)
        pieces.push_back({run.segment, run.removed, run.list, begin, std::min(run.end, begin + piece)});
  const Panel panel(batch, {});
  workers.each(static_cast<int64_t>(pieces.size()), [&](int64_t i, std::vector<TopK>& best) {
    std::vector<TopK*> pointers;
    pointers.reserve(best.size());
    for (TopK& one : best) pointers.push_back(&one);
    panel.scan(pieces[static_cast<size_t>(i)], pointers);
  });
}

/// List by list, with all queries that probe it.
void scan_lists(const Batch& batch, const std::vector<std::vector<Run>>& lists, const std::vector<int32_t>& probed,
                int64_t probes, Workers& workers, const SearchOptions& options) {
  std::vector<std::vector<int32_t>> queries(lists.size());
  for (int64_t q = 0; q < batch.count; ++q)
    for (int64_t p = 0; p < probes; ++p)
      queries[static_cast<size_t>(probed[static_cast<size_t>(q * probes + p)])].push_back(static_cast<int32_t>(q));
  workers.each(static_cast<int64_t>(lists.size()), [&](int64_t l, std::vector<TopK>& best) {
    const auto& own = queries[static_cast<size_t>(l)];
    if (own.empty() || lists[static_cast<size_t>(l)].empty() || l % options.shares != options.share) return;
    const Panel panel(batch, own);
    std::vector<TopK*> pointers;
    pointers.reserve(own.size());
    for (const int32_t q : own) pointers.push_back(&best[static_cast<size_t>(q)]);
    for (const Run& run : lists[static_cast<size_t>(l)]) panel.scan(run, pointers);
  });
}

float norm_of(const CodeFormat& format, const uint8_t* row) {
  std::vector<uint8_t> levels(static_cast<size_t>(format.shape.dimensions));
  levels_of_row(format, row, levels.data());
  return sdc_inverse_norm(format.shape, levels.data());
}

}  // namespace

SearchResult Index::search(const uint8_t* rows, int64_t count, const SearchOptions& options, ThreadPool& pool) const {
  if (options.k < 1) throw_error<OptionError>("k must be at least 1, not {}", options.k);
  if (options.shares < 1 || options.share < 0 || options.share >= options.shares)
    throw_error<OptionError>("there is no share {} of {}", options.share, options.shares);
  if (options.probes < 1) throw_error<OptionError>("probes must be at least 1, not {}", options.probes);
  SearchResult result;
  result.ids.assign(static_cast<size_t>(count * options.k), -1);
  result.distances.assign(result.ids.size(), std::numeric_limits<float>::infinity());
  result.costs.assign(result.ids.size(), std::numeric_limits<int32_t>::max());
  const int64_t k = std::min(options.k, std::max<int64_t>(1, count_));
  const int64_t probes = std::min(options.probes, lists());
  std::vector<Run> wholes;
  std::vector<std::vector<Run>> by_list(static_cast<size_t>(lists()));
  for (size_t s = 0; s < segments_.size(); ++s) {
    const Segment& segment = segments_[s];
    wholes.push_back({&segment, removed(s), {0, segment.count()}, 0, segment.blocks()});
    for (size_t l = 0; l < by_list.size(); ++l)
      if (const SegmentList& list = segment.lists()[l]; list.count > 0)
        by_list[l].push_back({&segment, removed(s), list, 0, (list.count + kScanBlock - 1) / kScanBlock});
  }
  for (int64_t begin = 0; begin < count; begin += kQueriesAtOnce) {
    const Batch batch(format_, rows + begin * format_.row_bytes(), std::min(kQueriesAtOnce, count - begin));
    Workers workers(batch.count, k, ascending_, pool);
    if (!centroids_) {
      scan_flat(batch, wholes, workers, options);
    } else {
      std::vector<float> x(static_cast<size_t>(batch.count * format_.shape.dimensions));
      for (int64_t q = 0; q < batch.count; ++q)
        unit_vector_of_row(format_, batch.rows + q * format_.row_bytes(), x.data() + q * format_.shape.dimensions);
      scan_lists(batch, by_list, centroids_->nearest(x.data(), batch.count, probes, pool), probes, workers, options);
    }
    for (int64_t q = 0; q < batch.count; ++q) {
      const float norm = format_.kind == ScanKind::sdc ? norm_of(format_, batch.rows + q * format_.row_bytes()) : 0;
      size_t at = static_cast<size_t>((begin + q) * options.k);
      for (const Hit& hit : workers.merged(static_cast<size_t>(q), k)) {
        result.ids[at] = hit.id;
        result.costs[at] = hit.cost;
        result.distances[at++] =
            format_.kind == ScanKind::hamming ? static_cast<float>(hit.cost) : 1 - score_of_cost(hit.cost) * norm;
      }
    }
  }
  return result;
}

SearchResult merge_shares(std::span<const SearchResult> shares, int64_t k) {
  SearchResult merged = shares.front();
  const size_t queries = merged.ids.size() / static_cast<size_t>(k);
  struct Found {
    Hit hit;
    float distance;
  };
  for (size_t q = 0; q < queries; ++q) {
    std::vector<Found> all;
    for (const SearchResult& share : shares)
      for (size_t at = q * static_cast<size_t>(k); at < (q + 1) * static_cast<size_t>(k) && share.ids[at] >= 0; ++at)
        all.push_back({{share.costs[at], share.ids[at]}, share.distances[at]});
    std::sort(all.begin(), all.end(), [](const Found& a, const Found& b) { return a.hit < b.hit; });
    for (size_t i = 0; i < std::min(all.size(), static_cast<size_t>(k)); ++i) {
      const size_t at = q * static_cast<size_t>(k) + i;
      merged.ids[at] = all[i].hit.id;
      merged.costs[at] = all[i].hit.cost;
      merged.distances[at] = all[i].distance;
    }
  }
  return merged;
}

}  // namespace lighten
