// lighten index: vectors and codes to a searchable index, and questions to it.
#include <algorithm>

#include "lighten/apps/lighten/index.h"
#include "lighten/base/error.h"
#include "lighten/base/output_file.h"
#include "lighten/base/ranks.h"

namespace lighten {
namespace {

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
  check_output_file(arguments.output, arguments.force);
  if (!arguments.distances.empty()) check_output_file(arguments.distances, arguments.force);
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
  check_output_file(arguments.output, arguments.force);
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

  CLI::App* app = action("build", "makes an index", build_index, false);
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

  app->add_flag("--force", a.force, "replace files that exist");

  app = action("export", "writes the index for another library", export_index);
  app->add_option("--to", a.format, "faiss");
  file_option(app, "-o,--output", a.output, "the file to write", true);
  app->add_flag("--force", a.force, "replace the file if it exists");
  action("check", "reads every byte of an index against its checksums", check);

  verb.run = [arguments, chosen, common = verb.common] {
    if (*chosen == nullptr) throw OptionError("lighten index needs an action: build, add, remove, search, export or check");
    if (*chosen != search) need_one_process("this action of lighten index");
    return (*chosen)(*arguments, *common);
  };
  return verb;
}

}  // namespace lighten
