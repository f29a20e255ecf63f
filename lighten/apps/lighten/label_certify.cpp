// lighten label certify: sets of label sets with guaranteed coverage, from anyone's scores.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "lighten/apps/lighten/label.h"
#include "lighten/base/error.h"
#include "lighten/base/output_file.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/eval/calibration.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/npy.h"
#include "lighten/formats/plain_text.h"
#include "lighten/systems/labels/lp_icp/lp_icp.h"

namespace lighten {
namespace {

struct Scores {
  int64_t rows = 0, columns = 0;
  std::vector<float> values;
  std::span<const float> row(int64_t i) const { return {values.data() + i * columns, static_cast<size_t>(columns)}; }
};

Scores read_scores(const std::string& file, bool logits) {
  const NpyFile npy(file);
  Scores scores{npy.rows(), npy.columns(), npy.to_float()};
  if (scores.rows < 1 || scores.columns < 1) throw_error<FormatError>("{}: holds no scores", file);
  if (logits)
    for (float& value : scores.values) value = 1 / (1 + std::exp(-value));
  check_scores(scores.values, scores.columns, file);
  return scores;
}

std::vector<std::string> read_names(const std::string& file, int64_t columns) {
  if (file.empty()) return {};
  std::vector<std::string> names;
  const std::string text = read_plain_text(file, "label names");
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    names.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (std::ssize(names) != columns)
    throw_error<FormatError>("{}: {} names for {} columns of scores; one name a line", file, names.size(), columns);
  return names;
}

int64_t column_of(const CsvTable& table, int64_t row, size_t cell, const std::vector<std::string>& names, int64_t columns) {
  if (!names.empty()) {
    const auto it = std::find(names.begin(), names.end(), table.text(row, cell));
    if (it == names.end())
      throw_error<FormatError>("{}: {}", table.where(row), unknown_name_message("label", table.text(row, cell), names));
    return it - names.begin();
  }
  const int64_t label = table.integer(row, cell);
  if (label < 0 || label >= columns)
    throw_error<FormatError>("{}: label {} of {} (0 to {}; names need --label-names)", table.where(row), label, columns,
                             columns - 1);
  return label;
}

/// [rows, columns] of 0 and 1: an .npy of that shape, or a table `id,label` with a line for every label of every row of the
/// scores.
std::vector<uint8_t> read_labels(const std::string& file, const Scores& scores, const std::vector<std::string>& names) {
  std::vector<uint8_t> labels(scores.values.size());
  if (fs::path(file).extension() == ".npy") {
    const NpyFile npy(file);
    if (npy.rows() != scores.rows || npy.columns() != scores.columns)
      throw_error<FormatError>("{}: {} x {} labels for {} x {} scores", file, npy.rows(), npy.columns(), scores.rows,
                               scores.columns);
    const std::vector<float> values = npy.to_float();
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] != 0 && values[i] != 1)
        throw_error<FormatError>("{}: row {}, column {} holds {}; labels are 0 or 1", file,
                                 i / static_cast<size_t>(scores.columns), i % static_cast<size_t>(scores.columns), values[i]);
      labels[i] = values[i] == 1;
    }
    return labels;
  }
  const CsvTable table = read_table(file);
  const size_t id = table.column("id"), label = table.column("label");
  std::vector<bool> named(static_cast<size_t>(scores.rows), false);
  for (int64_t i = 0; i < table.size(); ++i) {
    const int64_t row = table.integer(i, id);
    if (row < 0 || row >= scores.rows)
      throw_error<FormatError>("{}: id {} is no row of the scores (0 to {})", table.where(i), row, scores.rows - 1);
    uint8_t& entry = labels[static_cast<size_t>(row * scores.columns + column_of(table, i, label, names, scores.columns))];
    if (entry) throw_error<FormatError>("{}: row {} has this label already", table.where(i), row);
    entry = 1;
    named[static_cast<size_t>(row)] = true;
  }
  if (const auto without = std::count(named.begin(), named.end(), false); without > 0)
    warn(fmt::format("{}: {} of {} rows of the scores have no line: they count as rows without any label", file, without,
                     scores.rows));
  return labels;
}

