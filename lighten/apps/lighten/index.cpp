// lighten index: vectors and codes to a searchable index, and questions to it.
#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/ranks.h"
#include "lighten/base/table.h"
#include "lighten/formats/npy.h"
#include "lighten/index/index.h"
#include "lighten/systems/labels/bebr/bebr.h"

namespace lighten {
namespace {

constexpr int64_t kRowsAtOnce = 1 << 14;
constexpr int kItqIterations = 50;

struct IndexArguments {
  std::string folder, vectors, codes, pairs, like, compatible, ids, queries, output, distances, method, format = "faiss";
  int64_t bits = 0, lists = 0, k = 10, batch = 0, repeat = 1, probes = 16, train_rows = 30000;
  bool force = false;
  BebrOptions bebr = {};
  CLI::App* build = nullptr;  ///< knows which flags were given
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// 0 or above, and where `expected` of them are to be, each once (-1: any number, repeats may be).
std::vector<int64_t> read_ids(const std::string& path, int64_t expected = -1) {
  if (path.empty()) return {};
  const NpyFile file(path);
  if (file.shape().size() != 1) throw_error<FormatError>("{}: ids are a vector of whole numbers (int64)", path);
  const std::span<const int64_t> values = file.values<int64_t>();
  if (expected >= 0 && static_cast<int64_t>(values.size()) != expected)
    throw_error<FormatError>("{}: {} ids for {} rows; each row needs one", path, values.size(), expected);
  std::unordered_map<int64_t, size_t> seen;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0) throw_error<FormatError>("{}: row {}: id {} is negative; ids are 0 or above", path, i, values[i]);
    if (const auto [at, added] = seen.emplace(values[i], i); !added && expected >= 0)
      throw_error<FormatError>("{}: row {}: id {} stands here a second time (first in row {})", path, i, values[i], at->second);
  }
  return {values.begin(), values.end()};
}

/// Rows of a float matrix as codes.
std::vector<uint8_t> encode(const NpyFile& vectors, const CodeWriter& writer, int64_t first, int64_t count, ThreadPool& pool,
                            Progress* progress = nullptr) {
  if (vectors.columns() != writer.inputs())
    throw_error<FormatError>("{}: vectors have {} columns, but the index encodes {}", vectors.name(), vectors.columns(),
                             writer.inputs());
  const int64_t row_bytes = writer.format().row_bytes();
  std::vector<uint8_t> rows(static_cast<size_t>(count * row_bytes));
  for (int64_t begin = 0; begin < count; begin += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, count - begin);
    const std::vector<float> x = vectors.rows_to_float(first + begin, n);
    writer.encode(x.data(), n, rows.data() + begin * row_bytes, pool);
    if (progress != nullptr) progress->advance(n);
  }
  return rows;
}

/// What stands in a file as codes: stored codes as they are, or floats encoded.
struct CodeRows {
  std::optional<NpyFile> file;
  std::vector<uint8_t> encoded;
  const uint8_t* data = nullptr;
  int64_t count = 0;
};

CodeRows rows_of(const std::string& path, const CodeFormat& format, const CodeWriter* writer, ThreadPool& pool) {
  CodeRows rows;
  rows.file.emplace(path);
  rows.count = rows.file->rows();
  if (rows.file->dtype() == DType::u8) {
    if (rows.file->columns() != format.row_bytes())
      throw_error<FormatError>("{}: codes have {} bytes, but the index holds codes of {} ({})", path, rows.file->columns(),
                               format.row_bytes(), to_text(format));
    rows.data = rows.file->values<uint8_t>().data();
    return rows;
  }
  if (writer == nullptr)
    throw_error<OptionError>(
        "{}: holds floats, but the index was built from codes and has no encoder; give uint8 codes [n, {}]", path,
        format.row_bytes());
  Progress progress("encoding", rows.count, "vectors");
  rows.encoded = encode(*rows.file, *writer, 0, rows.count, pool, &progress);
  rows.data = rows.encoded.data();
  return rows;
}

