#include "lighten/compress/rtn.h"

namespace lighten {
namespace {

class Rtn : public Rounding {
 public:
  explicit Rtn(const RtnOptions& options) : options_(options) {}
  bool needs_calibration() const override { return false; }
  std::map<std::string, QuantTensor> round(BlockView& view, BlockCalibration&, const GridOptions& grid) override {
    std::map<std::string, QuantTensor> result;
    for (LinearView& linear : view.linears) {
      QuantTensor tensor =
          quantize_groups(linear.module->weight, grid, GroupAxis::input, RangeSearch{.steps = options_.mse ? 100 : 0});
      install(linear.module, tensor);
      result.emplace(linear.name, std::move(tensor));
    }
    return result;
  }

 private:
  RtnOptions options_;
};

}  // namespace

OptionList describe(RtnOptions& o) {
  return {Option("mse", o.mse, "search each group's range for the least error in place of its minimum and maximum",
                 "plain rounding")};
}

std::unique_ptr<Rounding> make_rtn(const RtnOptions& options) { return std::make_unique<Rtn>(options); }

MethodEntry rtn_method() {
  auto options = std::make_shared<RtnOptions>();
  MethodEntry entry;
  entry.name = "rtn";
  entry.summary = "round every weight to the nearest level of its group; no data";
  entry.is_rounding = true;
  entry.described = describe(*options);
  entry.options = options;
  entry.rounding = [options] { return make_rtn(*options); };
  return entry;
}

}  // namespace lighten
