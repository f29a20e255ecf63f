// Light models in pieces, of random codes: what the tests of the format share.
#pragma once
#include "lighten/base/random.h"
#include "lighten/runtime/light_model.h"
#include "lighten/runtime/random_codes_test.h"
#include "lighten/runtime/scripted_model_test.h"
#include "lighten/runtime/tiny_model_test.h"

namespace lighten::test {

/// A light model in pieces: every bit width and kind of zero point among its linears, embedding in 4 bits (or float).
struct LightParts {
  ModelConfig config;
  std::map<std::string, QuantTensor> quantized;
  Tensors floats;
};

inline LightParts random_parts(const ModelConfig& config, uint64_t seed, bool float_embedding = false) {
  constexpr std::pair<int, ZeroKind> kinds[] = {{2, ZeroKind::integer},   {3, ZeroKind::integer}, {4, ZeroKind::minimum},
                                                {8, ZeroKind::symmetric}, {3, ZeroKind::minimum}, {4, ZeroKind::symmetric},
                                                {8, ZeroKind::integer}};
  Random random(seed);
  LightParts parts{config, {}, {}};
  size_t next = 0;
  for (auto& [name, values] : random_tensors(config, seed)) {
    const bool embedding = name == "model.embed_tokens.weight" || name == "lm_head.weight";
    const bool norm_or_bias = name.find("norm") != std::string::npos || name.ends_with(".bias");
    if (norm_or_bias || (embedding && float_embedding)) {
      parts.floats[name] = values;
      continue;
    }
    const auto& [bits, zero] = embedding ? std::pair{4, ZeroKind::integer} : kinds[next++ % std::size(kinds)];
    const int64_t group = next % 3 == 0 ? 0 : next % 3 == 1 ? 32 : 64;
    for (const TensorShape& tensor : expected_tensors(config))
      if (tensor.name == name)
        parts.quantized[name] = random_codes(tensor.shape[0], tensor.shape[1], bits, group, zero, random);
  }
  return parts;
}

inline const std::vector<std::string> kTokens{"a", "b"};

inline void write_pieces(LightWriter& writer, const LightParts& parts, const std::vector<std::string>& order) {
  for (const std::string& piece : order) {
    std::map<std::string, QuantTensor> quantized;
    Tensors floats;
    const auto belongs = [&](const std::string& name) {
      return piece == "ends" ? name.find(".layers.") == std::string::npos
                             : name.find(".layers." + piece.substr(6) + ".") != std::string::npos;
    };
    for (const auto& [name, tensor] : parts.quantized)
      if (belongs(name)) quantized[name] = tensor;
    for (const auto& [name, tensor] : parts.floats)
      if (belongs(name)) floats[name] = tensor;
    writer.add_piece(piece, quantized, floats);
  }
}

}  // namespace lighten::test
