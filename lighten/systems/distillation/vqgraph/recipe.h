// The reproduction of VQGraph.
#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

Recipe vqgraph_recipe();

}  // namespace lighten
