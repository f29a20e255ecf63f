#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

/// `lighten reproduce meal-v2`.
Recipe meal_v2_recipe();

}  // namespace lighten
