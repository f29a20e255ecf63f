// The engines as LogitModel: for models that are already in memory.
#pragma once
#include <memory>

#include "lighten/eval/evaluate.h"
#include "lighten/nn/decoder.h"
#include "lighten/runtime/model.h"

namespace lighten {

std::unique_ptr<LogitModel> torch_scorer(Decoder decoder);
std::unique_ptr<LogitModel> runtime_scorer(std::unique_ptr<RuntimeModel> model);

}  // namespace lighten