Json facts(const Index& index) {
  return {{"folder", index.folder().string()},
          {"method", index.method()},
          {"codes", to_text(index.format())},
          {"bytes_per_code", index.format().row_bytes()},
          {"count", index.count()},
          {"lists", index.lists()},
          {"segments", index.segments().size()},
          {"next_id", index.next_id()},
          {"bytes_on_disk", size_on_disk(index.folder())}};
}

void print_facts(const Index& index) {
  fmt::print("{}: {} codes ({}, method {}), {}{}\n", index.folder().string(), index.count(), to_text(index.format()),
             index.method(), index.lists() > 0 ? fmt::format("{} lists, ", index.lists()) : "",
             human_bytes(static_cast<double>(size_on_disk(index.folder()))));
}

/// The format of --codes: bytes give the dimensions, --loops the bits of each.
CodeFormat format_of_codes(const NpyFile& codes, const IndexArguments& arguments) {
  if (codes.dtype() != DType::u8)
    throw_error<FormatError>("{}: packed codes are uint8, these are {}; give float vectors as --vectors", codes.name(),
                             dtype_name(codes.dtype()));
  const int64_t loops = arguments.build->count("--loops") > 0 ? arguments.bebr.loops : 0, bytes = codes.columns();
  if (bytes < 1 || bytes % (loops + 1) != 0)
    throw_error<OptionError>("{}: {} bytes a code cannot be {} planes of bits (--loops {})", codes.name(), bytes, loops + 1,
                             loops);
  return code_format(bytes / (loops + 1) * 8, static_cast<int>(loops));
}

/// Training data of BEBR: what its spans point to.
struct TrainingRows {
  std::vector<float> queries, documents;
  BebrPairs pairs(int64_t columns) const {
    return {.columns = columns, .queries = queries, .documents = documents, .groups = {}};
  }
};

/// --pairs: float [n, 2, d] (query, document), or whole numbers [n, 2] that name rows of --vectors.
TrainingRows read_pairs(const std::string& path, const NpyFile& vectors) {
  const NpyFile file(path);
  const int64_t d = vectors.columns();
  TrainingRows rows;
  if (file.shape().size() == 3 && file.shape()[1] == 2 && file.shape()[2] == d) {
    const std::vector<float> all = file.to_float();
    for (int64_t i = 0; i < file.shape()[0]; ++i) {
      rows.queries.insert(rows.queries.end(), all.begin() + 2 * i * d, all.begin() + (2 * i + 1) * d);
      rows.documents.insert(rows.documents.end(), all.begin() + (2 * i + 1) * d, all.begin() + (2 * i + 2) * d);
    }
    return rows;
  }
  if (file.shape().size() != 2 || file.shape()[1] != 2 || file.dtype() != DType::i64)
    throw_error<FormatError>("{}: pairs are floats [n, 2, {}] (query, document) or int64 [n, 2] that name rows of {}", path, d,
                             vectors.name());
  const std::span<const int64_t> numbers = file.values<int64_t>();
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] < 0 || numbers[i] >= vectors.rows())
      throw_error<FormatError>("{}: row {} names vector {}, but {} has {} rows", path, i / 2, numbers[i], vectors.name(),
                               vectors.rows());
    const std::vector<float> x = vectors.rows_to_float(numbers[i], 1);
    std::vector<float>& side = i % 2 == 0 ? rows.queries : rows.documents;
    side.insert(side.end(), x.begin(), x.end());
  }
  return rows;
}

/// Evenly spread rows, at most `most`.
std::vector<float> sampled_rows(const NpyFile& vectors, int64_t most) {
  const int64_t n = vectors.rows(), count = std::min(n, most);
  if (count == n) return vectors.to_float();
  std::vector<float> rows;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<float> x = vectors.rows_to_float(i * n / count, 1);
    rows.insert(rows.end(), x.begin(), x.end());
  }
  return rows;
}

