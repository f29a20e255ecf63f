// More bits for the rows of frequent tokens in embedding and head: which tokens, how many, how many bits.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lighten {

/// So many rows of embedding and head in `bits` bits.
struct HeadBand {
  int bits = 8;
  int64_t tokens = 0;
};

/// "8:4096, 4:16384": 4,096 tokens in 8 bits, then 16,384 in 4. Throws OptionError for what is no such list.
std::vector<HeadBand> parse_head_bands(const std::string& text);

/// The bands and one for all other tokens of `vocab`, in head_bits. Empty if there are none. Throws OptionError (names band and
/// remedy) if bits are none of 2, 3, 4, 8 or do not fall from band to band down to head_bits, or if no token is left.
std::vector<HeadBand> all_head_bands(const std::vector<HeadBand>& frequent, int head_bits, int64_t vocab);

/// Token ids [vocab]: those of `first`, then by falling count, ties by smaller id. `counts` may be shorter; ids that are no
/// rows are passed over.
std::vector<int32_t> by_frequency(const std::vector<int64_t>& counts, const std::vector<int64_t>& first, int64_t vocab);

}  // namespace lighten
