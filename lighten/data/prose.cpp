#include "lighten/data/prose.h"

#include <algorithm>
#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/base/process.h"
#include "lighten/base/progress.h"
#include "lighten/data/fetch.h"
#include "lighten/data/sha256.h"

namespace lighten {
namespace {

constexpr uint64_t kDownloadBytes = 36'900'000;

/// A package and how its documents are read.
struct Source {
  std::string package, folder, ending;
  Paragraphs (*read)(std::string_view);
};

const std::vector<Source>& sources() {
  static const std::vector<Source> table = {
      {"python3.11-doc", "usr/share/doc/python3.11/html", ".html", paragraphs_of_html},
      {"libreoffice-help-en-us", "usr/share/libreoffice/help/en-US/text", ".html", paragraphs_of_html},
      {"debian-reference-en", "usr/share", ".html", paragraphs_of_html},
      {"debian-policy", "usr/share/doc/debian-policy", ".html", paragraphs_of_html},
      {"developers-reference", "usr/share", ".html", paragraphs_of_html},
      {"manpages", "usr/share/man", "", paragraphs_of_man},
      {"manpages-dev", "usr/share/man", "", paragraphs_of_man},
      {"perl-doc", "usr/share/perl", ".pod", paragraphs_of_pod},
      {"postgresql-doc-15", "usr/share/doc/postgresql-doc-15/html", ".html", paragraphs_of_html},
      {"sword-text-web", "books", ".osis", paragraphs_of_osis},
  };
  return table;
}

/// SWORD's zText: NAME.bzs holds (offset, compressed bytes, bytes) of zlib streams in NAME.bzz, one a book. Python, which pip
/// needs anyway, brings zlib.
constexpr const char* kUnpackSword = R"py(
import glob, os, re, struct, sys, zlib
root = sys.argv[1]
os.makedirs(root + '/books', exist_ok=True)
for index in sorted(glob.glob(root + '/usr/share/sword/modules/texts/ztext/*/[on]t.bzs')):
    entries, data = open(index, 'rb').read(), open(index[:-1] + 'z', 'rb').read()
    for i in range(len(entries) // 12):
        offset, packed, size = struct.unpack_from('<III', entries, 12 * i)
        text = zlib.decompress(data[offset:offset + packed])
        start = re.search(rb'<div[^>]*osisID="(\w+)"[^>]*type="book"', text)
        if start:
            open('%s/books/%s.osis' % (root, start.group(1).decode()), 'wb').write(text[start.start():])
)py";

void run_or_throw(const std::vector<std::string>& command, const std::string& what) {
  const ProcessResult result = run_process(command);
  if (result.exit_code == 127) throw_error<FileError>("{}: not found; it is needed to {}", command[0], what);
  if (result.exit_code != 0 && result.exit_code != 2)
    throw_error<FileError>("cannot {}: {}", what, result.output.substr(0, 500));  // gzip: 2 is a warning
}

/// Links are second names of documents; gzip refuses them.
void remove_links(const fs::path& root) {
  std::vector<fs::path> links;
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error))
    if (it->is_symlink()) links.push_back(it->path());
  for (const fs::path& link : links) fs::remove(link, error);
}

std::vector<Document> read_documents(const Source& source, const fs::path& folder) {
  const fs::path root = folder / source.folder;
  remove_links(root);
  if (source.package.starts_with("manpages")) run_or_throw({"gzip", "-dqr", root.string()}, "unpack man pages");
  if (source.package == "sword-text-web")
    run_or_throw({python_program(), "-c", kUnpackSword, folder.string()}, "unpack a SWORD module");
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error))
    if (it->is_regular_file() && it->path().filename().string().ends_with(source.ending)) files.push_back(it->path());
  std::sort(files.begin(), files.end());
  std::vector<Document> documents;
  for (const fs::path& file : files) {
    check_interrupt();
    Document document{source.package + ": " + fs::relative(file, root).generic_string(), source.read(read_file(file))};
    std::erase_if(document.paragraphs, [](const std::string& paragraph) { return !is_prose(paragraph); });
    if (!document.paragraphs.empty()) documents.push_back(std::move(document));
  }
  if (documents.empty())
    throw_error<FileError>("the Debian package {} holds no text where it is expected ({})", source.package, source.folder);
  return documents;
}

}  // namespace

