// The package lists of Debian as data: one record for every package, with its long description.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

struct DebianRecord {
  std::string name;
  std::string source;   ///< source package: what splits go by
  std::string section;  ///< without "contrib/" and the like
  std::string maintainer;
  std::string synopsis;           ///< the one-line description
  std::string body;               ///< the long one: paragraphs separated by empty lines, list items on lines of their own
  std::vector<std::string> tags;  ///< debtags, sorted
  /// Names in Depends, Pre-Depends and Recommends (the first of alternatives), and in Suggests and Enhances; sorted, each once,
  /// the package itself left out. Some are virtual: no record has that name.
  std::vector<std::string> depends, suggests;
};

/// Joins the stanzas of `apt-cache dumpavail` with the long descriptions of Translation-en files by Description-md5. Packages
/// without a long description are left out. Sorted by name, each name once.
std::vector<DebianRecord> parse_debian(std::string_view available, const std::vector<std::string>& translations);

/// The long description as it stands in a Translation file ("\n text\n .\n text") -> paragraphs.
std::string plain_description(std::string_view continued_lines);

/// One line a record: name, source, section, maintainer, synopsis, body, tags, depends, suggests, separated by tabs; lists by
/// spaces; \t, \n and \\ stand for themselves. Throws FormatError that names the line.
std::string to_tsv(const std::vector<DebianRecord>& records);
std::vector<DebianRecord> debian_from_tsv(std::string_view tsv, const std::string& file);

/// Gets private package lists with apt (no root, the system's lists stay as they are) and writes packages.tsv and source.json
/// (date of the lists, counts) into `output`.
void build_debian(const fs::path& work, const fs::path& output);

}  // namespace lighten
