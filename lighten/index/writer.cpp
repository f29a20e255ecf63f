#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <set>
#include <unordered_set>
#include <utility>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/formats/npy.h"
#include "lighten/index/index.h"
#include "lighten/index/manifest.h"

namespace lighten {
namespace {

constexpr int64_t kTrainingRowsPerList = 64;
constexpr int64_t kFewestTrainingRows = 20000;
constexpr double kMostlyRemoved = 0.5;

/// One writer at a time; the lock goes with the process, however that ends.
class WriterLock {
 public:
  explicit WriterLock(const fs::path& folder) {
    const fs::path path = folder / "lock";
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) throw_error<FileError>("cannot write {}: {}", path.string(), std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    info("waiting for another writer of " + folder.string());
    while (::flock(fd_, LOCK_EX) != 0)
      if (errno != EINTR) throw_error<FileError>("cannot lock {}: {}", path.string(), std::strerror(errno));
  }
  ~WriterLock() { ::close(fd_); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  int fd_;
};

/// Rows and ids that become one segment.
struct Rows {
  std::vector<uint8_t> rows;
  std::vector<int64_t> ids;
};

void check_ids(std::span<const int64_t> ids, int64_t count) {
  if (static_cast<int64_t>(ids.size()) != count) throw_error<OptionError>("{} ids do not fit {} codes", ids.size(), count);
  std::unordered_set<int64_t> seen;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0) throw_error<OptionError>("row {}: id {} is negative", i, ids[i]);
    if (!seen.insert(ids[i]).second) throw_error<OptionError>("row {}: id {} stands twice", i, ids[i]);
  }
}

bool is_gone(const std::vector<uint32_t>& bits, int64_t position) {
  return (bits[static_cast<size_t>(position / kScanBlock)] >> (position % kScanBlock) & 1) != 0;
}

/// Rows that are left of a segment, in their order inside each list.
void append_rows(const Segment& segment, const CodeFormat& format, const std::vector<uint32_t>& gone, Rows& out) {
  const int64_t row_bytes = format.row_bytes();
  for (int64_t p = 0; p < segment.blocks() * kScanBlock; ++p) {
    if (segment.ids()[static_cast<size_t>(p)] < 0 || is_gone(gone, p)) continue;
    out.ids.push_back(segment.ids()[static_cast<size_t>(p)]);
    out.rows.resize(out.rows.size() + static_cast<size_t>(row_bytes));
    segment.read_row(p, out.rows.data() + out.rows.size() - row_bytes);
  }
}

std::vector<int32_t> homes(const CodeFormat& format, const uint8_t* rows, int64_t count, const Centroids* lists,
                           ThreadPool& pool) {
  if (lists == nullptr) return {};
  constexpr int64_t at_once = 1 << 14;
  std::vector<int32_t> home;
  std::vector<float> x(static_cast<size_t>(std::min(count, at_once) * format.shape.dimensions));
  for (int64_t begin = 0; begin < count; begin += at_once) {
    const int64_t n = std::min(at_once, count - begin);
    pool.parallel_for(n, 256, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        unit_vector_of_row(format, rows + (begin + i) * format.row_bytes(), x.data() + i * format.shape.dimensions);
    });
    const std::vector<int32_t> found = lists->nearest(x.data(), n, 1, pool);
    home.insert(home.end(), found.begin(), found.end());
  }
  return home;
}

/// Writes a segment and enters it at the end of the manifest (which is not yet written).
void enter_segment(const fs::path& folder, Manifest& manifest, const uint8_t* rows, std::span<const int64_t> ids,
                   const Centroids* lists, ThreadPool& pool) {
  ManifestFile file;
  file.file = fmt::format("segment-{:06}.bin", manifest.next_file++);
  file.codes = static_cast<int64_t>(ids.size());
  const std::vector<int32_t> home = homes(manifest.format, rows, file.codes, lists, pool);
  file.checksum = write_segment(folder / file.file, manifest.format, rows, ids, home, std::max<int64_t>(1, manifest.lists));
  file.bytes = fs::file_size(folder / file.file);
  manifest.segments.push_back(file);
}