/// The codes of an index by id 0, 1, ..., n - 1.
std::vector<uint8_t> codes_by_id(const Index& index, int64_t n) {
  const int64_t row_bytes = index.format().row_bytes();
  std::vector<uint8_t> rows(static_cast<size_t>(n * row_bytes));
  std::vector<bool> seen(static_cast<size_t>(n));
  for (size_t s = 0; s < index.segments().size(); ++s) {
    const Segment& segment = index.segments()[s];
    for (int64_t p = 0; p < segment.blocks() * kScanBlock; ++p) {
      const int64_t id = segment.ids()[static_cast<size_t>(p)];
      const uint32_t* removed = index.removed(s);
      if (id < 0 || id >= n || (removed != nullptr && (removed[p / kScanBlock] >> (p % kScanBlock) & 1) != 0)) continue;
      segment.read_row(p, rows.data() + id * row_bytes);
      seen[static_cast<size_t>(id)] = true;
    }
  }
  for (int64_t i = 0; i < n; ++i)
    if (!seen[static_cast<size_t>(i)])
      throw_error<OptionError>("{} has no code with id {}; row i of --vectors must be the document of id i",
                               index.folder().string(), i);
  return rows;
}

BebrOptions bebr_options(const IndexArguments& arguments, const Common& common) {
  BebrOptions options = arguments.bebr;
  options.seed = common.seed;
  if (arguments.bits == 0) return options;
  if (arguments.bits % (options.loops + 1) != 0)
    throw_error<OptionError>("--bits {} is no multiple of {} (--loops {} gives {} bits a dimension)", arguments.bits,
                             options.loops + 1, options.loops, options.loops + 1);
  options.dimensions = arguments.bits / (options.loops + 1);
  return options;
}

/// What turns the vectors of `file` into codes. `old`: codes that stay (--compatible-with).
CodeEncoder train_encoder(const std::string& method, const NpyFile& file, const IndexArguments& arguments, const Common& common,
                          const OldCodes* old) {
  if (method == "hamming") {
    if (arguments.bits != 0 && arguments.bits != file.columns())
      throw_error<OptionError>(
          "--method hamming takes one bit of each of the {} columns, not --bits {}; itq and bebr take others", file.columns(),
          arguments.bits);
    return sign_encoder(file.columns());
  }
  if (method == "itq") {
    const std::vector<float> rows = sampled_rows(file, arguments.train_rows);
    return train_itq(rows, file.columns(), arguments.bits > 0 ? arguments.bits : file.columns(), kItqIterations, common.seed);
  }
  if (method != "bebr") throw OptionError(unknown_name_message("method", method, {"hamming", "itq", "bebr"}));
  TrainingRows rows;
  if (!arguments.pairs.empty())
    rows = read_pairs(arguments.pairs, file);
  else
    rows.documents = old != nullptr ? file.to_float() : sampled_rows(file, arguments.train_rows);
  return train_bebr(rows.pairs(file.columns()), bebr_options(arguments, common), "bebr", old);
}

int build(const IndexArguments& arguments, const Common& common) {
  if (arguments.vectors.empty() == arguments.codes.empty())
    throw OptionError("give either --vectors (floats) or --codes (packed uint8)");
  if (fs::exists(arguments.output) && !arguments.force)
    throw_error<FileError>("{} already exists; give another output folder, or --force to replace it", arguments.output);
  const auto begin = std::chrono::steady_clock::now();
  ThreadPool pool(common.threads);
  const NpyFile file(arguments.codes.empty() ? arguments.vectors : arguments.codes);
  if (file.rows() < 1) throw_error<FormatError>("{}: holds no rows", file.name());
  IndexPlan plan{
      .method = arguments.method.empty() ? "hamming" : arguments.method, .lists = arguments.lists, .seed = common.seed};
  std::vector<uint8_t> encoded;
  const uint8_t* rows = nullptr;
  double training = 0;
  if (!arguments.compatible.empty()) {
    if (plan.method != "bebr" || arguments.codes.empty() == false)
      throw OptionError("--compatible-with trains a new encoder: it needs --method bebr and --vectors");
    const Index old(arguments.compatible);
    plan.format = old.format();
    encoded = codes_by_id(old, file.rows());
    const OldCodes codes{old.format(), encoded};
    plan.encoder = train_encoder(plan.method, file, arguments, common, &codes);
    training = seconds_since(begin);
    rows = encoded.data();
  } else if (arguments.codes.empty()) {
    if (arguments.like.empty()) {
      plan.encoder = train_encoder(plan.method, file, arguments, common, nullptr);
    } else {
      plan.encoder = load_encoder(fs::path(arguments.like) / "encoder.safetensors");
      plan.method = plan.encoder->method;
    }
    training = seconds_since(begin);
    plan.format = plan.encoder->format();
    Progress progress("encoding", file.rows(), "vectors");
    encoded = encode(file, CodeWriter(*plan.encoder), 0, file.rows(), pool, &progress);
    rows = encoded.data();
  } else {
    if (plan.method != "hamming")
      throw_error<OptionError>("--method {} makes codes from --vectors; --codes are taken as they are", plan.method);
    plan.format = format_of_codes(file, arguments);
    rows = file.values<uint8_t>().data();
  }
  create_index(arguments.output, plan, rows, file.rows(), read_ids(arguments.ids, file.rows()), arguments.force, pool);
  const Index index(arguments.output);
  Json json = facts(index);
  json["seconds"] = seconds_since(begin);
  json["training_seconds"] = training;
  if (common.for_people()) print_facts(index);
  write_json(common, json);
  return 0;
}

