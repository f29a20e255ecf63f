// Hashed TF-IDF: the plain features that every encoder must beat.
#pragma once
#include <string>
#include <vector>

#include "lighten/features/text_features.h"

namespace lighten {

/// Words (letters and digits, lower case, at least two characters) are hashed into `columns` places; a place holds
/// (1 + ln count) * (1 + ln((1 + n) / (1 + texts with it))), n and texts counted over `fitted` alone; rows have unit length.
/// `fitted`: indices of the texts that may be counted (training data); empty: all.
Features bag_of_words(const std::vector<std::string>& texts, int64_t columns, const std::vector<int64_t>& fitted = {});

}  // namespace lighten
