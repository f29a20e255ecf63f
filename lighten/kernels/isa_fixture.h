// For tests: runs a parameterised test once with each instruction set of this machine.
#pragma once
#include <gtest/gtest.h>

#include "lighten/kernels/cpu.h"

namespace lighten {

class ForEachIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = current_isa();
    set_isa(GetParam());
  }
  void TearDown() override { set_isa(before_); }

 private:
  Isa before_ = Isa::scalar;
};

inline std::string name_of_isa(const testing::TestParamInfo<Isa>& info) { return isa_name(info.param); }

}  // namespace lighten
