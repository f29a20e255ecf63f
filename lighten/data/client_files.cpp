#include "lighten/data/client_files.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/label_census.h"
#include "lighten/data/picture_reader.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/npy.h"
#include "lighten/formats/text_rows.h"

namespace lighten {
namespace {

std::vector<fs::path> client_folders(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw_error<FileError>("{}: no such folder; give one with a sub-folder a client", folder.string());
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory()) folders.push_back(entry.path());
  if (folders.empty())
    throw_error<FileError>("{}: no sub-folder; every client is one, with features.npy, texts or pictures, and labels.csv",
                           folder.string());
  std::sort(folders.begin(), folders.end());
  return folders;
}

void read_features(const fs::path& file, ClientFiles& clients) {
  const NpyFile matrix(file);
  if (matrix.rows() == 0) throw_error<FileError>("{}: the client has no data (0 rows); take its folder out", file.string());
  if (clients.columns != 0 && clients.columns != matrix.columns())
    throw_error<FormatError>("{}: {} columns, but {} in the clients before; all need the same features", file.string(),
                             matrix.columns(), clients.columns);
  clients.columns = matrix.columns();
  const std::vector<float> values = matrix.to_float();
  clients.features.insert(clients.features.end(), values.begin(), values.end());
  for (int64_t i = 0; i < matrix.rows(); ++i) clients.ids.push_back(std::to_string(i));
}

/// The client's features or texts, or nothing. Throws FormatError if it has more than one file of them.
fs::path rows_in(const fs::path& client) {
  fs::path found;
  for (const char* name : {"features.npy", "texts.txt", "texts.jsonl", "texts.csv", "texts.tsv"}) {
    if (!fs::exists(client / name)) continue;
    if (!found.empty())
      throw_error<FormatError>("client '{}' holds both {} and {}; keep one of them", client.filename().string(),
                               found.filename().string(), name);
    found = client / name;
  }
  return found;
}

void read_client_texts(const fs::path& file, ClientFiles& clients) {
  int64_t row = 0;
  for (std::string& text : read_text_rows(file)) {
    clients.texts.push_back(std::move(text));
    clients.ids.push_back(std::to_string(row++));
  }
}

/// Labels as texts ("" where there is none) of the client whose samples begin at `begin`.
void read_client_labels(const fs::path& file, const ClientFiles& clients, int64_t begin, std::vector<std::string>& labels,
                        LabelCensus& census) {
  const CsvTable table = read_csv(file);
  const size_t id = table.column("id"), label = table.column("label");
  std::unordered_map<std::string, int64_t> place, seen;
  for (int64_t i = begin; i < std::ssize(clients.ids); ++i) place.emplace(clients.ids[static_cast<size_t>(i)], i);
  for (int64_t row = 0; row < table.size(); ++row) {
    const std::string& name = table.text(row, id);
    const auto found = place.find(name);
    if (found == place.end())
      throw_error<FormatError>("{}: there is no sample '{}' in {} (ids are {})", table.where(row), name,
                               file.parent_path().string(),
                               clients.are_pictures() ? "file names of pictures" : "rows of its features or texts, from 0");
    if (const auto [first, added] = seen.emplace(name, table.lines[static_cast<size_t>(row)]); !added)
      throw_error<FormatError>("{}: '{}' stands here a second time (the first is in line {})", table.where(row), name,
                               first->second);
    labels[static_cast<size_t>(found->second)] = table.text(row, label);
    if (!table.text(row, label).empty()) census.add(table.text(row, label), table.file, table.lines[static_cast<size_t>(row)]);
  }
}

}  // namespace

fs::path client_rows(const fs::path& folder) {
  fs::path rows = rows_in(folder);
  if (rows.empty())
    throw_error<FileError>("{}: holds neither features.npy nor texts.txt, .jsonl, .csv or .tsv", folder.string());
  return rows;
}

ClientFiles read_clients(const fs::path& folder, const ClientFileOptions& options) {
  const std::vector<fs::path> folders = client_folders(folder);
  ClientFiles clients;
  clients.begin = {0};
  std::vector<std::string> labels;
  Progress progress("reading clients", std::ssize(folders), "clients");
  std::string kind;
  PictureReader reader(clients.pictures, {.side = options.side, .channels = options.grey ? 1 : 3});
  LabelCensus census;
  for (const fs::path& client : folders) {
    const fs::path rows = rows_in(client);
    const bool has_rows = !rows.empty(), has_features = rows.extension() == ".npy";
    const std::vector<fs::path> files = has_rows ? std::vector<fs::path>{} : pictures_in(client);
    if (!has_rows && files.empty())
      throw_error<FileError>(
          "client '{}' has no data: {} holds neither features.npy nor texts.txt, .jsonl, .csv or .tsv nor a PNG or JPEG "
          "picture; give it some, or take the folder out",
          client.filename().string(), client.string());
    const std::string own_kind = has_features ? "features" : has_rows ? "texts" : "pictures";
    if (!kind.empty() && kind != own_kind)
      throw_error<FormatError>("{}: holds {}, the clients before hold {}; all need the same kind", client.string(), own_kind,
                               kind);
    kind = own_kind;
    if (has_features)
      read_features(rows, clients);
    else if (has_rows)
      read_client_texts(rows, clients);
    for (const fs::path& file : files) {
      reader.read(file);
      clients.ids.push_back(file.filename().string());
    }
    labels.resize(clients.ids.size());
    if (fs::exists(client / "labels.csv"))
      read_client_labels(client / "labels.csv", clients, clients.begin.back(), labels, census);
    clients.names.push_back(client.filename().string());
    clients.begin.push_back(std::ssize(clients.ids));
    progress.advance();
  }
  progress.finish();
  reader.finish();
  census.warn_of_rare_classes();
  std::map<std::string, int32_t> classes;
  for (const std::string& label : labels)
    if (!label.empty()) classes.emplace(label, 0);
  for (auto& [name, number] : classes) {
    number = static_cast<int32_t>(clients.class_names.size());
    clients.class_names.push_back(name);
  }
  for (const std::string& label : labels) clients.labels.push_back(label.empty() ? -1 : classes.at(label));
  return clients;
}

}  // namespace lighten
