// A vector index on disk: a folder of immutable segments and one small manifest that is replaced as a whole.
//
//   index.json          format version, code format, method, segments (file, codes, bytes, checksum), removed codes, next id
//   encoder.safetensors how float vectors become codes (absent: the index takes codes only)
//   lists.npy           centroids of the lists, float32 [lists, dimensions] (absent: one list, every search is exhaustive)
//   segment-N.bin       codes, norms, ids (segment.h); removed-N.bin: one bit per place of every segment
//
// A writer holds a lock, writes new files beside the old ones and replaces the manifest last, so that a kill at any moment
// leaves either the old index or the new one; what a killed writer left is swept away by the next. Readers map files and are
// never disturbed by writers.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/json.h"
#include "lighten/base/threads.h"
#include "lighten/index/encoder.h"
#include "lighten/index/kmeans.h"
#include "lighten/index/segment.h"

namespace lighten {

struct IndexPlan {
  std::string method = "hamming";  ///< for people: what made the codes
  CodeFormat format = {};
  std::optional<CodeEncoder> encoder = {};  ///< how float vectors become codes
  int64_t lists = 0;                        ///< coarse lists (IVF); 0: flat
  int iterations = 10;                      ///< of k-means
  uint64_t seed = 0;
};

/// Makes an index of rows [count, row_bytes] in `folder`, which must not exist (or `force`); ids are 0, 1, ... unless given
/// (each once, not negative). Throws OptionError for repeated ids or more lists than codes.
void create_index(const fs::path& folder, const IndexPlan& plan, const uint8_t* rows, int64_t count,
                  std::span<const int64_t> ids, bool force, ThreadPool& pool);

struct SearchOptions {
  int64_t k = 10;
  int64_t probes = 16;  ///< lists that are searched (of an index with lists)
  int64_t share = 0;    ///< search only this of `shares` parts of the index (ranks of a run over MPI); see merge_shares
  int64_t shares = 1;
};
struct SearchResult {
  std::vector<int64_t> ids;      ///< [queries, k], best first, equal distances by smaller id; -1 where the index has fewer
  std::vector<float> distances;  ///< Hamming: differing bits; SDC: 1 - cosine of the codes; infinity where there is no id
  std::vector<int32_t> costs;    ///< what hits are ordered by (kernels/scan.h)
};
/// The k best of every query over what all shares found.
SearchResult merge_shares(std::span<const SearchResult> shares, int64_t k);

/// An index as it was when it was opened.
class Index {
 public:
  /// Throws FileError or FormatError that names the file.
  explicit Index(const fs::path& folder);
  const CodeFormat& format() const { return format_; }
  const std::string& method() const { return method_; }
  const fs::path& folder() const { return folder_; }
  int64_t count() const { return count_; }  ///< codes that are not removed
  int64_t lists() const { return centroids_ ? centroids_->count() : 0; }
  int64_t next_id() const { return next_id_; }
  /// Null if the index takes codes only.
  const CodeWriter* encoder() const { return encoder_ ? &*encoder_ : nullptr; }
  const std::vector<Segment>& segments() const { return segments_; }
  /// Bit i of [block]: the code is gone; null if none of the segment is.
  const uint32_t* removed(size_t segment) const;
  const Json& manifest() const { return manifest_; }
  const std::optional<Centroids>& centroids() const { return centroids_; }

  /// Neighbours of queries given as rows of codes [count, row_bytes]. The result depends neither on threads nor on batches.
  SearchResult search(const uint8_t* rows, int64_t count, const SearchOptions& options, ThreadPool& pool) const;
  /// Reads every byte. Throws FormatError at the first file whose checksum is wrong.
  void verify() const;

 private:
  fs::path folder_;
  CodeFormat format_;
  std::string method_;
  Json manifest_;
  int64_t count_ = 0, next_id_ = 0;
  bool ascending_ = true;  ///< ids rise from position to position
  std::optional<CodeWriter> encoder_;
  std::optional<Centroids> centroids_;
  std::vector<Segment> segments_;
  std::vector<std::vector<uint32_t>> removed_;
  void open();
};

/// Appends codes; ids go on from the largest so far unless given. Small segments are merged on the way, so that n codes added
/// in any portions stand in about log2(n) segments. Throws OptionError for ids that are there already. Returns the first id
/// given.
int64_t add_to_index(const fs::path& folder, const uint8_t* rows, int64_t count, std::span<const int64_t> ids,
                     ThreadPool& pool);
/// Marks codes as removed; segments that are mostly removed are rewritten. Throws OptionError, changing nothing, if an id is
/// not in the index.
void remove_from_index(const fs::path& folder, std::span<const int64_t> ids, ThreadPool& pool);

/// Writes the index as FAISS reads it (faiss.read_index_binary, faiss.read_index): Hamming codes as IndexBinaryIDMap of
/// IndexBinaryFlat; SDC codes, which FAISS does not have, as IndexIDMap of IndexFlatIP over the codes' unit vectors in float32.
void export_to_faiss(const Index& index, const fs::path& path);

}  // namespace lighten
