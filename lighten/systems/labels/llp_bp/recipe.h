// The reproduction of LLP-BP.
#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

Recipe llp_bp_recipe();

}  // namespace lighten