struct CertifyOptions {
  std::string scores, labels, names, calibration, output;
  bool logits = false, force = false;
  LpIcpOptions method;
};

int calibrate(const Common& common, CertifyOptions& options) {
  check_output_file(options.output, options.force);
  validate(describe(options.method));
  const Scores scores = read_scores(options.scores, options.logits);
  const std::vector<std::string> names = read_names(options.names, scores.columns);
  const std::vector<uint8_t> labels = read_labels(options.labels, scores, names);
  LpIcpCalibration calibration = lp_icp_calibrate(scores.values, labels, scores.columns, options.method.power);
  calibration.names = names;
  calibration.logits = options.logits;
  write_file(options.output, json_text(to_json(calibration)) + "\n");
  const double least = 1.0 / static_cast<double>(scores.rows + 1);
  if (common.for_people())
    fmt::print("{}: {} samples, {} labels; eps of {:.2g} and above can be asked for\n", options.output, scores.rows,
               scores.columns, least);
  write_json(common,
             {{"samples", scores.rows}, {"labels", scores.columns}, {"smallest_eps", least}, {"output", options.output}});
  return 0;
}

Json names_of(const std::vector<int32_t>& labels, const std::vector<std::string>& names) {
  if (names.empty()) return labels;
  Json list = Json::array();
  for (const int32_t label : labels) list.push_back(names[static_cast<size_t>(label)]);
  return list;
}

/// Throws OptionError unless --logits was given for both or for neither.
void check_kind_of_scores(const LpIcpCalibration& calibration, const CertifyOptions& options) {
  if (!calibration.logits || *calibration.logits == options.logits) return;
  if (options.logits)
    throw_error<OptionError>(
        "{} was calibrated on probabilities, but --logits says that {} holds logits; leave --logits out, or "
        "calibrate with logits",
        options.calibration, options.scores);
  throw_error<OptionError>("{} was calibrated with --logits; {} must hold logits too: give --logits", options.calibration,
                           options.scores);
}

/// Those of --label-names, which must be those of the calibration; without it these.
std::vector<std::string> known_names(const LpIcpCalibration& calibration, const CertifyOptions& options) {
  std::vector<std::string> given = read_names(options.names, calibration.labels);
  if (given.empty()) return calibration.names;
  for (size_t i = 0; i < calibration.names.size(); ++i)
    if (given[i] != calibration.names[i])
      throw_error<FormatError>("{}: line {} names '{}', but {} was calibrated with '{}' there", options.names, i + 1, given[i],
                               options.calibration, calibration.names[i]);
  return given;
}