void enter_removed(const fs::path& folder, Manifest& manifest, const std::vector<std::vector<uint32_t>>& removed) {
  int64_t gone = 0;
  std::string bytes;
  for (const auto& bits : removed) {
    bytes.append(reinterpret_cast<const char*>(bits.data()), bits.size() * sizeof(uint32_t));
    for (const uint32_t word : bits) gone += std::popcount(word);
  }
  manifest.removed = {};
  if (gone == 0) return;
  manifest.removed = {fmt::format("removed-{:06}.bin", manifest.next_file++), gone, bytes.size(),
                      checksum(std::as_bytes(std::span(bytes.data(), bytes.size())))};
  write_file(folder / manifest.removed.file, bytes);
}

/// Files of ours that the manifest does not name: what a killed writer left, or what was just replaced.
void sweep(const fs::path& folder, const Manifest& manifest) {
  std::set<std::string> named{manifest.removed.file};
  for (const ManifestFile& file : manifest.segments) named.insert(file.file);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with("segment-") || name.starts_with("removed-") || name.starts_with("index.json.tmp-");
    std::error_code ignored;
    if (ours && !named.contains(name)) fs::remove(entry.path(), ignored);
  }
}

std::vector<std::vector<uint32_t>> removed_bits(const Index& index) {
  std::vector<std::vector<uint32_t>> bits;
  for (size_t s = 0; s < index.segments().size(); ++s) {
    bits.emplace_back(static_cast<size_t>(index.segments()[s].blocks()), 0u);
    if (index.removed(s) != nullptr) std::copy_n(index.removed(s), bits[s].size(), bits[s].begin());
  }
  return bits;
}

bool ascend(std::span<const int64_t> ids, int64_t above) {
  for (const int64_t id : ids) {
    if (id <= above) return false;
    above = id;
  }
  return true;
}

Centroids train_lists(const IndexPlan& plan, const uint8_t* rows, int64_t count, ThreadPool& pool) {
  const int64_t wanted = std::max(kFewestTrainingRows, plan.lists * kTrainingRowsPerList);
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  if (count > wanted) {
    Random random(plan.seed);
    random.shuffle(order);
    order.resize(static_cast<size_t>(wanted));
    std::sort(order.begin(), order.end());
  }
  const int64_t m = plan.format.shape.dimensions;
  std::vector<float> x(order.size() * static_cast<size_t>(m));
  pool.parallel_for(static_cast<int64_t>(order.size()), 256, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      unit_vector_of_row(plan.format, rows + order[static_cast<size_t>(i)] * plan.format.row_bytes(), x.data() + i * m);
  });
  return kmeans(x, m, plan.lists, plan.iterations, plan.seed, pool);
}

}  // namespace

void create_index(const fs::path& folder, const IndexPlan& plan, const uint8_t* rows, int64_t count,
                  std::span<const int64_t> ids, bool force, ThreadPool& pool) {
  if (count < 1) throw OptionError("an index needs at least one vector");
  if (!ids.empty()) check_ids(ids, count);
  AtomicFolder output(folder, force);
  Manifest manifest;
  manifest.method = plan.method;
  manifest.format = plan.format;
  manifest.lists = plan.lists;
  manifest.encoder = plan.encoder.has_value();
  if (plan.encoder) save_encoder(output.path() / kEncoderName, *plan.encoder);
  std::optional<Centroids> lists;
  if (plan.lists > 0) {
    lists.emplace(train_lists(plan, rows, count, pool));
    write_npy<float>(output.path() / kListsName, {plan.lists, plan.format.shape.dimensions}, lists->values());
  }
  std::vector<int64_t> numbers(ids.begin(), ids.end());
  if (ids.empty()) {
    numbers.resize(static_cast<size_t>(count));
    std::iota(numbers.begin(), numbers.end(), 0);
  }
  manifest.ids_ascending = ascend(numbers, -1);
  manifest.next_id = *std::max_element(numbers.begin(), numbers.end()) + 1;
  enter_segment(output.path(), manifest, rows, numbers, lists ? &*lists : nullptr, pool);
  write_manifest(output.path(), manifest);
  // What add and remove will write, for a later --force.
  write_file(output.path() / ".lighten", "index.json.tmp-*\nlock\nremoved-*\nsegment-*\n");
  output.commit();
}

