// From text files to rows of tokens.
#include <algorithm>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/compress/calibration.h"
#include "lighten/formats/text_rows.h"

namespace lighten {
namespace {

constexpr size_t kExcerpt = 64 * 1024;  // a very long text is thinned out in pieces of this many bytes
constexpr size_t kBytesPerToken = 64;   // text kept per token wanted: far more than any prose needs

/// Keeps a random choice of excerpts, in order, when the text is far longer than needed.
std::string thin_out(std::string text, size_t keep, Random& random) {
  if (text.size() <= keep) return text;
  std::vector<std::pair<size_t, size_t>> pieces;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(begin + kExcerpt, text.size());
    const size_t newline = end < text.size() ? text.rfind('\n', end) : std::string::npos;
    if (newline != std::string::npos && newline > begin) end = newline + 1;
    pieces.emplace_back(begin, end);
    begin = end;
  }
  std::vector<size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), size_t{0});
  random.shuffle(order);
  size_t chosen = 0;
  for (size_t bytes = 0; chosen < order.size() && bytes < keep; ++chosen)
    bytes += pieces[order[chosen]].second - pieces[order[chosen]].first;
  order.resize(chosen);
  std::sort(order.begin(), order.end());
  std::string kept;
  for (const size_t piece : order) kept.append(text, pieces[piece].first, pieces[piece].second - pieces[piece].first);
  return kept;
}

std::string names_of(const std::vector<fs::path>& files) {
  std::string names;
  for (const fs::path& file : files) names += (names.empty() ? "" : ", ") + file.string();
  return names;
}

}  // namespace

CalibrationRows read_calibration(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                                 const CalibrationOptions& options) {
  if (options.row < 2 || options.tokens < options.row)
    throw_error<OptionError>("calibration: {} tokens do not make one row of {}; give at least {}", options.tokens, options.row,
                             options.row);
  if (files.empty()) throw_error<CalibrationError>("this method needs calibration text; give --calib FILE");
  Random random(options.seed);
  const size_t keep =
      std::max<size_t>(8u << 20, static_cast<size_t>(options.tokens) * kBytesPerToken) / files.size() + kExcerpt;
  std::vector<int32_t> ids;
  for (const fs::path& file : files) {
    const std::vector<int32_t> part =
        tokenizer.encode(thin_out(read_prose(file, "calibration file"), keep, random), /*special=*/false);
    ids.insert(ids.end(), part.begin(), part.end());
  }

  const bool bos = tokenizer.adds_bos() && tokenizer.bos() >= 0;
  const int64_t width = options.row - (bos ? 1 : 0), total = static_cast<int64_t>(ids.size());
  if (total < width)
    throw_error<CalibrationError>(
        "calibration text {} holds {} tokens, fewer than one row of {}; give more text (at least {} tokens are wanted)",
        names_of(files), total, options.row, options.tokens);
  const int64_t wanted = options.tokens / options.row, available = total / width;
  if (available < wanted)
    warn(fmt::format("calibration text {} holds {} tokens: {} rows of {} are used where {} were asked for", names_of(files),
                     total, available, options.row, wanted));

  const auto offset = static_cast<int64_t>(random.below(static_cast<uint64_t>(total - available * width) + 1));
  std::vector<int64_t> starts(static_cast<size_t>(available));
  for (int64_t i = 0; i < available; ++i) starts[static_cast<size_t>(i)] = offset + i * width;
  random.shuffle(starts);
  starts.resize(static_cast<size_t>(std::min(wanted, available)));

  CalibrationRows result;
  result.row = options.row;
  result.text_tokens = total;
  result.counts.resize(static_cast<size_t>(*std::max_element(ids.begin(), ids.end())) + 1);
  for (const int32_t id : ids) ++result.counts[static_cast<size_t>(id)];
  for (const int64_t start : starts) {
    std::vector<int32_t> row;
    if (bos) row.push_back(tokenizer.bos());
    row.insert(row.end(), ids.begin() + start, ids.begin() + start + width);
    result.rows.push_back(std::move(row));
  }
  return result;
}

}  // namespace lighten