Mixture mix(const std::vector<Document>& documents, const std::vector<Share>& shares, std::vector<std::string>& seen,
            size_t least_bytes) {
  std::set<std::string> known(seen.begin(), seen.end());
  std::map<std::string, const Document*> by_key;  // in order of the hash
  for (const Document& document : documents) by_key[sha256(document.name)] = &document;
  std::map<std::string, std::string> taken;
  Mixture mixture;
  for (const Share& share : shares) {
    size_t total = 0;
    for (const auto& [key, document] : by_key) {
      if (!document->name.starts_with(share.source) || total >= share.bytes || taken.contains(key)) continue;
      std::string text;
      std::vector<std::string> hashes;
      for (const std::string& paragraph : document->paragraphs) {
        if (text.size() + paragraph.size() > share.document_bytes) break;
        std::string hash = sha256(paragraph);
        if (known.contains(hash) || std::find(hashes.begin(), hashes.end(), hash) != hashes.end()) continue;
        hashes.push_back(std::move(hash));
        text += paragraph + "\n\n";
      }
      if (text.size() < least_bytes) continue;
      known.insert(hashes.begin(), hashes.end());
      total += text.size();
      taken[key] = std::move(text);
    }
  }
  for (const auto& [key, text] : taken) {
    mixture.text += text;
    mixture.documents.push_back(by_key[key]->name);
  }
  seen.assign(known.begin(), known.end());
  return mixture;
}

std::string prose_packages() {
  std::string names;
  for (const Source& source : sources()) names += (names.empty() ? "" : ", ") + source.package;
  return names;
}

void build_prose(const fs::path& work, const fs::path& output) {
  std::vector<std::string> names;
  for (const Source& source : sources()) names.push_back(source.package);
  const std::vector<DebianPackage> packages = fetch_debian(work, names, kDownloadBytes);

  std::vector<Document> documents, near_books, far_books;
  Progress progress("reading documents", static_cast<int64_t>(names.size()), "packages");
  for (size_t i = 0; i < names.size(); ++i) {
    for (Document& document : read_documents(sources()[i], packages[i].folder)) {
      if (names[i] != "sword-text-web")
        documents.push_back(std::move(document));
      else
        (sha256(document.name)[0] < '5' ? far_books : near_books)
            .push_back(std::move(document));  // a third of the books is for testing
    }
    progress.advance(1, names[i]);
  }
  progress.finish();

  // The test text is chosen first, so that whatever both could hold stays out of the calibration.
  std::vector<std::string> seen;
  const std::vector<std::pair<std::string, Mixture>> texts = [&] {
    std::vector<std::pair<std::string, Mixture>> t;
    t.emplace_back("test.txt", mix(documents, {{"perl-doc", 170'000, 8'000}, {"postgresql-doc-15", 170'000, 8'000}}, seen));
    t.emplace_back("calibration.txt", mix(documents,
                                          {{"python3.11-doc", 500'000, 20'000},
                                           {"libreoffice-help-en-us", 250'000, 12'000},
                                           {"debian-reference-en", 250'000, 60'000},
                                           {"debian-policy", 150'000, 30'000},
                                           {"developers-reference", 150'000, 60'000},
                                           {"manpages: ", 150'000, 15'000},
                                           {"manpages-dev: ", 250'000, 15'000}},
                                          seen));
    t.emplace_back("far.txt", mix(far_books, {{"", 340'000, 20'000}}, seen));
    t.emplace_back("calibration_far.txt", mix(near_books, {{"", 600'000, 24'000}}, seen));
    return t;
  }();

  Json source = {{"lighten", LIGHTEN_VERSION}, {"key", "documents are ordered and split by the SHA-256 of their names"}};
  for (const DebianPackage& package : packages)
    source["packages"].push_back({{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}});
  source["package_lists"] = release_dates(work);
  for (const auto& [name, mixture] : texts) {
    if (mixture.text.size() < 250'000)
      throw_error<FileError>("prose: only {} of text for {}; the Debian packages have changed too much ({})",
                             human_bytes(static_cast<double>(mixture.text.size())), name, prose_packages());
    write_file(output / name, mixture.text);
    source["files"][name] = {
        {"bytes", mixture.text.size()}, {"sha256", sha256(mixture.text)}, {"documents", mixture.documents}};
  }
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

}  // namespace lighten
