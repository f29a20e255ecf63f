#include "lighten/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include "lighten/base/error.h"

namespace lighten {
namespace {

constexpr size_t kWriteBuffer = 1 << 20;
constexpr int kMostLinks = 40;
constexpr size_t kLongestStream = size_t{4} << 30;

[[noreturn]] void fail(const char* doing, const fs::path& path, int error) {
  if (error == ENOSPC)
    throw_error<FileError>("cannot {} {}: the disk is full; free some space and try again", doing, path.string());
  throw_error<FileError>("cannot {} {}: {}", doing, path.string(), std::strerror(error));
}

fs::path nearest_existing(fs::path path) {
  path = fs::absolute(path);
  while (!fs::exists(path) && path.has_parent_path() && path != path.parent_path()) path = path.parent_path();
  return path;
}

/// A pipe or a device (/dev/stdin, <(command)): it has no size and cannot be mapped.
bool is_stream(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

std::string read_stream(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open", path, errno);
  std::string contents;
  std::vector<char> block(1 << 16);
  ssize_t got = 0;
  while ((got = ::read(fd, block.data(), block.size())) != 0 && contents.size() <= kLongestStream) {
    if (got > 0) contents.append(block.data(), static_cast<size_t>(got));
    if (got < 0 && errno != EINTR) break;
  }
  const int error = errno;
  ::close(fd);
  if (got < 0) fail("read", path, error);
  if (got > 0)
    throw_error<FileError>("cannot read {}: it does not end after {} GB; give a file", path.string(), kLongestStream >> 30);
  return contents;
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open", path, errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw_error<FileError>("cannot open {}: it is not a regular file", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    ::close(fd);
    if (address == MAP_FAILED) fail("map", path, error);
    data_ = static_cast<const std::byte*>(address);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::advise_willneed() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_WILLNEED);
}

void MappedFile::advise_dontneed() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

AtomicFile::AtomicFile(const fs::path& path) : path_(path) {
  if (is_stream(path)) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail("write", path, errno);
    return;
  }
  std::error_code error;
  for (int links = 0; links < kMostLinks && fs::is_symlink(path_, error); ++links)  // also to a file that is yet to be made
    path_ = path_.parent_path() / fs::read_symlink(path_, error);
  if (fs::is_directory(path_, error)) throw_error<FileError>("cannot write {}: it is a folder", path.string());
  std::string pattern = path_.string() + ".tmp-XXXXXX";
  fd_ = ::mkostemp(pattern.data(), O_CLOEXEC);
  if (fd_ < 0) fail("write", path, errno);
  ::fchmod(fd_, 0644);
  temporary_ = pattern;
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::flush() {
  const char* next = buffer_.data();
  size_t left = buffer_.size();
  while (left > 0) {
    const ssize_t written = ::write(fd_, next, left);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("write", path_, errno);
    }
    next += written;
    left -= static_cast<size_t>(written);
  }
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  size_ += bytes.size();
  if (buffer_.size() >= kWriteBuffer) flush();
}

void AtomicFile::commit() {
  flush();
  if (!temporary_.empty() && ::fsync(fd_) != 0) fail("write", path_, errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail("write", path_, errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("replace", path_, errno);
  temporary_.clear();
}

namespace {

/// In every folder that an AtomicFolder wrote: the names of its entries, a line each; "segment-*" stands for all that begin so.
constexpr const char* kListing = ".lighten";

std::vector<std::string> listed(const fs::path& folder) {
  std::vector<std::string> names;
  std::ifstream stream(folder / kListing);
  for (std::string line; std::getline(stream, line);) names.push_back(line);
  return names;
}

/// Adds what stands in the folder to its list.
void write_listing(const fs::path& folder) {
  std::vector<std::string> names = listed(folder);
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename() != kListing) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string text;
  for (const std::string& name : names) text += name + "\n";
  write_file(folder / kListing, text);
}

/// Throws unless the folder is empty or all in it was written by an AtomicFolder: --force must not cost anybody their files.
void check_replaceable(const fs::path& folder) {
  if (fs::is_empty(folder)) return;
  const std::vector<std::string> names = listed(folder);
  if (names.empty())
    throw_error<FileError>(
        "{} was not written by lighten (it has no file {}), so --force does not replace it; choose another output folder, or "
        "remove it yourself",
        folder.string(), kListing);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name == kListing || std::any_of(names.begin(), names.end(), [&](const std::string& known) {
                        return known.ends_with('*') ? name.starts_with(known.substr(0, known.size() - 1)) : name == known;
                      });
    if (!ours)
      throw_error<FileError>(
          "{} was not written by lighten, so --force does not replace its folder; move it, or choose another output folder",
          entry.path().string());
  }
}

}  // namespace

AtomicFolder::AtomicFolder(const fs::path& path, bool force, bool keep_partial, const std::string& suffix)
    : target_(path), force_(force), keep_partial_(keep_partial) {
  std::string text = path.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  target_ = text;
  working_ = text + suffix;
  if (fs::exists(target_) && !force)
    throw_error<FileError>("{} already exists; give another output folder, or --force to replace it", target_.string());
  if (fs::exists(target_) && !fs::is_directory(target_))
    throw_error<FileError>("{} is a file, not a folder; give another output folder", target_.string());
  // What is kept when unfinished is checked by its owner.
  if (fs::exists(target_) && !keep_partial) check_replaceable(target_);
  std::error_code error;
  fs::create_directories(working_, error);
  if (error) throw_error<FileError>("cannot create {}: {}", working_.string(), error.message());
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_ && !keep_partial_) fs::remove_all(working_, ignored);
}

