// lighten index build: float vectors or packed codes to an index.
#include <algorithm>
#include <unordered_map>

#include "lighten/apps/lighten/index.h"
#include "lighten/base/error.h"

namespace lighten {
namespace {

constexpr int64_t kRowsAtOnce = 1 << 14;
constexpr int kItqIterations = 50;

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
  TrainingRows rows;
  if (!arguments.pairs.empty())
    rows = read_pairs(arguments.pairs, file);
  else
    rows.documents = old != nullptr ? file.to_float() : sampled_rows(file, arguments.train_rows);
  return train_bebr(rows.pairs(file.columns()), bebr_options(arguments, common), "bebr", old);
}

/// Throws OptionError for a flag that nothing would read: those of making codes beside --codes and --like, which make none, and
/// those of another --method.
void check_flags(const IndexArguments& arguments) {
  const auto given = [&](const std::string& name) { return arguments.build->count("--" + name) > 0; };
  const std::vector<std::string> methods = {"hamming", "itq", "bebr"};
  if (std::find(methods.begin(), methods.end(), arguments.method) == methods.end())
    throw OptionError(unknown_name_message("method", arguments.method, methods));
  std::vector<std::pair<std::string, std::vector<std::string>>> owners = {
      {"bits", methods}, {"train-rows", {"itq", "bebr"}}, {"pairs", {"bebr"}}, {"compatible-with", {"bebr"}}};
  BebrOptions bebr;
  for (const Option& option : describe(bebr))
    if (option.name != "seed") owners.push_back({option.name, {"bebr"}});
  if (!arguments.codes.empty() && arguments.method != "hamming")
    throw_error<OptionError>("--method {} makes codes from --vectors; --codes are taken as they are", arguments.method);
  for (const char* other : {"method", "codes"})
    if (!arguments.like.empty() && given(other))
      throw_error<OptionError>("--like encodes --vectors as {} does; leave --{} out", arguments.like, other);
  for (const auto& [name, of] : owners) {
    const bool planes = name == "loops" && !arguments.codes.empty();
    if (!given(name) || planes) continue;
    if (!arguments.codes.empty() || !arguments.like.empty())
      throw_error<OptionError>("--{} belongs to --method {}, which makes codes; {} makes none: leave it out", name,
                               fmt::join(of, ", "), arguments.codes.empty() ? "--like" : "--codes");
    if (std::find(of.begin(), of.end(), arguments.method) == of.end())
      throw_error<OptionError>("--{} belongs to --method {}, not to {}{}", name, fmt::join(of, ", "), arguments.method,
                               given("method") ? "" : " (the default)");
  }
  for (const char* instead : {"pairs", "compatible-with"})
    if (given("train-rows") && given(instead))
      throw_error<OptionError>("--train-rows says how many --vectors are learnt from; with --{} it has no meaning", instead);
  if (given("bits") && given("dimensions")) throw OptionError("--bits sets --dimensions; give one of them");
}

}  // namespace

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<int64_t> read_ids(const std::string& path, int64_t expected) {
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

std::vector<uint8_t> encode(const NpyFile& vectors, const CodeWriter& writer, int64_t first, int64_t count, ThreadPool& pool,
                            Progress* progress) {
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

int build_index(const IndexArguments& arguments, const Common& common) {
  if (arguments.vectors.empty() == arguments.codes.empty())
    throw OptionError("give either --vectors (floats) or --codes (packed uint8)");
  check_flags(arguments);
  if (fs::exists(arguments.output) && !arguments.force)
    throw_error<FileError>("{} already exists; give another output folder, or --force to replace it", arguments.output);
  const auto begin = std::chrono::steady_clock::now();
  ThreadPool pool(common.threads);
  const NpyFile file(arguments.codes.empty() ? arguments.vectors : arguments.codes);
  if (file.rows() < 1) throw_error<FormatError>("{}: holds no rows", file.name());
  IndexPlan plan{.method = arguments.method, .lists = arguments.lists, .seed = common.seed};
  std::vector<uint8_t> encoded;
  const uint8_t* rows = nullptr;
  double training = 0;
  if (!arguments.compatible.empty()) {
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

}  // namespace lighten
