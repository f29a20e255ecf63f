#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

/// `lighten reproduce awq`.
Recipe awq_recipe();

}  // namespace lighten
