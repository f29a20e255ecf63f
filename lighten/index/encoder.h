// Float vectors -> codes, without torch: sign bits, a linear map, or a recurrent binarizer (systems/labels/bebr).
#pragma once
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/threads.h"
#include "lighten/index/codes.h"
#include "lighten/kernels/linear.h"

namespace lighten {

/// y = W x + b, W [outputs, inputs].
struct DenseLayer {
  int64_t inputs = 0, outputs = 0;
  std::vector<float> weight, bias;
};
/// Dense layers with ReLU between them; none: the identity.
using DenseNet = std::vector<DenseLayer>;

/// The recurrent binarizer, its nets with batch norms folded in:
///   b_0 = sign(W_0(f));  j = 1..u:  b_j = b_{j-1} + 2^-j sign(W_j(f - normalise(R_{j-1}(b_{j-1}))))
/// with sign(0) = +1, f normalised to length 1 if `normalise`. A linear code (ITQ) is u = 0 with one layer; sign bits of the
/// vector itself are u = 0 with none.
struct CodeEncoder {
  std::string method;  ///< that trained it: for messages and metadata
  int64_t inputs = 0;  ///< d
  SdcShape shape;
  bool normalise = true;
  std::vector<DenseNet> binarizers;      ///< W_0 .. W_u
  std::vector<DenseNet> reconstructors;  ///< R_0 .. R_{u-1}: m -> d
  CodeFormat format() const { return code_format(shape.dimensions, shape.loops); }
};
/// bit d = (x_d >= 0).
CodeEncoder sign_encoder(int64_t dimensions);

/// One .safetensors: binarizer.J.K.weight, binarizer.J.K.bias, reconstructor.J.K..., metadata. Loading checks that all shapes
/// fit together and values are finite; throws FormatError that names the tensor.
void save_encoder(const fs::path& path, const CodeEncoder& encoder);
CodeEncoder load_encoder(const fs::path& path);

/// Encodes rows of float vectors. Deterministic for a given instruction set whatever the number of threads.
class CodeWriter {
 public:
  explicit CodeWriter(const CodeEncoder& encoder);
  /// x [count, inputs] -> rows [count, row_bytes].
  void encode(const float* x, int64_t count, uint8_t* rows, ThreadPool& pool) const;
  const CodeFormat& format() const { return format_; }
  int64_t inputs() const { return inputs_; }

 private:
  struct Packed {
    LinearSpec spec;
    std::vector<std::byte> bytes;
    size_t offset = 0;  ///< where 64-byte aligned data begins
    std::vector<float> bias;
  };
  using PackedNet = std::vector<Packed>;
  CodeFormat format_;
  int64_t inputs_;
  bool normalise_;
  std::vector<PackedNet> binarizers_, reconstructors_;

  static PackedNet pack(const DenseNet& net);
  static std::vector<float> apply(const PackedNet& net, const std::vector<float>& x, int64_t count, ThreadPool& pool);
};

}  // namespace lighten
