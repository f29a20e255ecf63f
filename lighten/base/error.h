// The one small hierarchy of errors. A message says what was wrong, where (file, tensor, line) and what to do.
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace lighten {

/// Base of all errors that Lighten throws on purpose. `lighten` prints what() and exits with exit_code().
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  virtual int exit_code() const { return 1; }
};

/// A file or its contents are not what they must be (truncated, wrong type, NaN...). Names the file and the field.
class FormatError : public Error {
  using Error::Error;
};
/// A file or folder cannot be opened, written or replaced.
class FileError : public Error {
  using Error::Error;
};
/// A command line or an options struct holds a value that cannot work. Exit code 2.
class OptionError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 2; }
};
/// Calibration text is empty, binary or too short.
class CalibrationError : public Error {
  using Error::Error;
};
/// The model has a shape or architecture that the asked operation does not support.
class ModelError : public Error {
  using Error::Error;
};
/// The user pressed Ctrl-C; files are as they were. The message may say how to go on.
class Interrupted : public Error {
 public:
  explicit Interrupted(const std::string& message = "interrupted") : Error(message) {}
  int exit_code() const override { return 130; }
};

/// throw_error<FormatError>("{}: tensor {} ...", file, name): formats and throws.
template <typename E, typename... Args>
[[noreturn]] void throw_error(fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lighten
