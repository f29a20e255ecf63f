// The reproduction of ERASE.
#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

Recipe erase_recipe();

}  // namespace lighten
