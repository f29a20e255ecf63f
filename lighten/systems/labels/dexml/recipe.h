// The reproduction of DEXML.
#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

Recipe dexml_recipe();

}  // namespace lighten
