#include "lighten/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

#include "lighten/base/error.h"
#include "lighten/base/launched.h"

namespace lighten {
namespace {

std::atomic<bool> quiet{false};
volatile std::sig_atomic_t interrupted = 0;

void on_signal(int signal) {
  if (interrupted) std::_Exit(128 + signal);
  interrupted = 1;
}

uint64_t status_field(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::strtoull(line.c_str() + field.size(), nullptr, 10) * 1024;
  return 0;
}

}  // namespace

void set_quiet(bool value) { quiet = value; }
bool is_quiet() { return quiet; }

void info(const std::string& line) {
  if (!quiet) fmt::print(stderr, "{}\n", line);
}
void warn(const std::string& line) {
  if (launched_rank() == 0) fmt::print(stderr, "warning: {}\n", line);
}

void finish_output() {
  errno = 0;
  std::cout.flush();
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good()) return;
  throw_error<FileError>("cannot write to standard output: {}",
                         errno == 0 || errno == ENOSPC ? "the disk is full" : std::strerror(errno));
}

Progress::Progress(std::string title, int64_t total, std::string unit)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_print_(start_ - std::chrono::hours(1)) {
  if (!terminal_) last_print_ = start_;
}

Progress::~Progress() {
  if (!finished_ && terminal_ && !quiet) fmt::print(stderr, "\n");
}

void Progress::advance(int64_t steps, const std::string& note) {
  check_interrupt();
  done_ += steps;
  note_ = note;
  const auto now = std::chrono::steady_clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  if (now - last_print_ >= pause) {
    last_print_ = now;
    print(false);
  }
}

void Progress::skip(int64_t steps) {
  done_ += steps;
  skipped_ += steps;
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  print(true);
}

void Progress::print(bool last) {
  if (quiet) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::string line = fmt::format("{}: {}/{}{}", title_, done_, total_, unit_.empty() ? "" : " " + unit_);
  if (!note_.empty()) line += " (" + note_ + ")";
  if (last)
    line += fmt::format(", {}", human_seconds(seconds));
  else if (done_ > skipped_ && total_ > done_)
    line += fmt::format(", {} left",
                        human_seconds(seconds * static_cast<double>(total_ - done_) / static_cast<double>(done_ - skipped_)));
  if (!terminal_) {
    fmt::print(stderr, "{}\n", line);
    return;
  }
  winsize size{};
  const size_t width = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col - 1u : 100u;
  if (line.size() > width) line.resize(width);
  fmt::print(stderr, "\r\x1b[K{}{}", line, last ? "\n" : "");
  std::fflush(stderr);
}

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupt_requested() { return interrupted != 0; }
void check_interrupt() {
  if (interrupted) throw Interrupted();
}

std::string human_bytes(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 999.5 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f} B", bytes);
  return fmt::format("{:.{}f} {}", bytes, bytes < 99.95 ? 1 : 0, units[unit]);
}

std::string human_seconds(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const int64_t whole = std::lround(seconds);
  if (whole < 120) return fmt::format("{} s", whole);
  if (whole < 7200) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

uint64_t peak_resident_bytes() { return status_field("VmHWM:"); }
uint64_t resident_bytes() { return status_field("VmRSS:"); }

}  // namespace lighten
