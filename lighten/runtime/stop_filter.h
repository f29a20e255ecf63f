// Cuts a stream of text before the first stop string.
#pragma once
#include <string>
#include <vector>

namespace lighten::runtime {

/// Text goes in piece by piece; what comes out can never be the beginning of a stop string. Empty stop strings are ignored.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops);
  /// The text that is safe to show now.
  std::string add(const std::string& text);
  /// What was held back, when the stream ends without a stop string.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lighten::runtime
