#include "lighten/data/debian.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/process.h"
#include "lighten/base/progress.h"
#include "lighten/data/fetch.h"
#include "lighten/data/sha256.h"

namespace lighten {
namespace {

/// The fields of one stanza: "Name: first line" and the lines that continue it, as they stand.
using Stanza = std::unordered_map<std::string_view, std::string_view>;

/// Calls `visit` for every stanza of a control file.
template <typename Visit>
void each_stanza(std::string_view text, const Visit& visit) {
  Stanza stanza;
  std::string_view name;
  size_t value_begin = 0, value_end = 0;
  const auto close_field = [&] {
    if (!name.empty()) stanza[name] = text.substr(value_begin, value_end - value_begin);
    name = {};
  };
  for (size_t at = 0; at <= text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view line = text.substr(at, end - at);
    if (line.empty()) {
      close_field();
      if (!stanza.empty()) visit(stanza);
      stanza.clear();
    } else if (line[0] == ' ' || line[0] == '\t') {
      value_end = end;
    } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
      close_field();
      name = line.substr(0, colon);
      value_begin = at + std::min(line.find_first_not_of(' ', colon + 1), line.size());
      value_end = end;
    }
    at = end + 1;
  }
}

std::string_view field(const Stanza& stanza, std::string_view name) {
  const auto it = stanza.find(name);
  return it == stanza.end() ? std::string_view() : it->second;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

std::string_view first_line(std::string_view text) { return trimmed(text.substr(0, text.find('\n'))); }

/// "libc6 (>= 2.34) [amd64], a:any | b" -> "libc6", "a".
void add_relations(std::string_view text, std::vector<std::string>& names) {
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view relation = trimmed(text.substr(at, comma - at));
    const std::string_view name = relation.substr(0, relation.find_first_of(" (|[:\t\n"));
    if (!name.empty()) names.emplace_back(name);
    at = comma + 1;
  }
}

void sort_once(std::vector<std::string>& names, const std::string& without) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::erase(names, without);
}

DebianRecord record_of(const Stanza& stanza, const std::string& body) {
  DebianRecord record;
  record.name = first_line(field(stanza, "Package"));
  const std::string_view source = first_line(field(stanza, "Source"));
  record.source = source.empty() ? record.name : std::string(source.substr(0, source.find(' ')));
  const std::string_view section = first_line(field(stanza, "Section"));
  record.section = section.substr(section.rfind('/') + 1);  // npos + 1 = 0
  record.maintainer = first_line(field(stanza, "Maintainer"));
  record.synopsis = first_line(field(stanza, "Description"));
  record.body = body;
  const std::string_view tags = field(stanza, "Tag");
  for (size_t at = 0; at < tags.size();) {
    const size_t comma = std::min(tags.find(',', at), tags.size());
    const std::string_view tag = trimmed(tags.substr(at, comma - at));
    if (!tag.empty()) record.tags.emplace_back(tag);
    at = comma + 1;
  }
  for (const char* name : {"Depends", "Pre-Depends", "Recommends"}) add_relations(field(stanza, name), record.depends);
  for (const char* name : {"Suggests", "Enhances"}) add_relations(field(stanza, name), record.suggests);
  sort_once(record.tags, "");
  sort_once(record.depends, record.name);
  sort_once(record.suggests, record.name);
  return record;
}

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
}

std::string unescaped(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    out += c == 't' ? '\t' : c == 'n' ? '\n' : c;
  }
  return out;
}

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> list;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    if (end > at) list.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return list;
}

constexpr size_t kColumns = 9;
constexpr const char* kBringYourOwn =
    "Or bring your own texts and labels as CSV or JSONL: every verb that trains takes files of yours.";

std::string run_apt(std::vector<std::string> command, const fs::path& config) {
  const ProcessResult result = run_process(command, {}, {"APT_CONFIG=" + config.string(), "LC_ALL=C"}, true);
  if (result.exit_code == 127)
    throw_error<FileError>("{}: not found; the package descriptions come from Debian's lists. {}", command[0], kBringYourOwn);
  if (result.exit_code != 0)
    throw_error<FileError>("`{}` failed (its message stands above). Check the network. {}", fmt::join(command, " "),
                           kBringYourOwn);
  return result.output;
}

}  // namespace

std::string plain_description(std::string_view lines) {
  std::string text;
  bool fresh = true;  // the next line begins a paragraph
  for (size_t at = 0; at < lines.size();) {
    const size_t end = std::min(lines.find('\n', at), lines.size());
    std::string_view line = lines.substr(at, end - at);
    at = end + 1;
    if (!line.empty()) line.remove_prefix(1);
    const std::string_view content = trimmed(line);
    if (content.empty()) continue;
    if (content == ".") {
      fresh = true;
      continue;
    }
    const bool own_line = line[0] == ' ' || content.starts_with("* ") || content.starts_with("- ");
    if (!text.empty()) text += fresh ? "\n\n" : own_line ? "\n" : " ";
    text += content;
    fresh = false;
  }
  return text;
}

