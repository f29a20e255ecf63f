// The old encoder of the compatibility arms: vectors from word counts, as they were made before there were sentence encoders.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lighten::bebr {

/// Latent semantic analysis: the TF-IDF of features/ (weights counted over documents) on the first `dimensions` right singular
/// vectors of the documents' matrix. Both texts of a pair are projected; rows of length 1.
struct LsaVectors {
  int64_t dimensions = 0;
  std::vector<float> queries, documents;
};
LsaVectors lsa_vectors(const std::vector<std::string>& queries, const std::vector<std::string>& documents, int64_t dimensions,
                       int64_t buckets = 2048);

}  // namespace lighten::bebr