int predict(const Common& common, CertifyOptions& options) {
  check_output_file(options.output, options.force);
  validate(describe(options.method));
  const LpIcpCalibration calibration =
      calibration_from_json(formats::parse_json(read_file(options.calibration), options.calibration), options.calibration);
  check_kind_of_scores(calibration, options);
  const Scores scores = read_scores(options.scores, options.logits);
  if (calibration.labels != scores.columns)
    throw_error<FormatError>("{}: {} columns, but {} was calibrated with {}", options.scores, scores.columns,
                             options.calibration, calibration.labels);
  const std::vector<std::string> names = known_names(calibration, options);
  std::vector<uint8_t> labels, held;
  if (!options.labels.empty()) labels = read_labels(options.labels, scores, names);
  AtomicFile out(options.output);
  Progress progress("certify", scores.rows, "samples");
  std::vector<double> sizes;
  for (int64_t i = 0; i < scores.rows; ++i) {
    const LpIcpPrediction p = lp_icp_predict(calibration, scores.row(i), options.method);
    Json line = {{"id", i},
                 {"point", names_of(p.point, names)},
                 {"credibility", p.credibility},
                 {"confidence", p.confidence},
                 {"complete", p.complete}};
    line["count"] = p.complete ? Json(p.count_low) : Json{p.count_low, p.count_high};
    line["always"] = names_of(p.always, names);
    line["undecided"] = names_of(p.undecided, names);
    line["sets"] = Json::array();
    for (const PlausibleSet& set : p.sets) line["sets"].push_back({{"labels", names_of(set.labels, names)}, {"p", set.p}});
    out.write(json_text(line) + "\n");
    sizes.push_back(p.count_high);
    if (!labels.empty()) {
      const auto width = static_cast<size_t>(scores.columns);
      held.push_back(lp_icp_contains(calibration, scores.row(i),
                                     std::span(labels).subspan(static_cast<size_t>(i) * width, width), options.method.eps));
    }
    progress.advance();
  }
  progress.finish();
  out.commit();
  const SetQuality quality = set_quality(held.empty() ? std::vector<uint8_t>(sizes.size()) : held, sizes);
  Json figures = {
      {"samples", scores.rows}, {"eps", options.method.eps}, {"median_sets", quality.median_size}, {"empty", quality.empty}};
  Table table({"samples", "eps", "sets a sample, median", "none plausible", "coverage"});
  table.row({fmt::format("{}", scores.rows), fmt::format("{}", options.method.eps), fmt::format("{:.0f}", quality.median_size),
             fmt::format("{:.1f} %", 100 * quality.empty),
             held.empty() ? "-" : fmt::format("{:.2f} %", 100 * quality.coverage)});
  if (!held.empty()) figures["coverage"] = quality.coverage;
  if (common.for_people()) std::cout << table.text();
  write_json(common, figures);
  return 0;
}

}  // namespace

void add_certify(CLI::App& label, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* certify =
      label.add_subcommand("certify", "sets of label sets that hold the true one with probability 1 - eps (lp-icp)");
  certify->require_subcommand(1, 1);
  certify->fallthrough();
  auto options = std::make_shared<CertifyOptions>();
  const auto add = [&](const std::string& name, const std::string& what) {
    CLI::App* app = certify->add_subcommand(name, what);
    app->fallthrough();
    app->add_option("--scores", options->scores, ".npy [samples, labels]: probability of every label")
        ->required()
        ->type_name("FILE");
    app->add_flag("--logits", options->logits, "the scores are logits: take their sigmoid");
    app->add_option("--label-names", options->names,
                    "a text file, one name a line in the order of the columns (predict: default those of the calibration)")
        ->type_name("FILE");
    app->add_flag("--force", options->force, "replace an existing output");
    return app;
  };
  const std::string label_help =
      "an .npy [samples, labels] of 0 and 1, or a table with a line `id,label` for every label of every row (id: row of the "
      "scores)";
  CLI::App* first = add("calibrate", "learns from samples with known labels how far scores err");
  first->add_option("--labels", options->labels, label_help)->required()->type_name("FILE");
  first->add_option("-o,--output", options->output, "the calibration (.json) to write")->required()->type_name("FILE");
  CLI::App* second = add("predict", "gives every sample its plausible label sets");
  second->add_option("--calibration", options->calibration, "what `calibrate` wrote")->required()->type_name("FILE");
  second->add_option("--labels", options->labels, label_help + "; then the coverage is shown")->type_name("FILE");
  second->add_option("-o,--output", options->output, "the .jsonl to write, one line a sample")->required()->type_name("FILE");
  OptionList calibrating, predicting;
  for (Option& described : describe(options->method))
    (described.name == "power" ? calibrating : predicting).push_back(described);
  bind_options(*first, calibrating, "LP-ICP");
  bind_options(*second, predicting, "LP-ICP");
  actions.emplace_back(first, [options, common] { return calibrate(*common, *options); });
  actions.emplace_back(second, [options, common] { return predict(*common, *options); });
}

}  // namespace lighten