int add(const IndexArguments& arguments, const Common& common) {
  if (arguments.vectors.empty() == arguments.codes.empty())
    throw OptionError("give either --vectors (floats) or --codes (packed uint8)");
  ThreadPool pool(common.threads);
  const Index index(arguments.folder);
  const CodeRows rows =
      rows_of(arguments.codes.empty() ? arguments.vectors : arguments.codes, index.format(), index.encoder(), pool);
  const int64_t first = add_to_index(arguments.folder, rows.data, rows.count, read_ids(arguments.ids, rows.count), pool);
  const Index now(arguments.folder);
  Json json = facts(now);
  json["added"] = rows.count;
  json["first_id"] = first;
  if (common.for_people()) print_facts(now);
  write_json(common, json);
  return 0;
}

int remove(const IndexArguments& arguments, const Common& common) {
  ThreadPool pool(common.threads);
  const std::vector<int64_t> ids = read_ids(arguments.ids);
  remove_from_index(arguments.folder, ids, pool);
  const Index now(arguments.folder);
  Json json = facts(now);
  json["removed"] = ids.size();
  if (common.for_people()) print_facts(now);
  write_json(common, json);
  return 0;
}

Json spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {{"min", values.front()}, {"median", median}, {"max", values.back()}};
}

/// What all ranks found, on the first one.
SearchResult gather(Ranks& ranks, const SearchResult& own, int64_t k) {
  const auto column = [&](auto member) {
    using Values = std::decay_t<decltype(own.*member)>;
    std::vector<Values> all;
    for (const std::vector<std::byte>& bytes : ranks.gather(std::as_bytes(std::span(own.*member)))) {
      const auto* values = reinterpret_cast<const typename Values::value_type*>(bytes.data());
      all.emplace_back(values, values + bytes.size() / sizeof(typename Values::value_type));
    }
    return all;
  };
  const auto ids = column(&SearchResult::ids);
  const auto distances = column(&SearchResult::distances);
  const auto costs = column(&SearchResult::costs);
  std::vector<SearchResult> shares;
  for (size_t rank = 0; rank < ids.size(); ++rank) shares.push_back({ids[rank], distances[rank], costs[rank]});
  return shares.empty() ? own : merge_shares(shares, k);
}

