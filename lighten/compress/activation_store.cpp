#include "lighten/compress/activation_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "lighten/base/error.h"

namespace lighten {

/// Shared mapping of an unlinked file: it is gone when the process ends, however it ends.
struct ActivationStore::Mapping {
  void* data = MAP_FAILED;
  size_t size = 0;

  Mapping(const fs::path& folder, size_t bytes) : size(bytes) {
    fs::create_directories(folder);
    std::string name = (folder / "activations-XXXXXX").string();
    const int fd = ::mkstemp(name.data());
    if (fd < 0) throw_error<FileError>("cannot create {}: {}", name, std::strerror(errno));
    ::unlink(name.c_str());
    const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));  // a full disk shows here, not as SIGBUS later
    if (error == 0) data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const int map_error = errno;
    ::close(fd);
    if (error != 0)
      throw_error<FileError>("{}: cannot spill {} bytes of activations: {}; free some disk or give fewer calibration tokens",
                             folder.string(), bytes, std::strerror(error));
    if (data == MAP_FAILED)
      throw_error<FileError>("{}: cannot map spilled activations: {}", folder.string(), std::strerror(map_error));
  }
  ~Mapping() {
    if (data != MAP_FAILED) ::munmap(data, size);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

ActivationStore::ActivationStore(std::shared_ptr<SpillBudget> budget) : budget_(std::move(budget)) {}
ActivationStore::~ActivationStore() { clear(); }

ActivationStore::ActivationStore(ActivationStore&& other) noexcept
    : budget_(other.budget_),
      chunks_(std::move(other.chunks_)),
      mappings_(std::move(other.mappings_)),
      in_memory_(std::exchange(other.in_memory_, 0)) {}

ActivationStore& ActivationStore::operator=(ActivationStore&& other) noexcept {
  std::swap(budget_, other.budget_);
  std::swap(chunks_, other.chunks_);
  std::swap(mappings_, other.mappings_);
  std::swap(in_memory_, other.in_memory_);
  other.clear();
  return *this;
}

void ActivationStore::append(const torch::Tensor& values) {
  torch::NoGradGuard no_grad;
  const torch::Tensor chunk = values.detach().to(torch::kFloat).contiguous();
  const uint64_t bytes = chunk.nbytes();
  if (budget_->folder.empty() || budget_->used + bytes <= budget_->limit) {
    budget_->used += bytes;
    in_memory_ += bytes;
    chunks_.push_back(chunk.is_same(values) || chunk.storage().is_alias_of(values.storage()) ? chunk.clone() : chunk);
    return;
  }
  mappings_.push_back(std::make_unique<Mapping>(budget_->folder, bytes));
  std::memcpy(mappings_.back()->data, chunk.const_data_ptr(), bytes);
  budget_->spilled += bytes;
  chunks_.push_back(torch::from_blob(mappings_.back()->data, chunk.sizes(), torch::kFloat));
}

void ActivationStore::clear() {
  chunks_.clear();
  mappings_.clear();
  if (budget_) budget_->used -= in_memory_;
  in_memory_ = 0;
}

uint64_t ActivationStore::bytes() const {
  uint64_t sum = 0;
  for (const torch::Tensor& chunk : chunks_) sum += chunk.nbytes();
  return sum;
}

}  // namespace lighten
