#include "lighten/features/vector_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/data/sha256.h"

namespace lighten {
namespace {

/// An open file descriptor.
struct Descriptor {
  Descriptor(const fs::path& path, int flags) : path(path), fd(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd < 0) throw_error<FileError>("{}: cannot be opened: {}", path.string(), std::strerror(errno));
  }
  ~Descriptor() { ::close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  void write_at(const void* data, size_t bytes, uint64_t offset) const {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t done = ::pwrite(fd, from, bytes, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) throw_error<FileError>("{}: cannot be written: {}", path.string(), std::strerror(errno));
      from += done;
      offset += static_cast<uint64_t>(done);
      bytes -= static_cast<size_t>(done);
    }
  }
  void read_at(void* data, size_t bytes, uint64_t offset) const {
    auto* to = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t done = ::pread(fd, to, bytes, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) throw_error<FileError>("{}: cannot be read; remove it and its neighbour to start anew", path.string());
      to += done;
      offset += static_cast<uint64_t>(done);
      bytes -= static_cast<size_t>(done);
    }
  }
  fs::path path;
  int fd;
};

uint64_t file_bytes(const fs::path& path) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

}  // namespace

VectorStore::VectorStore(const fs::path& folder, const std::string& name, int64_t width)
    : keys_(folder / (name + ".keys")), values_(folder / (name + ".values")), lock_(folder / (name + ".lock")), width_(width) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw_error<FileError>("{}: cannot be created: {}", folder.string(), error.message());
  read_keys();
}

void VectorStore::read_keys() {
  const uint64_t row_bytes = static_cast<uint64_t>(width_) * sizeof(float);
  const auto complete = static_cast<int64_t>(std::min(file_bytes(keys_) / sizeof(Key), file_bytes(values_) / row_bytes));
  if (complete <= stored_) return;
  std::vector<Key> keys(static_cast<size_t>(complete - stored_));
  Descriptor(keys_, O_RDONLY).read_at(keys.data(), keys.size() * sizeof(Key), static_cast<uint64_t>(stored_) * sizeof(Key));
  for (const Key& key : keys) rows_.try_emplace(key, stored_++);
}

bool VectorStore::find(const Key& key, std::span<float> out) const {
  const auto it = rows_.find(key);
  if (it == rows_.end()) return false;
  const uint64_t bytes = static_cast<uint64_t>(width_) * sizeof(float);
  static_assert(sizeof(float) == 4);
  Descriptor(values_, O_RDONLY).read_at(out.data(), bytes, static_cast<uint64_t>(it->second) * bytes);
  return true;
}

void VectorStore::append(const std::vector<Key>& keys, std::span<const float> rows) {
  const Descriptor lock(lock_, O_CREAT | O_RDWR);
  if (::flock(lock.fd, LOCK_EX) != 0) throw_error<FileError>("{}: cannot be locked", lock_.string());
  read_keys();  // what others appended; half a row that a kill left behind is written over
  const auto at = static_cast<uint64_t>(stored_);
  const Descriptor values(values_, O_CREAT | O_RDWR), names(keys_, O_CREAT | O_RDWR);
  values.write_at(rows.data(), rows.size_bytes(), at * static_cast<uint64_t>(width_) * sizeof(float));
  names.write_at(keys.data(), keys.size() * sizeof(Key), at * sizeof(Key));
  read_keys();
}

VectorStore::Key VectorStore::key_of(const std::string& text) {
  const std::string digits = sha256(text);
  return {std::stoull(digits.substr(0, 16), nullptr, 16), std::stoull(digits.substr(16, 16), nullptr, 16)};
}

}  // namespace lighten
