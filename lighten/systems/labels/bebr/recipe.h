#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

/// `lighten reproduce bebr`.
Recipe bebr_recipe();

}  // namespace lighten
