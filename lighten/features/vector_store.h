// A growing file of vectors by key, safe against a kill at any moment and against several processes.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// Vectors of one width on disk: NAME.values holds float32 rows, NAME.keys 16 bytes a row. A row counts when its key is
/// complete; an append writes values first, under a lock.
class VectorStore {
 public:
  using Key = std::array<uint64_t, 2>;

  /// Opens or creates the store. Throws FileError.
  VectorStore(const fs::path& folder, const std::string& name, int64_t width);
  /// Copies the vector of `key` to `out` if it is known.
  bool find(const Key& key, std::span<float> out) const;
  /// Appends rows of `width` floats. Keys that are known already (another process was faster) are stored again, harmlessly.
  void append(const std::vector<Key>& keys, std::span<const float> rows);
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }

  /// The first 16 bytes of the SHA-256 of `text`.
  static Key key_of(const std::string& text);

 private:
  struct KeyHash {
    size_t operator()(const Key& key) const { return static_cast<size_t>(key[0]); }
  };
  fs::path keys_, values_, lock_;
  int64_t width_;
  std::unordered_map<Key, int64_t, KeyHash> rows_;
  int64_t stored_ = 0;  ///< rows on disk when it was last read
  void read_keys();
};

}  // namespace lighten
