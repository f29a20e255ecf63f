// Drawings with titles and keywords.
#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/progress.h"
#include "lighten/base/threads.h"
#include "lighten/data/captions.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/markup.h"
#include "lighten/formats/image.h"

namespace lighten {

namespace {

constexpr int64_t kSide = 64;
constexpr int64_t kOfOneSeries = 100;  // one artist's drawings in one folder: stars by the thousand, themes of icons
constexpr int64_t kOfOneClass = 80;    // smaller folders are the class "other"
constexpr uint64_t kLargest = 4'000'000;
constexpr const char* kLeftover = "hash";  // a keyword that a program left in a quarter of the drawings

struct Drawing {
  fs::path file;
  std::string id, folder, topic, key;
  DrawingNote note;
};

/// The text of the first element `name` after `from`, its own markup left out.
std::string element(const std::string& svg, const std::string& name, size_t from, size_t until) {
  const size_t at = svg.find("<" + name, from);
  if (at >= until) return "";
  const size_t open = svg.find('>', at), close = svg.find("</" + name + ">", at);
  if (open == std::string::npos || close == std::string::npos || close > until || open > close) return "";
  std::string text = decode_entities(svg.substr(open + 1, close - open - 1));
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.back())) text.pop_back();
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), space));
  return text;
}

std::vector<Drawing> drawings_below(const fs::path& root) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file() && !entry.is_symlink() && entry.path().extension() == ".svg" && entry.file_size() <= kLargest)
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<Drawing> drawings;
  for (const fs::path& file : files) {
    const fs::path relative = fs::relative(file, root);
    Drawing drawing{.file = file,
                    .id = (relative.parent_path() / relative.stem()).string(),
                    .folder = relative.parent_path().string(),
                    .topic = relative.begin()->string(),
                    .key = "",
                    .note = parse_drawing_note(read_file(file))};
    drawing.key = artist_key(drawing.note.creator, drawing.folder);
    drawings.push_back(std::move(drawing));
  }
  return drawings;
}

/// At most kOfOneSeries drawings of one artist in one folder, those with the smallest hash.
std::vector<Drawing> without_long_series(std::vector<Drawing> drawings) {
  std::map<std::pair<std::string, std::string>, std::vector<std::pair<uint64_t, size_t>>> series;
  for (size_t i = 0; i < drawings.size(); ++i)
    series[{drawings[i].key, drawings[i].folder}].emplace_back(stable_hash(drawings[i].id), i);
  std::set<size_t> kept;
  for (auto& [name, members] : series) {
    std::sort(members.begin(), members.end());
    members.resize(std::min<size_t>(members.size(), kOfOneSeries));
    for (const auto& [hash, i] : members) kept.insert(i);
  }
  std::vector<Drawing> left;
  left.reserve(kept.size());
  for (const size_t i : kept) left.push_back(std::move(drawings[i]));
  return left;
}

}  // namespace

DrawingNote parse_drawing_note(const std::string& svg) {
  const size_t begin = std::min(svg.find("<rdf:RDF"), svg.size()), end = std::min(svg.find("</rdf:RDF>", begin), svg.size());
  DrawingNote note;
  note.title = element(svg, "dc:title", begin, end);
  if (const size_t creator = svg.find("<dc:creator", begin); creator < end)
    note.creator = element(svg, "dc:title", creator, std::min(svg.find("</dc:creator>", creator), end));
  const size_t subject = svg.find("<dc:subject", begin);
  const size_t until = subject < end ? std::min(svg.find("</dc:subject>", subject), end) : 0;
  for (size_t at = subject; at < until;) {
    at = svg.find("<rdf:li", at);
    if (at >= until) break;
    for (const std::string& word : split_keywords(element(svg, "rdf:li", at, until), ',')) note.keywords.push_back(word);
    ++at;
  }
  return note;
}

std::string artist_key(const std::string& creator, const std::string& folder) {
  std::string key;
  for (const char c : creator) {
    if (c == '[' || c == '<' || c == '(' || c == '@') break;
    if (std::isspace(static_cast<unsigned char>(c)) != 0)
      key += key.empty() || key.back() == ' ' ? "" : " ";
    else if (c != '.' && c != ',')
      key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  while (!key.empty() && key.back() == ' ') key.pop_back();
  return key.empty() ? "folder " + folder : key;
}

void build_clipart(const fs::path& work, const fs::path& output) {
  const DebianPackage package = fetch_debian(work, {"openclipart-svg"}, 25'000'000).at(0);
  Json source = {{"packages", {{{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}}}},
                 {"release_dates", release_dates(work)},
                 {"not_drawn", Json::array()}};
  const std::vector<Drawing> drawings = without_long_series(drawings_below(package.folder / "usr/share/openclipart/svg"));
  const auto n = static_cast<int64_t>(drawings.size());
  std::vector<std::optional<Image>> images(drawings.size());
  Progress progress("drawing clip art", n, "drawings");
  ThreadPool pool;
  constexpr int64_t kRound = 32;  // drawings between two looks at Ctrl-C
  for (int64_t from = 0; from < n; from += kRound) {
    check_interrupt();
    const int64_t round = std::min(kRound, n - from);
    pool.parallel_for(round, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = from + begin; i < from + end; ++i) try {
          images[i] = render_svg(MappedFile(drawings[i].file).bytes(), drawings[i].id, kSide, 3);
        } catch (const FormatError&) {
          images[i].reset();
        }
    });
    progress.advance(round);
  }
  progress.finish();

  std::map<std::string, int64_t> topics;
  for (const Drawing& drawing : drawings) ++topics[drawing.topic];
  CaptionedSet set;
  ImageSet& pictures = set.pictures;
  pictures.channels = 3;
  pictures.height = pictures.width = kSide;
  std::map<std::string, int32_t> classes;
  for (const auto& [topic, count] : topics)
    if (count >= kOfOneClass && topic != "unsorted") classes.emplace(topic, static_cast<int32_t>(classes.size()));
  for (const auto& [topic, place] : classes) pictures.class_names.push_back(topic);
  const auto other = static_cast<int32_t>(pictures.class_names.size());
  pictures.class_names.emplace_back("other");
  std::vector<std::vector<std::string>> keywords;
  std::set<std::string> seen;  // copies under another name: once
  for (int64_t i = 0; i < n; ++i) {
    const Drawing& drawing = drawings[i];
    if (!images[i]) {
      source["not_drawn"].push_back(drawing.id);
      continue;
    }
    if (!seen.emplace(images[i]->pixels.begin(), images[i]->pixels.end()).second) continue;
    const auto found = classes.find(drawing.topic);
    pictures.pixels.append(images[i]->pixels.begin(), images[i]->pixels.end());
    pictures.labels.push_back(found == classes.end() ? other : found->second);
    pictures.ids.push_back(drawing.id);
    pictures.keys.push_back(drawing.key);
    set.captions.push_back(drawing.note.title);
    keywords.push_back(drawing.note.keywords);
    std::erase_if(keywords.back(), [&](const std::string& word) { return word == kLeftover || word == drawing.key; });
  }
  pictures.splits = split_all(pictures.keys);
  set_keywords(set, keywords);
  save_captioned_set(set, output);
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

}  // namespace lighten
