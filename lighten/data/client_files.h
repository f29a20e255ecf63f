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
  std::vector<float> features;  ///< [n, columns]; empty for pictures
  ImageSet pictures;            ///< pixels and sizes alone; empty for features
  bool are_pictures() const { return columns == 0; }
  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

/// A folder with a sub-folder a client. Each holds either features.npy [samples, width] or PNG and JPEG pictures, all clients
/// the same kind; and may hold labels.csv with columns id and label: id is a row of the features (from 0) or a picture's file
/// name. A sample that is not named there, or whose label is empty, is unlabelled; a client without labels.csv is legal.
/// Throws FileError for a folder without clients and a client without data (named), FormatError that names file and line:
/// features of another width, NaN, an unknown or repeated id, all pictures that do not decode. Warns of classes with fewer than
/// three labels.
ClientFiles read_clients(const fs::path& folder, const ClientFileOptions& options = {});

}  // namespace lighten