void AtomicFolder::commit() {
  std::error_code error;
  fs::path old;
  if (!keep_partial_) write_listing(working_);
  if (fs::exists(target_)) {
    if (!force_)
      throw_error<FileError>("{} appeared while it was being written; the result is in {}", target_.string(),
                             working_.string());
    old = target_.string() + ".replaced-" + std::to_string(::getpid());
    fs::rename(target_, old, error);
    if (error)
      throw_error<FileError>("cannot replace {}: {}; the result is in {}", target_.string(), error.message(),
                             working_.string());
  }
  fs::rename(working_, target_, error);
  if (error) {
    if (!old.empty()) {
      std::error_code ignored;
      fs::rename(old, target_, ignored);
    }
    throw_error<FileError>("cannot rename {} to {}: {}", working_.string(), target_.string(), error.message());
  }
  committed_ = true;
  if (!old.empty()) fs::remove_all(old, error);
}

std::string read_file(const fs::path& path) {
  if (is_stream(path)) return read_stream(path);
  const MappedFile file(path);
  if (file.size() > 0) return std::string(reinterpret_cast<const char*>(file.data()), file.size());
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

void write_file(const fs::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

void check_writable(const fs::path& path) {
  if (!is_stream(path)) {
    const AtomicFile probe(path);
  } else if (::access(path.c_str(), W_OK) != 0) {  // opening a pipe and closing it would end it for its reader
    fail("write", path, errno);
  }
}

bool is_within(const fs::path& path, const fs::path& folder) {
  const auto resolved = [](const fs::path& given) {
    std::error_code error;  // a pipe's name under /dev leads nowhere
    fs::path whole = fs::weakly_canonical(fs::absolute(given), error);
    if (error) whole = fs::absolute(given).lexically_normal();
    return whole.has_filename() ? whole : whole.parent_path();
  };
  const fs::path inner = resolved(path), outer = resolved(folder);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

uint64_t size_on_disk(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  uint64_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file()) total += entry.file_size();
  return total;
}

uint64_t free_space(const fs::path& path) { return fs::space(nearest_existing(path)).available; }

fs::path cache_folder() {
  fs::path folder;
  if (const char* own = std::getenv("LIGHTEN_DATA"); own && *own)
    folder = own;
  else if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg)
    folder = fs::path(xdg) / "lighten";
  else if (const char* home = std::getenv("HOME"); home && *home)
    folder = fs::path(home) / ".cache/lighten";
  else
    throw FileError("no cache folder: set LIGHTEN_DATA (or HOME)");
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw_error<FileError>("cannot create the cache folder {}: {}; set LIGHTEN_DATA", folder.string(), error.message());
  return folder;
}

}  // namespace lighten
