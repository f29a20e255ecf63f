// Tens of thousands of characters: Han, Hangul and kana as some forty designs draw them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <set>
#include <unordered_set>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/progress.h"
#include "lighten/base/threads.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/packages.h"
#include "lighten/formats/font.h"

namespace lighten {

namespace {

constexpr int64_t kSide = 28, kMargin = 1;
constexpr int64_t kLeastInk = 8 * 255;
constexpr int64_t kLeastKeys = 8, kValidationKeys = 2, kTestKeys = 3;  // every class keeps three fonts to learn from
constexpr size_t kReferences = 64;                                     // characters that set a font's scale
constexpr size_t kCompared = 1000;                                     // characters by which designs are compared
constexpr double kSameDrawing = 3;  // mean difference of 4 x 4 cells, of 255, below which two drawings are one
constexpr double kSharedDrawings = 0.1;

const std::vector<std::string>& packages() {
  static const std::vector<std::string> names = {
      "fonts-arphic-bkai00mp", "fonts-arphic-gkai00mp", "fonts-arphic-ukai",    "fonts-arphic-uming",   "fonts-babelstone-han",
      "fonts-baekmuk",         "fonts-cns11643-kai",    "fonts-cns11643-sung",  "fonts-cwtex-fs",       "fonts-cwtex-kai",
      "fonts-cwtex-ming",      "fonts-hanazono",        "fonts-ipafont-gothic", "fonts-ipafont-mincho", "fonts-ipamj-mincho",
      "fonts-kouzan-mouhitsu", "fonts-nanum",           "fonts-noto-cjk",       "fonts-unfonts-core",   "fonts-wqy-microhei",
      "fonts-wqy-zenhei"};
  return names;
}

/// A design and its files: one weight of it, and of regional faces the first.
struct NamedDesign {
  const char* name;
  std::vector<const char*> files;
};

const std::vector<NamedDesign>& designs() {
  static const std::vector<NamedDesign> all = {
      {"arphic-kaiti-big5", {"bkai00mp.ttf"}},
      {"arphic-kaiti-gb", {"gkai00mp.ttf"}},
      {"arphic-ukai", {"ukai.ttc"}},
      {"arphic-uming", {"uming.ttc"}},
      {"babelstone", {"BabelStoneHan.ttf"}},
      {"baekmuk-batang", {"batang.ttf"}},
      {"baekmuk-dotum", {"dotum.ttf"}},
      {"baekmuk-gulim", {"gulim.ttf"}},
      {"baekmuk-headline", {"hline.ttf"}},
      {"cwtex-fangsong", {"cwfs.ttf"}},
      {"cwtex-kai", {"cwkai.ttf"}},
      {"cwtex-ming", {"cwming.ttf"}},
      {"hanazono", {"HanaMinA.ttf", "HanaMinB.ttf"}},
      {"ipa-gothic", {"ipag.ttf"}},
      {"ipa-mincho", {"ipam.ttf"}},
      {"ipamj-mincho", {"ipamjm.ttf"}},
      {"kouzan-gyosho", {"kouzan-mouhitsu-gyosho.ttf"}},
      {"kouzan-mouhitsu", {"kouzan-mouhitsu.ttf"}},
      {"kouzan-sousyo", {"KouzanBrushFontSousyo.ttf"}},
      {"nanum-barun-gothic", {"NanumBarunGothic.ttf"}},
      {"nanum-gothic", {"NanumGothic.ttf"}},
      {"nanum-gothic-coding", {"NanumGothicCoding.ttf"}},
      {"nanum-myeongjo", {"NanumMyeongjo.ttf"}},
      {"nanum-square", {"NanumSquareR.ttf"}},
      {"nanum-square-round", {"NanumSquareRoundR.ttf"}},
      {"noto-sans", {"NotoSansCJK-Regular.ttc"}},
      {"noto-serif", {"NotoSerifCJK-Regular.ttc"}},
      {"tw-kai", {"TW-Kai-98_1.ttf", "TW-Kai-Ext-B-98_1.ttf", "TW-Kai-Plus-98_1.ttf"}},
      {"tw-sung", {"TW-Sung-98_1.ttf", "TW-Sung-Ext-B-98_1.ttf", "TW-Sung-Plus-98_1.ttf"}},
      {"un-batang", {"UnBatang.ttf"}},
      {"un-dinaru", {"UnDinaru.ttf"}},
      {"un-dotum", {"UnDotum.ttf"}},
      {"un-graphic", {"UnGraphic.ttf"}},
      {"un-gungseo", {"UnGungseo.ttf"}},
      {"un-pilgi", {"UnPilgi.ttf"}},
      {"wqy-microhei", {"wqy-microhei.ttc"}},
      {"wqy-zenhei", {"wqy-zenhei.ttc"}}};
  return all;
}

/// Kana, Han (with its extensions A to G and the compatibility ideographs) and Hangul syllables.
std::vector<uint32_t> characters() {
  std::vector<uint32_t> all;
  for (const auto& [from, to] :
       {std::pair(0x3041u, 0x3096u), std::pair(0x30A1u, 0x30FAu), std::pair(0x3400u, 0x4DBFu), std::pair(0x4E00u, 0x9FFFu),
        std::pair(0xAC00u, 0xD7A3u), std::pair(0xF900u, 0xFAD9u), std::pair(0x20000u, 0x2EBE0u), std::pair(0x30000u, 0x3134Au)})
    for (uint32_t c = from; c <= to; ++c) all.push_back(c);
  return all;
}

/// The characters that a design draws, and its fonts opened at one scale.
class Design {
 public:
  Design(const GlyphDesign& design, std::span<const uint32_t> wanted, int64_t side) {
    for (const fs::path& file : design.fonts) faces_.emplace_back(file);
    for (size_t i = 0; i < wanted.size(); ++i)
      for (size_t f = 0; f < faces_.size(); ++f)
        if (faces_[f].has_all(wanted.subspan(i, 1))) {
          covered.push_back({i, f});
          break;
        }
    for (size_t f = 0; f < faces_.size(); ++f) {
      std::vector<uint32_t> of_face;
      for (const auto& [character, face] : covered)
        if (face == f) of_face.push_back(wanted[character]);
      std::vector<uint32_t> references;
      const size_t step = std::max<size_t>(of_face.size() / kReferences, 1);
      for (size_t i = 0; i < of_face.size(); i += step)
        if (faces_[f].fit(std::span(&of_face[i], 1), side, kMargin)) references.push_back(of_face[i]);
      if (!references.empty()) faces_[f].fit(references, side, kMargin);
    }
  }
  /// Empty where there is no outline or next to no ink.
  std::vector<uint8_t> draw(uint32_t character, size_t face) {
    std::vector<uint8_t> glyph;
    try {
      glyph = faces_[face].draw(character);
    } catch (const FormatError&) {
      return {};
    }
    if (std::accumulate(glyph.begin(), glyph.end(), int64_t{0}) < kLeastInk) glyph.clear();
    return glyph;
  }
  std::vector<std::pair<size_t, size_t>> covered;  ///< index into the wanted characters, font

