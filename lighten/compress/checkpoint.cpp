#include "lighten/compress/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/formats/safetensors.h"

namespace lighten::compress {
namespace {

constexpr const char* kSettings = "request.json";
constexpr const char* kState = "state.safetensors";

void append_store(std::vector<TensorToWrite>& tensors, const std::string& name, const std::optional<ActivationStore>& store) {
  for (int64_t chunk = 0; store && chunk < store->chunks(); ++chunk) {
    const torch::Tensor& x = store->at(chunk);
    tensors.push_back({fmt::format("{}.{}", name, chunk), DType::f32, x.sizes().vec(),
                       std::as_bytes(std::span(x.const_data_ptr<float>(), static_cast<size_t>(x.numel())))});
  }
}

void load_store(const SafetensorsFile& file, const std::string& name, std::optional<ActivationStore>& store,
                std::shared_ptr<SpillBudget> budget) {
  store.emplace(std::move(budget));
  for (int64_t chunk = 0;; ++chunk) {
    const auto found = file.tensors().find(fmt::format("{}.{}", name, chunk));
    if (found == file.tensors().end()) return;
    void* data = const_cast<std::byte*>(found->second.bytes.data());
    store->append(torch::from_blob(data, found->second.shape, torch::kFloat).clone());
  }
}

[[noreturn]] void refuse_busy(const fs::path& folder) {
  throw_error<FileError>("another process is working in {}; wait for it, or choose another -o", folder.string());
}

}  // namespace

FolderLock::FolderLock(const fs::path& folder) : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ < 0) throw_error<FileError>("{} cannot be opened: {}", folder.string(), std::strerror(errno));
  int result;
  while ((result = ::flock(fd_, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) continue;
  const int error = result == 0 ? 0 : errno;
  struct stat locked = {}, named = {};
  const bool moved = ::fstat(fd_, &locked) != 0 || ::stat(folder.c_str(), &named) != 0 || locked.st_ino != named.st_ino;
  if (error == EWOULDBLOCK || moved) {  // moved: the other one has just finished
    ::close(fd_);
    refuse_busy(folder);
  }
  if (error != 0)
    warn(fmt::format("{} cannot be locked ({}): start no second quantize with the same -o", folder.string(),
                     std::strerror(error)));
}

FolderLock::~FolderLock() { ::close(fd_); }

namespace {

/// "bits was 4, now it is 3": the first setting that differs from those in the file; empty if none does.
std::string other_setting(const fs::path& settings, const Json& fingerprint) {
  const Json begun = Json::parse(read_file(settings), nullptr, /*allow_exceptions=*/false);
  const Json now = Json::parse(json_text(fingerprint));  // as it would come back from the file
  for (const auto& [key, value] : now.items()) {
    const bool known = begun.is_object() && begun.contains(key);
    if (!known || begun[key] != value)
      return fmt::format("{} was {}, now it is {}", key, known ? json_text(begun[key]) : "unknown", json_text(value));
  }
  for (const auto& [key, value] : begun.items())
    if (!now.contains(key)) return fmt::format("{} was {}, now there is none", key, json_text(value));
  return "";
}

}  // namespace

void claim_folder(const fs::path& folder, const Json& fingerprint, bool resume, bool force) {
  const fs::path settings = folder / kSettings;
  if (!fs::is_empty(folder)) {
    const std::string other = fs::exists(settings) ? other_setting(settings, fingerprint) : "it is none of quantize's";
    if (resume && other.empty()) return;
    if (resume && !force && has_saved_work(folder))
      throw_error<OptionError>(
          "{} holds unfinished work of another setting: {}; give the same settings, or start anew with --no-resume or --force",
          folder.string(), other);
    info(fmt::format("unfinished work in {} is thrown away ({})", folder.string(), resume ? other : "--no-resume"));
    for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
  }
  write_file(settings, json_text(fingerprint, 2) + "\n");
}

bool is_unfinished_work(const fs::path& folder) {
  return std::any_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](const auto& entry) { return entry.path().filename().string().starts_with(kSettings); });
}

bool has_saved_work(const fs::path& folder) { return fs::exists(folder / kState); }

void release_folder(const fs::path& folder) {
  fs::remove(folder / kSettings);
  fs::remove(folder / kState);
}

void save_checkpoint(const fs::path& folder, const Checkpoint& checkpoint, const CalibrationStreams& streams) {
  std::vector<TensorToWrite> tensors;
  append_store(tensors, "floating", streams.floating);
  append_store(tensors, "quantized", streams.quantized);
  Json errors = Json::array();
  for (const LayerError& e : checkpoint.errors) errors.push_back({e.layer, e.linear, e.relative_error});
  write_safetensors(folder / kState, tensors, {{"layer", std::to_string(checkpoint.layer)}, {"errors", json_text(errors)}});
}

std::optional<Checkpoint> load_checkpoint(const fs::path& folder, CalibrationStreams& streams) {
  const fs::path path = folder / kState;
  if (!fs::exists(path)) return std::nullopt;
  try {
    const SafetensorsFile file(path);
    Checkpoint checkpoint;
    checkpoint.layer = std::stoll(file.metadata().at("layer"));
    for (const Json& e : Json::parse(file.metadata().at("errors"))) checkpoint.errors.push_back({e[0], e[1], e[2]});
    if (streams.available()) load_store(file, "floating", streams.floating, streams.budget);
    if (streams.available() && streams.needs.quantized_stream) load_store(file, "quantized", streams.quantized, streams.budget);
    return checkpoint;
  } catch (const std::exception& error) {
    warn(fmt::format("{} cannot be used ({}); starting from the first block", path.string(), error.what()));
    return std::nullopt;
  }
}

}  // namespace lighten::compress