int search(const IndexArguments& arguments, const Common& common) {
  Ranks& ranks = Ranks::world();  // under mpirun every process searches its share of the index
  check_writable(arguments.output);
  if (!arguments.distances.empty()) check_writable(arguments.distances);
  ThreadPool pool(common.threads);
  const Index index(arguments.folder);
  const NpyFile queries(arguments.queries);
  const int64_t count = queries.rows(), batch = arguments.batch > 0 ? arguments.batch : std::max<int64_t>(1, count);
  const bool floats = queries.dtype() != DType::u8;
  if (floats && index.encoder() == nullptr)
    throw_error<OptionError>(
        "{}: holds floats, but the index was built from codes and has no encoder; give uint8 codes [n, {}]", arguments.queries,
        index.format().row_bytes());
  if (!floats && queries.columns() != index.format().row_bytes())
    throw_error<FormatError>("{}: codes have {} bytes, but the index holds codes of {} ({})", arguments.queries,
                             queries.columns(), index.format().row_bytes(), to_text(index.format()));
  const SearchOptions options{.k = arguments.k, .probes = arguments.probes, .share = ranks.rank(), .shares = ranks.size()};
  SearchResult all;
  std::vector<double> rates;
  for (int64_t round = 0; round < arguments.repeat; ++round) {
    SearchResult found;
    ranks.barrier();
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t first = 0; first < count; first += batch) {
      check_interrupt();
      const int64_t n = std::min(batch, count - first);
      const std::vector<uint8_t> encoded = floats ? encode(queries, *index.encoder(), first, n, pool) : std::vector<uint8_t>{};
      const uint8_t* rows = floats ? encoded.data() : queries.values<uint8_t>().data() + first * index.format().row_bytes();
      const SearchResult own = index.search(rows, n, options, pool);
      const SearchResult part = ranks.size() > 1 ? gather(ranks, own, arguments.k) : own;
      found.ids.insert(found.ids.end(), part.ids.begin(), part.ids.end());
      found.distances.insert(found.distances.end(), part.distances.begin(), part.distances.end());
    }
    rates.push_back(static_cast<double>(count) / std::max(1e-9, seconds_since(begin)));
    all = std::move(found);
  }
  if (!ranks.first()) return 0;
  write_npy(arguments.output, {count, arguments.k}, all.ids);
  if (!arguments.distances.empty()) write_npy(arguments.distances, {count, arguments.k}, all.distances);
  Json json{{"queries", count},       {"k", arguments.k},      {"batch", batch},
            {"threads", pool.size()}, {"ranks", ranks.size()}, {"queries_per_s", spread(rates)}};
  if (index.lists() > 0) json["probes"] = std::min(arguments.probes, index.lists());
  if (common.for_people())
    fmt::print("{} queries, k = {}: {:.0f} queries/s (median of {})\n", count, arguments.k,
               json["queries_per_s"]["median"].get<double>(), rates.size());
  write_json(common, json);
  return 0;
}

int export_index(const IndexArguments& arguments, const Common& common) {
  if (arguments.format != "faiss") throw OptionError(unknown_name_message("format", arguments.format, {"faiss"}));
  const Index index(arguments.folder);
  export_to_faiss(index, arguments.output);
  const char* reader = index.format().kind == ScanKind::hamming ? "faiss.read_index_binary" : "faiss.read_index";
  if (common.for_people()) fmt::print("{}: {} codes, for {}\n", arguments.output, index.count(), reader);
  write_json(common, {{"output", arguments.output}, {"count", index.count()}, {"reader", reader}});
  return 0;
}

int check(const IndexArguments& arguments, const Common& common) {
  const Index index(arguments.folder);
  index.verify();
  if (common.for_people()) print_facts(index);
  write_json(common, facts(index));
  return 0;
}

void file_option(CLI::App* app, const std::string& name, std::string& target, const std::string& doc, bool required = false) {
  auto* option = app->add_option(name, target, doc)->type_name("FILE");
  if (required) option->required();
}

}  // namespace

