#include <cstring>

#include "lighten/base/error.h"
#include "lighten/index/index.h"

namespace lighten {
namespace {

/// FAISS's own serialisation: four letters, then plain little-endian fields.
class FaissFile {
 public:
  explicit FaissFile(const fs::path& path) : file_(path) {}
  void letters(const char* four) { file_.write(std::string_view(four, 4)); }
  template <typename T>
  void field(T value) {
    file_.write(std::as_bytes(std::span(&value, 1)));
  }
  void bytes(std::span<const std::byte> bytes) { file_.write(bytes); }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

constexpr int32_t kInnerProduct = 0, kL2 = 1;

void binary_header(FaissFile& file, const CodeFormat& format, int64_t count) {
  file.field(static_cast<int32_t>(format.row_bytes() * 8));
  file.field(static_cast<int32_t>(format.row_bytes()));
  file.field(count);
  file.field(uint8_t{1});  // trained
  file.field(kL2);
}

void float_header(FaissFile& file, const CodeFormat& format, int64_t count) {
  file.field(static_cast<int32_t>(format.shape.dimensions));
  file.field(count);
  file.field(int64_t{1} << 20);  // two fields that FAISS does not use any more
  file.field(int64_t{1} << 20);
  file.field(uint8_t{1});
  file.field(kInnerProduct);
}

/// Calls use(row, id) for every code that is there.
template <typename Use>
void each_code(const Index& index, Use use) {
  std::vector<uint8_t> row(static_cast<size_t>(index.format().row_bytes()));
  for (size_t s = 0; s < index.segments().size(); ++s) {
    const Segment& segment = index.segments()[s];
    for (int64_t p = 0; p < segment.blocks() * kScanBlock; ++p) {
      const int64_t id = segment.ids()[static_cast<size_t>(p)];
      const uint32_t* removed = index.removed(s);
      if (id < 0 || (removed != nullptr && (removed[p / kScanBlock] >> (p % kScanBlock) & 1) != 0)) continue;
      segment.read_row(p, row.data());
      use(row.data(), id);
    }
  }
}

}  // namespace

void export_to_faiss(const Index& index, const fs::path& path) {
  FaissFile file(path);
  const CodeFormat& format = index.format();
  std::vector<int64_t> ids;
  if (format.kind == ScanKind::hamming) {
    file.letters("IBMp");
    binary_header(file, format, index.count());
    file.letters("IBxF");
    binary_header(file, format, index.count());
    file.field(static_cast<uint64_t>(index.count() * format.row_bytes()));
    each_code(index, [&](const uint8_t* row, int64_t id) {
      file.bytes(std::as_bytes(std::span(row, static_cast<size_t>(format.row_bytes()))));
      ids.push_back(id);
    });
  } else {
    file.letters("IxMp");
    float_header(file, format, index.count());
    file.letters("IxFI");
    float_header(file, format, index.count());
    file.field(static_cast<uint64_t>(index.count() * format.shape.dimensions));
    std::vector<float> vector(static_cast<size_t>(format.shape.dimensions));
    each_code(index, [&](const uint8_t* row, int64_t id) {
      unit_vector_of_row(format, row, vector.data());
      file.bytes(std::as_bytes(std::span(vector)));
      ids.push_back(id);
    });
  }
  file.field(static_cast<uint64_t>(ids.size()));
  file.bytes(std::as_bytes(std::span(ids)));
  file.commit();
}

}  // namespace lighten
