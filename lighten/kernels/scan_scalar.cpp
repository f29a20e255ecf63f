// The reference: what a scan must find, one code at a time.
#include <algorithm>
#include <bit>

#include "lighten/kernels/scan_table.h"

namespace lighten::kernels {

void hamming_scalar(const HammingCall& call) {
  int32_t distances[kScanBlock];
  for (int64_t block = call.begin; block < call.end; ++block) {
    const uint64_t* codes = call.blocks + block * call.words * kScanBlock;
    for (int64_t query = 0; query < call.queries; ++query) {
      const int64_t group = query / kHammingLanes * kHammingLanes;
      const int64_t lanes = std::min<int64_t>(kHammingLanes, call.queries - group);
      const uint64_t* words = call.panel + group * call.words + (query - group);
      bool within = false;
      for (int64_t i = 0; i < kScanBlock; ++i) {
        int32_t distance = 0;
        for (int64_t w = 0; w < call.words; ++w) distance += std::popcount(codes[w * kScanBlock + i] ^ words[w * lanes]);
        distances[i] = distance;
        within |= distance <= call.limits[query];
      }
      if (within) call.collect(call.context, query, block, distances);
    }
  }
}

void sdc_scalar(const SdcCall& call) {
  float scores[kScanBlock];
  std::vector<uint8_t> levels(static_cast<size_t>(call.shape.dimensions));
  for (int64_t block = call.begin; block < call.end; ++block) {
    const SdcBlocks blocks{reinterpret_cast<const std::byte*>(call.blocks), call.inverse_norms, 0, call.shape};
    for (int64_t query = 0; query < call.queries; ++query) {
      const auto* v = reinterpret_cast<const int8_t*>(call.panel) + query * call.shape.dimensions;
      bool within = false;
      for (int64_t i = 0; i < kScanBlock; ++i) {
        unpack_sdc(blocks, block * kScanBlock + i, levels.data());
        int32_t sum = 0;
        for (int64_t d = 0; d < call.shape.dimensions; ++d) sum += levels[static_cast<size_t>(d)] * v[d];
        scores[i] = static_cast<float>(2 * sum - call.bias[query]) * call.inverse_norms[block * kScanBlock + i];
        within |= scores[i] >= call.limits[query];
      }
      if (within) call.collect(call.context, query, block, scores);
    }
  }
}

void sdc_planes_scalar(const SdcCall& call) {
  float scores[kScanBlock];
  const int64_t words = plane_words(call.shape), planes = call.shape.loops + 1;
  for (int64_t block = call.begin; block < call.end; ++block) {
    const auto* codes = reinterpret_cast<const uint64_t*>(call.blocks) + block * words * planes * kScanBlock;
    for (int64_t query = 0; query < call.queries; ++query) {
      const auto* bits = reinterpret_cast<const uint64_t*>(call.panel) + query * planes * words;
      bool within = false;
      for (int64_t n = 0; n < kScanBlock; ++n) {
        int32_t differing = 0;
        for (int64_t i = 0; i < planes; ++i)
          for (int64_t j = 0; j < planes; ++j)
            for (int64_t w = 0; w < words; ++w)
              differing += std::popcount(codes[(i * words + w) * kScanBlock + n] ^ bits[j * words + w])
                           << (2 * call.shape.loops - i - j);
        scores[n] = static_cast<float>(-2 * differing - call.bias[query]) * call.inverse_norms[block * kScanBlock + n];
        within |= scores[n] >= call.limits[query];
      }
      if (within) call.collect(call.context, query, block, scores);
    }
  }
}

}  // namespace lighten::kernels
