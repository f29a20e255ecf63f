// The data of many clients that people bring: a folder a client, features or pictures, and the labels of some samples.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/data/dataset.h"

namespace lighten {

struct ClientFileOptions {
  int64_t side = 28;  ///< pictures are centred in a square and brought to so many pixels
  bool grey = false;  ///< pictures are read without their colours
};

/// Samples of all clients one after the other: those of client k are [begin[k], begin[k + 1]).
struct ClientFiles {
  std::vector<std::string> names;        ///< of the clients: their folders, in alphabetical order
  std::vector<int64_t> begin;            ///< [clients + 1]
  std::vector<std::string> ids;          ///< [n] in the client: the row, or the picture's file name
  std::vector<int32_t> labels;           ///< [n], -1: none
  std::vector<std::string> class_names;  ///< of all clients' labels, in alphabetical order
  int64_t columns = 0;
  std::vector<float> features;     ///< [n, columns]; empty for others
  std::vector<std::string> texts;  ///< [n]; empty for others
  ImageSet pictures;               ///< pixels and sizes alone; empty for others
  bool are_pictures() const { return columns == 0 && texts.empty(); }
  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

/// A folder with a sub-folder a client. Each holds features.npy [samples, width], or texts (texts.txt, .jsonl, .csv or .tsv,
/// see formats/text_rows.h), or PNG and JPEG pictures, all clients the same kind; and may hold labels.csv with columns id and
/// label: id is a row of the features or texts (from 0) or a picture's file name. A sample that is not named there, or whose
/// label is empty, is unlabelled; a client without labels.csv is legal. Throws FileError for a folder without clients and a
/// client without data (named), FormatError that names file and line: two files of rows in a client, features of another width,
/// NaN, an unknown or repeated id, all pictures that do not decode. Warns of classes with fewer than three labels.
ClientFiles read_clients(const fs::path& folder, const ClientFileOptions& options = {});

/// The file with the rows of one client's folder: features.npy, else its texts. Throws FileError if it holds neither.
fs::path client_rows(const fs::path& folder);

}  // namespace lighten
