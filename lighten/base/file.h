// Files: mapped reading, atomic writing, whole-file helpers, the cache folder.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lighten {

namespace fs = std::filesystem;

/// A file mapped read-only for as long as the object lives. An empty file maps to an empty span.
/// Throws FileError if the file is missing, not a regular file or cannot be mapped.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  const fs::path& path() const { return path_; }
  /// Asks the kernel to read ahead (will be needed soon) or to drop the pages (not needed any more).
  void advise_willneed() const;
  void advise_dontneed() const;

 private:
  fs::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// A file that appears at `path` only when commit() has flushed all of it to disk: it is written to a temporary name in the
/// same folder and renamed. Without commit() the destructor removes the temporary file and `path` stays as it was. Where `path`
/// is a link, the file that it points to is written; a device or pipe (/dev/null) is written straight. Throws FileError (disk
/// full included) that names the path.
class AtomicFile {
 public:
  explicit AtomicFile(const fs::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  uint64_t size() const { return size_; }
  void commit();

 private:
  fs::path path_, temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string buffer_;
  void flush();
};

/// A folder that replaces `path` as a whole when commit() is called; work on path(). Throws FileError at construction if `path`
/// exists and `force` is false. With `force` the old folder stays until the new one is complete, then the names are exchanged;
/// FileError names what an AtomicFolder did not write there (each lists its entries in `.lighten`; a caller that will add more
/// lists them beforehand, "name*" for all that begin so). Folders kept when unfinished are checked by their owner instead.
/// The working folder's name is `path` + suffix; with `keep_partial` it survives the destructor, so that work can be resumed.
class AtomicFolder {
 public:
  AtomicFolder(const fs::path& path, bool force, bool keep_partial = false, const std::string& suffix = ".partial");
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const fs::path& path() const { return working_; }
  void commit();

 private:
  fs::path target_, working_;
  bool force_, keep_partial_, committed_ = false;
};

/// Whole file as bytes, also of files that tell no size (/proc); a pipe or device is read to its end. Throws FileError
/// (missing, unreadable, a folder).
std::string read_file(const fs::path& path);
/// Writes atomically (AtomicFile).
void write_file(const fs::path& path, std::string_view contents);
/// Throws FileError if write_file(path) could not work (no such folder, no right to write there, a folder). Changes nothing.
void check_writable(const fs::path& path);

/// Whether `path` is `folder` or lies inside it, links resolved; neither need exist.
bool is_within(const fs::path& path, const fs::path& folder);

/// Sum of the sizes of all regular files under a folder, or the size of a file.
uint64_t size_on_disk(const fs::path& path);
/// Free bytes of the file system that would hold `path`.
uint64_t free_space(const fs::path& path);

/// Where fetched models and data are kept: $LIGHTEN_DATA, else $XDG_CACHE_HOME/lighten, else ~/.cache/lighten. Created if
/// missing.
fs::path cache_folder();

}  // namespace lighten
