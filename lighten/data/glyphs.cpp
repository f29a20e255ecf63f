// Letters and digits of many fonts.
#include <algorithm>
#include <cctype>
#include <map>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/base/threads.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/formats/font.h"

namespace lighten {

namespace {

constexpr int64_t kSide = 28, kMargin = 1, kCell = 4;  // cells of a signature are 4 x 4 pixels
constexpr double kSameDesign = 5;                      // mean difference of signatures, of 255
constexpr double kSmallCapital = 4;
constexpr int64_t kLeastInk = 8 * 255;

const std::vector<std::string>& packages() {
  static const std::vector<std::string> names = {"fonts-3270",
                                                 "fonts-adf-accanthis",
                                                 "fonts-adf-baskervald",
                                                 "fonts-adf-berenis",
                                                 "fonts-adf-gillius",
                                                 "fonts-adf-ikarius",
                                                 "fonts-adf-irianis",
                                                 "fonts-adf-libris",
                                                 "fonts-adf-mekanus",
                                                 "fonts-adf-oldania",
                                                 "fonts-adf-romande",
                                                 "fonts-adf-solothurn",
                                                 "fonts-adf-switzera",
                                                 "fonts-adf-tribun",
                                                 "fonts-adf-universalis",
                                                 "fonts-adf-verana",
                                                 "fonts-agave",
                                                 "fonts-allerta",
                                                 "fonts-anonymous-pro",
                                                 "fonts-apropal",
                                                 "fonts-arapey",
                                                 "fonts-arkpandora",
                                                 "fonts-averia-gwf",
                                                 "fonts-averia-sans-gwf",
                                                 "fonts-averia-serif-gwf",
                                                 "fonts-b612",
                                                 "fonts-babelstone-modern",
                                                 "fonts-bajaderka",
                                                 "fonts-beteckna",
                                                 "fonts-blankenburg",
                                                 "fonts-breip",
                                                 "fonts-bwht",
                                                 "fonts-cabin",
                                                 "fonts-cabinsketch",
                                                 "fonts-cantarell",
                                                 "fonts-cardo",
                                                 "fonts-century-catalogue",
                                                 "fonts-cherrybomb",
                                                 "fonts-clear-sans",
                                                 "fonts-cmu",
                                                 "fonts-comfortaa",
                                                 "fonts-comic-neue",
                                                 "fonts-courier-prime",
                                                 "fonts-croscore",
                                                 "fonts-crosextra-caladea",
                                                 "fonts-crosextra-carlito",
                                                 "fonts-dancingscript",
                                                 "fonts-dejavu-core",
                                                 "fonts-dejavu-extra",
                                                 "fonts-dkg-handwriting",
                                                 "fonts-dosis",
                                                 "fonts-dustin",
                                                 "fonts-ebgaramond",
                                                 "fonts-ecolier-court",
                                                 "fonts-elstob",
                                                 "fonts-engadget",
                                                 "fonts-essays1743",
                                                 "fonts-eurofurence",
                                                 "fonts-fantasma",
                                                 "fonts-fantasque-sans",
                                                 "fonts-fanwood",
                                                 "fonts-femkeklaver",
                                                 "fonts-ferrite-core",
                                                 "fonts-firacode",
                                                 "fonts-freefont-otf",
                                                 "fonts-georgewilliams",
                                                 "fonts-gfs-artemisia",
                                                 "fonts-gfs-didot",
                                                 "fonts-gfs-neohellenic",
                                                 "fonts-gnutypewriter",
                                                 "fonts-go",
                                                 "fonts-gotico-antiqua",
                                                 "fonts-goudybookletter",
                                                 "fonts-hack",
                                                 "fonts-havana",
                                                 "fonts-hermit",
                                                 "fonts-humor-sans",
                                                 "fonts-inconsolata",
                                                 "fonts-inter",
                                                 "fonts-isabella",
                                                 "fonts-jetbrains-mono",
                                                 "fonts-johnsmith-induni",
                                                 "fonts-junction",
                                                 "fonts-junicode",
                                                 "fonts-jura",
                                                 "fonts-karla",
                                                 "fonts-karmilla",
                                                 "fonts-kaushanscript",
                                                 "fonts-klaudia-berenika",
                                                 "fonts-kristi",
                                                 "fonts-lato",
                                                 "fonts-le-murmure",
                                                 "fonts-league-mono",
                                                 "fonts-league-spartan",
                                                 "fonts-leckerli-one",
                                                 "fonts-levien-museum",
                                                 "fonts-levien-typoscript",
                                                 "fonts-liberation2",
                                                 "fonts-lindenhill",
                                                 "fonts-linex",
                                                 "fonts-linuxlibertine",
                                                 "fonts-lmodern",
                                                 "fonts-lobster",
                                                 "fonts-lobstertwo",
                                                 "fonts-manrope",
                                                 "fonts-monofur",
                                                 "fonts-monoid",
                                                 "fonts-mononoki",
                                                 "fonts-national-park",
                                                 "fonts-noto-mono",
                                                 "fonts-ocr-a",
                                                 "fonts-ocr-b",
                                                 "fonts-okolaks",
                                                 "fonts-oldstandard",
                                                 "fonts-open-sans",
                                                 "fonts-opendin",
                                                 "fonts-opendyslexic",
                                                 "fonts-osifont",
                                                 "fonts-oxygen",
                                                 "fonts-paratype",
                                                 "fonts-play",
                                                 "fonts-povray",
                                                 "fonts-prociono",
                                                 "fonts-quattrocento",
                                                 "fonts-quicksand",
                                                 "fonts-radisnoir",
                                                 "fonts-roadgeek",
                                                 "fonts-roboto-slab",
                                                 "fonts-roboto-unhinted",
                                                 "fonts-routed-gothic",
                                                 "fonts-rufscript",
                                                 "fonts-sil-andika",
                                                 "fonts-sil-charis",
                                                 "fonts-sil-doulos",
                                                 "fonts-sil-galatia",
                                                 "fonts-sil-gentium",
                                                 "fonts-sil-gentium-basic",
                                                 "fonts-sjfonts",
                                                 "fonts-sora",
                                                 "fonts-staypuft",
                                                 "fonts-stix",
                                                 "fonts-summersby",
                                                 "fonts-texgyre",
                                                 "fonts-tiresias",
                                                 "fonts-tomsontalks",
                                                 "fonts-triod-postnaja",
                                                 "fonts-tuffy",
                                                 "fonts-ubuntu-title",
                                                 "fonts-urw-base35",
                                                 "fonts-vollkorn",
                                                 "fonts-yanone-kaffeesatz"};
  return names;
}

const std::vector<uint32_t>& characters() {
  static const std::vector<uint32_t> all = [] {
    std::vector<uint32_t> list;
    for (const auto& [from, to] : {std::pair('0', '9'), std::pair('A', 'Z'), std::pair('a', 'z')})
      for (char c = from; c <= to; ++c) list.push_back(static_cast<uint32_t>(c));
    return list;
  }();
  return all;
}

/// All glyphs of one usable face.
struct DrawnFace {
  std::string family, style, file;
  std::vector<uint8_t> pixels;     ///< [62, 1 + jittered, side, side]
  std::vector<uint8_t> signature;  ///< [62, cells] of the plain glyphs
};

double difference(const uint8_t* a, const uint8_t* b, size_t n) {
  int64_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::abs(a[i] - b[i]);
  return static_cast<double>(sum) / static_cast<double>(n);
}

GlyphStyle draw_style(Random& random) {
  const auto within = [&](double reach) { return (2 * random.uniform() - 1) * reach; };
  return {.rotation = within(12), .shear = within(0.2), .stretch = 1 + within(0.15)};
}

/// Whether most lower-case letters are drawn like their capitals at the same size (fonts without lower case).
bool has_only_capitals(const std::vector<uint8_t>& signature) {
  const size_t cells = signature.size() / characters().size();
  int alike = 0;
  for (size_t letter = 0; letter < 26; ++letter)
    alike += difference(&signature[(10 + letter) * cells], &signature[(36 + letter) * cells], cells) < kSmallCapital;
  return alike > 8;
}

/// False if the face lacks something.
bool draw_face(FontFace& face, int64_t side, int64_t jittered, uint64_t seed, DrawnFace& drawn) {
  if (!face.scalable() || !face.has_all(characters()) || !face.fit(characters(), side, kMargin)) return false;
  Random random(seed);
  for (const uint32_t character : characters()) {
    const std::vector<uint8_t> plain = face.draw(character);
    if (std::accumulate(plain.begin(), plain.end(), int64_t{0}) < kLeastInk) return false;
    const std::vector<uint8_t> signature = glyph_signature(plain.data(), side);
    drawn.signature.insert(drawn.signature.end(), signature.begin(), signature.end());
    drawn.pixels.insert(drawn.pixels.end(), plain.begin(), plain.end());
    for (int64_t j = 0; j < jittered; ++j) {
      const std::vector<uint8_t> other = face.draw(character, draw_style(random));
      drawn.pixels.insert(drawn.pixels.end(), other.begin(), other.end());
    }
  }
  return !has_only_capitals(drawn.signature);
}

/// The keys of faces after those that nearly agree were joined, each by the smallest key of its group.
std::vector<std::string> joined_keys(const std::vector<DrawnFace>& faces) {
  std::map<std::string, std::string> parent;
  const auto root = [&](std::string key) {
    while (parent.at(key) != key) key = parent.at(key);
    return key;
  };
  for (const DrawnFace& face : faces) parent.emplace(font_key(face.family), font_key(face.family));
  for (size_t i = 0; i < faces.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const std::string a = root(font_key(faces[i].family)), b = root(font_key(faces[j].family));
      if (a == b || difference(faces[i].signature.data(), faces[j].signature.data(), faces[i].signature.size()) >= kSameDesign)
        continue;
      parent[std::max(a, b)] = std::min(a, b);
    }
  std::vector<std::string> keys;
  keys.reserve(faces.size());
  for (const DrawnFace& face : faces) keys.push_back(root(font_key(face.family)));
  return keys;
}

}  // namespace

std::vector<uint8_t> glyph_signature(const uint8_t* pixels, int64_t side) {
  std::vector<uint8_t> cells;
  for (int64_t y = 0; y + kCell <= side; y += kCell)
    for (int64_t x = 0; x + kCell <= side; x += kCell) {
      int sum = 0;
      for (int64_t dy = 0; dy < kCell; ++dy)
        for (int64_t dx = 0; dx < kCell; ++dx) sum += pixels[(y + dy) * side + x + dx];
      cells.push_back(static_cast<uint8_t>(sum / (kCell * kCell)));
    }
  return cells;
}

std::string font_key(const std::string& family) {
  std::string key;
  for (const char c : family) {
    if (std::isalpha(static_cast<unsigned char>(c)) == 0) {
      if (key.size() > 1) break;
      continue;
    }
    key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return key.empty() ? family : key;
}

std::string glyph_packages() { return fmt::format("{} font packages", packages().size()); }

ImageSet draw_glyphs(const std::vector<fs::path>& fonts, int64_t side, int64_t jittered, uint64_t seed) {
  std::vector<std::vector<DrawnFace>> by_file(fonts.size());
  Progress progress("drawing glyphs", static_cast<int64_t>(fonts.size()), "fonts");
  ThreadPool pool;
  constexpr int64_t kRound = 16;  // files between two looks at Ctrl-C
  for (int64_t from = 0; from < static_cast<int64_t>(fonts.size()); from += kRound) {
    const int64_t round = std::min(kRound, static_cast<int64_t>(fonts.size()) - from);
    pool.parallel_for(round, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = from + begin; i < from + end; ++i) {
        const std::string name = fonts[i].filename().string();
        int64_t faces = 1;
        for (int64_t f = 0; f < faces; ++f) {
          FontFace face(fonts[i], f);
          faces = face.faces_in_file();
          DrawnFace drawn{.family = face.family(), .style = face.style(), .file = name, .pixels = {}, .signature = {}};
          if (draw_face(face, side, jittered, seed ^ stable_hash(name + std::to_string(f)), drawn))
            by_file[i].push_back(std::move(drawn));
        }
      }
    });
    progress.advance(round);
  }
  progress.finish();
  std::vector<DrawnFace> faces;
  std::set<std::string> seen;  // the same outlines twice (other package, other format): once
  for (std::vector<DrawnFace>& of_file : by_file)
    for (DrawnFace& face : of_file)
      if (seen.emplace(face.signature.begin(), face.signature.end()).second) faces.push_back(std::move(face));
  const std::vector<std::string> keys = joined_keys(faces);