int64_t add_to_index(const fs::path& folder, const uint8_t* rows, int64_t count, std::span<const int64_t> ids,
                     ThreadPool& pool) {
  (void)read_manifest(folder);  // says that there is no index before a lock is left behind
  const WriterLock lock(folder);
  Manifest manifest = read_manifest(folder);
  sweep(folder, manifest);
  const Index index(folder);
  std::vector<std::vector<uint32_t>> bits = removed_bits(index);
  Rows added{{rows, rows + count * manifest.format.row_bytes()}, {ids.begin(), ids.end()}};
  if (ids.empty()) {
    added.ids.resize(static_cast<size_t>(count));
    std::iota(added.ids.begin(), added.ids.end(), manifest.next_id);
  } else {
    check_ids(ids, count);
    const std::unordered_set<int64_t> wanted(ids.begin(), ids.end());
    for (size_t s = 0; s < bits.size(); ++s) {
      const std::span<const int64_t> own = index.segments()[s].ids();
      for (size_t p = 0; p < own.size(); ++p)
        if (wanted.contains(own[p]) && !is_gone(bits[s], static_cast<int64_t>(p)))
          throw_error<OptionError>("id {} is in the index already; remove it first, or give the new one another id", own[p]);
    }
  }
  if (count == 0) return manifest.next_id;
  const int64_t first = added.ids.front();
  manifest.ids_ascending = manifest.ids_ascending && ascend(added.ids, manifest.next_id - 1);
  manifest.next_id = std::max(manifest.next_id, *std::max_element(added.ids.begin(), added.ids.end()) + 1);
  // Merge with the last segments as long as they are not larger than what is added: few segments, each code rewritten rarely.
  size_t from = manifest.segments.size();
  int64_t gathered = count;
  while (from > 0 && manifest.segments[from - 1].codes <= gathered) gathered += manifest.segments[--from].codes;
  Rows merged;
  for (size_t s = from; s < manifest.segments.size(); ++s) append_rows(index.segments()[s], manifest.format, bits[s], merged);
  merged.rows.insert(merged.rows.end(), added.rows.begin(), added.rows.end());
  merged.ids.insert(merged.ids.end(), added.ids.begin(), added.ids.end());
  manifest.segments.resize(from);
  bits.resize(from);
  enter_segment(folder, manifest, merged.rows.data(), merged.ids, index.centroids() ? &*index.centroids() : nullptr, pool);
  bits.emplace_back(static_cast<size_t>(Segment(folder / manifest.segments.back().file, manifest.format).blocks()), 0u);
  enter_removed(folder, manifest, bits);
  write_manifest(folder, manifest);
  sweep(folder, manifest);
  return first;
}

void remove_from_index(const fs::path& folder, std::span<const int64_t> ids, ThreadPool& pool) {
  (void)read_manifest(folder);
  const WriterLock lock(folder);
  Manifest manifest = read_manifest(folder);
  sweep(folder, manifest);
  const Index index(folder);
  std::unordered_set<int64_t> wanted(ids.begin(), ids.end());
  std::vector<std::vector<uint32_t>> bits = removed_bits(index);
  for (size_t s = 0; s < bits.size(); ++s) {
    const std::span<const int64_t> own = index.segments()[s].ids();
    for (size_t p = 0; p < own.size(); ++p) {
      if (own[p] < 0 || is_gone(bits[s], static_cast<int64_t>(p)) || !wanted.contains(own[p])) continue;
      bits[s][p / kScanBlock] |= 1u << (p % kScanBlock);
      wanted.erase(own[p]);
    }
  }
  if (!wanted.empty())
    throw_error<OptionError>("id {} is not in {} ({} of the {} ids are not); nothing was removed",
                             *std::min_element(wanted.begin(), wanted.end()), folder.string(), wanted.size(), ids.size());
  // Segments of which little is left are written again without the rest.
  const std::vector<ManifestFile> old = std::exchange(manifest.segments, {});
  std::vector<std::vector<uint32_t>> kept;
  for (size_t s = 0; s < old.size(); ++s) {
    int64_t gone = 0;
    for (const uint32_t word : bits[s]) gone += std::popcount(word);
    if (static_cast<double>(gone) <= kMostlyRemoved * static_cast<double>(old[s].codes)) {
      manifest.segments.push_back(old[s]);
      kept.push_back(bits[s]);
      continue;
    }
    if (gone == old[s].codes) continue;
    Rows left;
    append_rows(index.segments()[s], manifest.format, bits[s], left);
    enter_segment(folder, manifest, left.rows.data(), left.ids, index.centroids() ? &*index.centroids() : nullptr, pool);
    kept.emplace_back(static_cast<size_t>(Segment(folder / manifest.segments.back().file, manifest.format).blocks()), 0u);
  }
  enter_removed(folder, manifest, kept);
  write_manifest(folder, manifest);
  sweep(folder, manifest);
}

}  // namespace lighten