Verb index_verb(CLI::App& root) {
  Verb verb =
      make_verb(root, "index", "searches vectors as binary or multi-bit codes: build | add | remove | search | export | check",
                "  lighten index build --vectors v.npy --method hamming -o idx       sign bits of the vectors\n"
                "  lighten index build --codes packed_u8.npy -o idx                  codes that you have\n"
                "  lighten index search idx --queries q.npy -k 10 -o ids.npy --json speed.json\n"
                "  lighten index add idx --vectors more.npy;  lighten index remove idx --ids ids.npy\n"
                "  lighten index export idx --to faiss -o idx.faiss\n");
  auto arguments = std::make_shared<IndexArguments>();
  IndexArguments& a = *arguments;
  auto chosen = std::make_shared<int (*)(const IndexArguments&, const Common&)>(nullptr);
  const auto action = [&](const char* name, const char* doc, int (*run)(const IndexArguments&, const Common&),
                          bool folder = true) {
    CLI::App* app = verb.app->add_subcommand(name, doc);
    app->fallthrough();
    app->callback([chosen, run] { *chosen = run; });
    if (folder) app->add_option("DIR", arguments->folder, "the index")->required();
    return app;
  };
  const auto inputs = [&](CLI::App* app) {
    file_option(app, "--vectors", a.vectors, "float vectors [n, d] (.npy)");
    file_option(app, "--codes", a.codes, "packed codes, uint8 [n, bytes] (.npy)");
    file_option(app, "--ids", a.ids, "their ids, int64 [n], each once, 0 or above (default: numbered on)");
  };

  CLI::App* app = action("build", "makes an index", build, false);
  inputs(app);
  app->add_option("-o,--output", a.output, "the folder to write")->required()->type_name("DIR");
  a.build = app;
  app->add_option("--method", a.method, "how vectors become codes: hamming (their sign bits; default), itq, bebr (learned)");
  app->add_option("--bits", a.bits, "bits of a code in all (itq: at most the columns; bebr: sets --dimensions)")
      ->check(CLI::Range(1, 1 << 18));
  file_option(app, "--pairs", a.pairs,
              "bebr: float [n, 2, d] (query, document) or int64 [n, 2] rows of --vectors (default: noisy self-pairs)");
  app->add_option("--train-rows", a.train_rows, "vectors that itq, or bebr without pairs, learns from (default 30000)")
      ->check(CLI::Range(16, 1 << 30));
  app->add_option("--like", a.like, "encode as this index does, without training")->type_name("DIR");
  app->add_option("--compatible-with", a.compatible,
                  "bebr: keep this index's codes (row i of --vectors: the document of id i), train queries that find them")
      ->type_name("DIR");
  app->add_option("--lists", a.lists, "coarse lists (IVF); a search looks into --probes of them (default 0: exhaustive)")
      ->check(CLI::Range(0, 1 << 20));
  app->add_flag("--force", a.force, "replace the folder if it exists");
  bind_options(*app, describe(a.bebr), "Options of --method bebr (--loops also says what --codes hold; default there 0)");

  inputs(action("add", "appends vectors or codes", add));
  file_option(action("remove", "removes ids", remove), "--ids", a.ids, "what to remove, int64 [n] (.npy)", true);

  app = action("search", "finds the nearest codes of queries", search);
  file_option(app, "--queries", a.queries, "float vectors, or packed uint8 codes, [n, ...] (.npy)", true);
  app->add_option("-k", a.k, "neighbours a query (default 10)")->check(CLI::Range(1, 1 << 20));
  app->add_option("--batch", a.batch, "queries at once (default: all)")->check(CLI::Range(1, 1 << 30));
  app->add_option("--repeat", a.repeat, "rounds for the speed (default 1)")->check(CLI::Range(1, 100000));
  app->add_option("--probes", a.probes, "of an index with lists: how many to look into (default 16)")
      ->check(CLI::Range(1, 1 << 20));
  file_option(app, "-o,--output", a.output, "ids int64 [n, k], best first, ties by smaller id, -1 where there is none (.npy)",
              true);
  file_option(app, "--distances", a.distances, "float32 [n, k]: differing bits, or 1 - cosine of multi-bit codes (.npy)");

  app = action("export", "writes the index for another library", export_index);
  app->add_option("--to", a.format, "faiss");
  file_option(app, "-o,--output", a.output, "the file to write", true);
  action("check", "reads every byte of an index against its checksums", check);

  verb.run = [arguments, chosen, common = verb.common] {
    if (*chosen == nullptr) throw OptionError("lighten index needs an action: build, add, remove, search, export or check");
    if (*chosen != search) need_one_process("this action of lighten index");
    return (*chosen)(*arguments, *common);
  };
  return verb;
}

}  // namespace lighten
