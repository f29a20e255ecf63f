// Emoji with their names and keywords.
#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/progress.h"
#include "lighten/data/captions.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/markup.h"
#include "lighten/data/packages.h"
#include "lighten/formats/colour_font.h"
#include "lighten/formats/unicode.h"

namespace lighten {

namespace {

constexpr int64_t kSide = 64;
constexpr const char* kFont = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";

const std::vector<std::string>& packages() {
  static const std::vector<std::string> names = {"fonts-noto-color-emoji", "unicode-cldr-core", "unicode-data"};
  return names;
}

/// Without variation selectors, as CLDR has them.
std::string utf8(const std::vector<uint32_t>& characters) {
  std::string text;
  for (const uint32_t c : characters)
    if (c != 0xFE0F) formats::append_utf8(text, c);
  return text;
}

}  // namespace

std::vector<EmojiLine> parse_emoji_test(const std::string& text, const std::string& where) {
  std::vector<EmojiLine> lines;
  std::istringstream in(text);
  std::string line, group, subgroup;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.starts_with("# group: ")) group = line.substr(9);
    if (line.starts_with("# subgroup: ")) subgroup = line.substr(12);
    if (line.empty() || line[0] == '#') continue;
    const size_t semicolon = line.find(';'), hash = line.find("# ");
    if (semicolon == std::string::npos || hash == std::string::npos)
      throw_error<FormatError>("{}: line {}: not 'code points ; status # emoji version name'", where, number);
    if (line.substr(semicolon, hash - semicolon).find("fully-qualified") == std::string::npos) continue;
    EmojiLine emoji{.characters = {}, .group = group, .subgroup = subgroup, .name = ""};
    std::istringstream points(line.substr(0, semicolon));
    for (std::string point; points >> point;) emoji.characters.push_back(static_cast<uint32_t>(std::stoul(point, nullptr, 16)));
    std::istringstream rest(line.substr(hash + 2));
    std::string picture, version;
    rest >> picture >> version >> std::ws;
    std::getline(rest, emoji.name);
    lines.push_back(std::move(emoji));
  }
  return lines;
}

std::map<std::string, Annotation> parse_annotations(const std::string& xml) {
  std::map<std::string, Annotation> found;
  constexpr std::string_view kOpen = "<annotation cp=\"";
  for (size_t at = xml.find(kOpen); at != std::string::npos; at = xml.find(kOpen, at + 1)) {
    const size_t from = at + kOpen.size(), quote = xml.find('"', from), close = xml.find('>', quote),
                 end = xml.find("</annotation>", close);
    if (end == std::string::npos) break;
    Annotation& annotation = found[decode_entities(xml.substr(from, quote - from))];
    const std::string value = decode_entities(xml.substr(close + 1, end - close - 1));
    if (xml.substr(quote, close - quote).find("type=\"tts\"") != std::string::npos)
      annotation.name = value;
    else
      annotation.keywords = split_keywords(value, '|');
  }
  return found;
}

std::string emoji_key(const EmojiLine& emoji) {
  if (emoji.subgroup == "time" || emoji.subgroup == "keycap" || emoji.subgroup == "family" || emoji.subgroup == "alphanum" ||
      emoji.subgroup == "geometric" || emoji.subgroup == "moon")
    return emoji.subgroup;
  std::string name = emoji.group == "Flags" ? emoji.name : emoji.name.substr(0, emoji.name.find(':'));
  if (emoji.group != "People & Body") return name;
  // Variants by gender and number have the same drawing: "woman farmer", "man farmer", "farmer".
  static const std::set<std::string> people = {"man", "woman", "men", "women", "person", "people", "boy", "girl", "child"};
  std::istringstream words(name);
  std::string key;
  for (std::string word; words >> word;)
    if (!people.contains(word)) key += (key.empty() ? "" : " ") + word;
  return key.empty() ? "person" : key;
}

std::string emoji_packages() { return fmt::format("{}", fmt::join(packages(), ", ")); }

void build_emoji(const fs::path& work, const fs::path& output) {
  Json source = {{"packages", Json::array()}, {"release_dates", release_dates(work)}, {"not_drawn", Json::array()}};
  std::map<std::string, fs::path> folders;
  for (const DebianPackage& package : fetch_debian(work, packages(), 35'000'000)) {
    source["packages"].push_back({{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}});
    folders[package.name] = package.folder;
  }
  const fs::path list = folders["unicode-data"] / "usr/share/unicode/emoji/emoji-test.txt";
  const std::vector<EmojiLine> lines = parse_emoji_test(read_file(list), list.string());
  std::map<std::string, Annotation> annotations;
  for (const char* part : {"annotations", "annotationsDerived"})
    annotations.merge(
        parse_annotations(read_file(folders["unicode-cldr-core"] / "usr/share/unicode/cldr/common" / part / "en.xml")));
  const ColourFont font(folders["fonts-noto-color-emoji"] / kFont);

  CaptionedSet set;
  ImageSet& pictures = set.pictures;
  pictures.channels = 3;
  pictures.height = pictures.width = kSide;
  std::vector<std::vector<std::string>> keywords;
  std::set<std::string> seen;
  Progress progress("drawing emoji", static_cast<int64_t>(lines.size()), "emoji");
  for (const EmojiLine& emoji : lines) {
    progress.advance();
    const uint32_t glyph = font.glyph_of(emoji.characters);
    if (glyph == 0) {
      source["not_drawn"].push_back(emoji.name);
      continue;
    }
    const Image image = squared(font.draw(glyph), kSide, 255);
    if (!seen.emplace(image.pixels.begin(), image.pixels.end()).second) continue;
    if (pictures.class_names.empty() || pictures.class_names.back() != emoji.group) pictures.class_names.push_back(emoji.group);
    pictures.pixels.append(image.pixels.begin(), image.pixels.end());
    pictures.labels.push_back(static_cast<int32_t>(pictures.class_names.size()) - 1);
    std::string id;
    for (const uint32_t c : emoji.characters) id += fmt::format("{}{:x}", id.empty() ? "" : "-", c);
    pictures.ids.push_back(id);
    pictures.keys.push_back(emoji_key(emoji));
    const auto found = annotations.find(utf8(emoji.characters));
    set.captions.push_back(found == annotations.end() || found->second.name.empty() ? emoji.name : found->second.name);
    keywords.push_back(found == annotations.end() ? std::vector<std::string>{} : found->second.keywords);
  }
  progress.finish();
  pictures.splits = split_all(pictures.keys);
  set_keywords(set, keywords);
  save_captioned_set(set, output);
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

}  // namespace lighten