  ImageSet set;
  set.channels = 1;
  set.height = set.width = side;
  for (const uint32_t character : characters()) set.class_names.emplace_back(1, static_cast<char>(character));
  for (size_t f = 0; f < faces.size(); ++f) {
    set.pixels.append(faces[f].pixels.begin(), faces[f].pixels.end());
    for (size_t c = 0; c < characters().size(); ++c)
      for (int64_t j = 0; j <= jittered; ++j) {
        set.labels.push_back(static_cast<int32_t>(c));
        set.ids.push_back(fmt::format("{}/{}-{}/{:04x}-{}", keys[f], faces[f].file, f, characters()[c], j));
        set.keys.push_back(keys[f]);
      }
  }
  set.splits = split_all(set.keys);
  return set;
}

void build_glyph_latin(const fs::path& work, const fs::path& output) {
  const std::vector<DebianPackage> fetched = fetch_debian(work, packages(), 100'000'000);
  std::vector<fs::path> fonts;
  Json source = {{"packages", Json::array()}, {"release_dates", release_dates(work)}};
  for (const DebianPackage& package : fetched) {
    source["packages"].push_back({{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}});
    for (const auto& entry : fs::recursive_directory_iterator(package.folder)) {
      const std::string extension = entry.path().extension().string();
      if (entry.is_regular_file() && !entry.is_symlink() && (extension == ".ttf" || extension == ".otf" || extension == ".ttc"))
        fonts.push_back(entry.path());
    }
  }
  std::sort(fonts.begin(), fonts.end());
  const ImageSet set = draw_glyphs(fonts, kSide, 1, 1);
  save_image_set(set, output);
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

}  // namespace lighten
