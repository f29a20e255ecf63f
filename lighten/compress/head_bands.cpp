#include "lighten/compress/head_bands.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/runtime/light_model.h"

namespace lighten {

std::vector<HeadBand> parse_head_bands(const std::string& text) {
  std::vector<HeadBand> bands;
  std::string list = text;
  std::erase(list, ' ');
  if (list.empty()) throw OptionError("--head-frequent is empty; give BITS:TOKENS, as 8:4096, or leave it out");
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size()), colon = list.find(':', at);
    HeadBand band;
    const auto number = [&](size_t from, size_t to, auto& value) {
      const auto [stop, error] = std::from_chars(list.data() + from, list.data() + to, value);
      return error == std::errc() && stop == list.data() + to;
    };
    if (colon >= end || !number(at, colon, band.bits) || !number(colon + 1, end, band.tokens) || end + 1 == list.size())
      throw_error<OptionError>("--head-frequent {}: give BITS:TOKENS, as 8:4096, or several with commas between", text);
    bands.push_back(band);
    at = end + 1;
  }
  return bands;
}

std::vector<HeadBand> all_head_bands(const std::vector<HeadBand>& frequent, int head_bits, int64_t vocab) {
  if (frequent.empty()) return {};
  if (head_bits == 0)
    throw OptionError(
        "--head-frequent gives frequent tokens more bits than --head-bits, which is 0 (16-bit floats); give both");
  if (frequent.size() >= kMostBands) throw_error<OptionError>("--head-frequent: at most {} bands", kMostBands - 1);
  std::vector<HeadBand> bands;
  bands.reserve(frequent.size() + 1);
  bands.assign(frequent.begin(), frequent.end());
  bands.push_back({head_bits, vocab});
  for (size_t i = 0; i + 1 < bands.size(); ++i) {
    const HeadBand& band = bands[i];
    if (band.bits != 2 && band.bits != 3 && band.bits != 4 && band.bits != 8)
      throw_error<OptionError>("--head-frequent {}:{}: bits must be 2, 3, 4 or 8", band.bits, band.tokens);
    if (band.bits <= bands[i + 1].bits)
      throw_error<OptionError>(
          "--head-frequent {}:{}: bits must fall from band to band, down to --head-bits, but {} bits follow", band.bits,
          band.tokens, bands[i + 1].bits);
    if (band.tokens < 1)
      throw_error<OptionError>("--head-frequent {}:{}: a band has at least one token", band.bits, band.tokens);
    if (band.tokens >= bands.back().tokens)
      throw_error<OptionError>(
          "--head-frequent {}:{}: of the model's {} tokens (what --trim-vocab leaves, if given) {} are left for this band and "
          "for --head-bits; each band takes tokens that the ones before it have not",
          band.bits, band.tokens, vocab, bands.back().tokens);
    bands.back().tokens -= band.tokens;
  }
  return bands;
}

std::vector<int32_t> by_frequency(const std::vector<int64_t>& counts, const std::vector<int64_t>& first, int64_t vocab) {
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::vector<bool> leads(order.size());
  for (const int64_t id : first)
    if (id >= 0 && id < vocab) leads[static_cast<size_t>(id)] = true;
  const auto rank = [&](int32_t id) {
    const auto i = static_cast<size_t>(id);
    return std::pair(leads[i] ? 1 : 0, i < counts.size() ? counts[i] : int64_t{0});
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
  return order;
}

}  // namespace lighten