std::vector<DebianRecord> parse_debian(std::string_view available, const std::vector<std::string>& translations) {
  std::unordered_map<std::string_view, std::string_view> long_text;  // by Description-md5
  for (const std::string& translation : translations)
    each_stanza(translation, [&](const Stanza& stanza) {
      const std::string_view text = field(stanza, "Description-en");
      const size_t line = text.find('\n');
      if (line != std::string_view::npos)
        long_text.try_emplace(first_line(field(stanza, "Description-md5")), text.substr(line + 1));
    });
  std::map<std::string, DebianRecord> records;
  each_stanza(available, [&](const Stanza& stanza) {
    const auto it = long_text.find(first_line(field(stanza, "Description-md5")));
    if (it == long_text.end() || field(stanza, "Package").empty()) return;
    DebianRecord record = record_of(stanza, plain_description(it->second));
    if (!record.body.empty() && !record.section.empty()) records.try_emplace(record.name, std::move(record));
  });
  std::vector<DebianRecord> list;
  list.reserve(records.size());
  for (auto& [name, record] : records) list.push_back(std::move(record));
  return list;
}

std::string to_tsv(const std::vector<DebianRecord>& records) {
  std::string tsv;
  for (const DebianRecord& record : records) {
    for (const std::string* text :
         {&record.name, &record.source, &record.section, &record.maintainer, &record.synopsis, &record.body}) {
      append_escaped(tsv, *text);
      tsv += '\t';
    }
    tsv += fmt::format("{}\t{}\t{}\n", fmt::join(record.tags, " "), fmt::join(record.depends, " "),
                       fmt::join(record.suggests, " "));
  }
  return tsv;
}

std::vector<DebianRecord> debian_from_tsv(std::string_view tsv, const std::string& file) {
  std::vector<DebianRecord> records;
  for (size_t at = 0; at < tsv.size();) {
    const size_t end = std::min(tsv.find('\n', at), tsv.size());
    std::vector<std::string_view> columns;
    for (size_t from = at; from <= end;) {
      const size_t tab = std::min(tsv.find('\t', from), end);
      columns.push_back(tsv.substr(from, tab - from));
      from = tab + 1;
    }
    if (columns.size() != kColumns)
      throw_error<FormatError>("{}: line {} has {} columns instead of {}; remove the file and get the set again", file,
                               records.size() + 1, columns.size(), kColumns);
    records.push_back({unescaped(columns[0]), unescaped(columns[1]), unescaped(columns[2]), unescaped(columns[3]),
                       unescaped(columns[4]), unescaped(columns[5]), words(columns[6]), words(columns[7]), words(columns[8])});
    at = end + 1;
  }
  return records;
}

void build_debian(const fs::path& work, const fs::path& output) {
  const fs::path lists = work / "lists", config = work / "apt.conf";
  fs::create_directories(lists / "partial");
  // apt refuses to split words at spaces inside quotes only: a path with a quote cannot be written here.
  if (lists.string().find('"') != std::string::npos)
    throw_error<FileError>("{}: the cache folder's name must not hold a quotation mark; set LIGHTEN_DATA", lists.string());
  write_file(config,
             fmt::format("Dir::Etc::parts \"/dev/null\";\nDir::State::lists \"{}\";\nDir::Cache::pkgcache \"\";\n"
                         "Dir::Cache::srcpkgcache \"\";\nAPT::Sandbox::User \"root\";\nAcquire::GzipIndexes \"false\";\n"
                         "Acquire::Languages {{ \"en\"; }};\n",
                         lists.string()));
  Progress progress("package lists", 3, "steps");
  run_apt({"apt-get", "update", "-q"}, config);
  progress.advance(1, "fetched");
  const std::string available = run_apt({"apt-cache", "dumpavail"}, config);
  progress.advance(1, "read");
  std::vector<std::string> translations;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(lists))
    if (entry.path().filename().string().ends_with("Translation-en")) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  translations.reserve(files.size());
  for (const fs::path& file : files) translations.push_back(read_file(file));
  const std::vector<DebianRecord> records = parse_debian(available, translations);
  if (records.size() < 1000)
    throw_error<FileError>(
        "only {} packages with a long description in the lists of this machine's sources; Debian's `main` has more than "
        "60,000. {}",
        records.size(), kBringYourOwn);
  const std::string tsv = to_tsv(records);
  write_file(output / "packages.tsv", tsv);
  const Json source = {
      {"lighten", LIGHTEN_VERSION},
      {"package_lists", release_dates(work)},
      {"packages", records.size()},
      {"sha256", sha256(tsv)},
      {"columns", {"name", "source", "section", "maintainer", "synopsis", "body", "tags", "depends", "suggests"}}};
  write_file(output / "source.json", json_text(source, 1) + "\n");
  progress.advance(1, fmt::format("{} packages", records.size()));
  progress.finish();
}

}  // namespace lighten
