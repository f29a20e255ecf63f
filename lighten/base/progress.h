// Messages and progress for people. Everything goes to standard error; results go to standard output.
#pragma once
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace lighten {

/// --quiet: info() and progress are silent; warnings are not.
void set_quiet(bool quiet);
bool is_quiet();

void info(const std::string& line);
void warn(const std::string& line);

/// Writes out what standard output still holds; throws FileError if not all of it arrived (disk full). To be called at the end.
void finish_output();

/// One long piece of work. On a terminal: one line that is redrawn, with share, rate and ETA. In a log: a plain line every ten
/// seconds. Polls Ctrl-C: advance() throws Interrupted after one.
class Progress {
 public:
  Progress(std::string title, int64_t total, std::string unit = "");
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void advance(int64_t steps = 1, const std::string& note = "");
  /// Work that was already done before (resume): counts, but not in the rate.
  void skip(int64_t steps);
  void finish();

 private:
  std::string title_, unit_, note_;
  int64_t total_, done_ = 0, skipped_ = 0;
  bool terminal_, finished_ = false;
  std::chrono::steady_clock::time_point start_, last_print_;
  void print(bool last);
};

/// Installs the SIGINT/SIGTERM handler that check_interrupt() polls; a second signal ends the process at once.
void install_interrupt_handler();
/// Throws Interrupted if Ctrl-C was pressed since the handler was installed.
void check_interrupt();
bool interrupt_requested();

/// "1.23 MB", "456 kB" (powers of 1000); "2 min 03 s".
std::string human_bytes(double bytes);
std::string human_seconds(double seconds);

/// Peak resident memory of this process in bytes (VmHWM), mapped pages included; current (VmRSS).
uint64_t peak_resident_bytes();
uint64_t resident_bytes();

}  // namespace lighten
