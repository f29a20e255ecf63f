// The text set "prose": English documentation for calibration, other documentation for testing, and a far domain.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/data/markup.h"

namespace lighten {

struct Document {
  std::string name;  ///< "perl-doc: perlsec.pod": the key that decides where it goes
  Paragraphs paragraphs;
};

/// Which documents go into a text, and how much of each.
struct Share {
  std::string source;     ///< documents whose name begins with this
  size_t bytes;           ///< about so much of them, in order of the SHA-256 of their names
  size_t document_bytes;  ///< at most so much of one document, from its beginning, whole paragraphs
};
struct Mixture {
  std::string text;  ///< paragraphs separated by blank lines; documents in order of the SHA-256 of their names
  std::vector<std::string> documents;
};
/// Deterministic. A paragraph that `seen` holds is left out; those taken are added to it. Documents below `least_bytes` of
/// prose are left out.
Mixture mix(const std::vector<Document>& documents, const std::vector<Share>& shares, std::vector<std::string>& seen,
            size_t least_bytes = 1000);

/// Fetches the packages into `work` and writes calibration.txt, test.txt, calibration_far.txt, far.txt and source.json into
/// `output`.
void build_prose(const fs::path& work, const fs::path& output);
/// "perl-doc, ...": for people.
std::string prose_packages();

}  // namespace lighten
