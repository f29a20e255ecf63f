// The reproduction of LP-ICP.
#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

Recipe lp_icp_recipe();

}  // namespace lighten
