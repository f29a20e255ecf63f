// The reproduction of FedLabel.
#pragma once
#include "lighten/evidence/recipe.h"

namespace lighten {

Recipe fedlabel_recipe();

}  // namespace lighten
