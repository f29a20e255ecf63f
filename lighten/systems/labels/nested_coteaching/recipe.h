#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

/// `lighten reproduce nested-coteaching`.
Recipe nested_coteaching_recipe();

}  // namespace lighten