 private:
  std::vector<FontFace> faces_;
};

struct Drawn {
  std::vector<size_t> characters;  ///< ascending indices
  std::vector<uint8_t> pixels;
};

Drawn draw_design(const GlyphDesign& design, const std::vector<uint32_t>& wanted, int64_t side, ThreadPool& pool) {
  const Design first(design, wanted, side);
  const auto n = static_cast<int64_t>(first.covered.size());
  constexpr int64_t kPiece = 4096;
  std::vector<std::vector<uint8_t>> glyphs(static_cast<size_t>(n));
  pool.parallel_for(n, kPiece, [&](int64_t begin, int64_t end) {
    Design own(design, wanted, side);  // FreeType's faces belong to one thread
    for (int64_t i = begin; i < end; ++i) glyphs[i] = own.draw(wanted[own.covered[i].first], own.covered[i].second);
  });
  Drawn drawn;
  for (int64_t i = 0; i < n; ++i) {
    if (glyphs[i].empty()) continue;
    drawn.characters.push_back(first.covered[i].first);
    drawn.pixels.insert(drawn.pixels.end(), glyphs[i].begin(), glyphs[i].end());
  }
  return drawn;
}

/// Mean ink of 4 x 4 cells of some characters: index of the character -> cells.
std::map<size_t, std::vector<uint8_t>> signature_of(const Drawn& drawn, size_t characters, int64_t side) {
  std::map<size_t, std::vector<uint8_t>> signature;
  const size_t step = std::max<size_t>(characters / kCompared, 1);
  for (size_t i = 0; i < drawn.characters.size(); ++i) {
    if (drawn.characters[i] % step != 0) continue;
    signature[drawn.characters[i]] = glyph_signature(&drawn.pixels[i * static_cast<size_t>(side * side)], side);
  }
  return signature;
}

/// The share of the characters of both that they draw alike.
double shared_drawings(const std::map<size_t, std::vector<uint8_t>>& a, const std::map<size_t, std::vector<uint8_t>>& b) {
  int64_t both = 0, alike = 0;
  for (const auto& [character, cells] : a) {
    const auto other = b.find(character);
    if (other == b.end()) continue;
    int64_t sum = 0;
    for (size_t i = 0; i < cells.size(); ++i) sum += std::abs(cells[i] - other->second[i]);
    ++both;
    alike += static_cast<double>(sum) < kSameDrawing * static_cast<double>(cells.size());
  }
  return both == 0 ? 0 : static_cast<double>(alike) / static_cast<double>(both);
}

}  // namespace

std::string glyph_n_packages() { return fmt::format("{}", fmt::join(packages(), ", ")); }

ImageSet draw_designs(const std::vector<GlyphDesign>& all, const std::vector<uint32_t>& wanted, int64_t least_keys,
                      int64_t side) {
  std::vector<Drawn> drawn;
  std::vector<std::map<size_t, std::vector<uint8_t>>> signatures;
  Progress progress("drawing glyphs", static_cast<int64_t>(all.size()), "designs");
  ThreadPool pool;
  for (const GlyphDesign& design : all) {
    check_interrupt();
    drawn.push_back(draw_design(design, wanted, side, pool));
    signatures.push_back(signature_of(drawn.back(), wanted.size(), side));
    progress.advance();
  }
  progress.finish();

  // Designs that share drawings are one key, under the first one's name.
  std::vector<size_t> key(all.size());
  std::iota(key.begin(), key.end(), size_t{0});
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (key[i] != key[j] && shared_drawings(signatures[i], signatures[j]) >= kSharedDrawings) {
        const auto [low, high] = std::minmax(key[i], key[j]);
        std::replace(key.begin(), key.end(), size_t{high}, size_t{low});
      }

  std::vector<std::set<size_t>> keys_of(wanted.size());
  for (size_t d = 0; d < all.size(); ++d)
    for (const size_t character : drawn[d].characters) keys_of[character].insert(key[d]);
  std::vector<int32_t> label(wanted.size(), -1);
  ImageSet set;
  set.channels = 1;
  set.height = set.width = side;
  for (size_t c = 0; c < wanted.size(); ++c) {
    if (static_cast<int64_t>(keys_of[c].size()) < least_keys) continue;
    label[c] = static_cast<int32_t>(set.class_names.size());
    set.class_names.push_back(fmt::format("U+{:04X}", wanted[c]));
  }
  std::unordered_set<uint64_t> seen;  // one character drawn the same by two designs: once
  const auto bytes = static_cast<size_t>(set.sample_bytes());
  for (size_t d = 0; d < all.size(); ++d) {
    for (size_t i = 0; i < drawn[d].characters.size(); ++i) {
      const size_t character = drawn[d].characters[i];
      if (label[character] < 0) continue;
      const uint8_t* glyph = &drawn[d].pixels[i * bytes];
      const std::string_view content(reinterpret_cast<const char*>(glyph), bytes);
      if (!seen.insert(stable_hash(content) ^ (character * 0x9e3779b97f4a7c15ull)).second) continue;
      set.pixels.append(glyph, glyph + bytes);
      set.labels.push_back(label[character]);
      set.ids.push_back(fmt::format("{}/{:04x}", all[d].name, wanted[character]));
      set.keys.push_back(all[key[d]].name);
    }
    drawn[d] = {};
  }
  return set;
}

void build_glyph_n(const fs::path& work, const fs::path& output) {
  std::map<std::string, fs::path> files;
  Json source = {{"packages", Json::array()}, {"release_dates", release_dates(work)}};
  for (const DebianPackage& package : fetch_debian(work, packages(), 332'000'000)) {
    source["packages"].push_back({{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}});
    for (const auto& entry : fs::recursive_directory_iterator(package.folder))
      if (entry.is_regular_file() && !entry.is_symlink()) files.emplace(entry.path().filename().string(), entry.path());
  }
  std::vector<GlyphDesign> all;
  for (const NamedDesign& design : designs()) {
    GlyphDesign found{design.name, {}};
    for (const char* file : design.files) {
      const auto at = files.find(file);
      if (at == files.end())
        throw_error<FileError>("{}: none of the font packages holds this file any more; they have changed", file);
      found.fonts.push_back(at->second);
    }
    all.push_back(std::move(found));
  }
  const ImageSet set = draw_designs(all, characters(), kLeastKeys, kSide);
  save_image_set(set, output);
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

ImageSet glyph_n_set(const DataOptions& options) {
  ImageSet set = load_image_set(data_path("glyph-n", options.fetch));
  set.splits = deal_keys(set.keys, kValidationKeys, kTestKeys, options.split_seed);
  if (options.limit <= 0) return set;
  return subset(set, limit_samples(set.ids, set.splits, options.limit));
}

}  // namespace lighten
