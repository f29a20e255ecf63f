// lighten train classify --method llp-bp: instance classifiers from the counts of bags.
#include <iostream>
#include <map>

#include "lighten/apps/lighten/task.h"
#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/output_file.h"
#include "lighten/base/progress.h"
#include "lighten/catalogue/apply.h"
#include "lighten/data/dataset.h"
#include "lighten/features/feature_rows.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/json_fields.h"
#include "lighten/nn/state.h"
#include "lighten/systems/labels/llp_bp/llp_bp.h"

namespace lighten {
namespace {

constexpr const char* kBagFormat = "lighten-bags-1";
constexpr int64_t kMostInputs = 1'000'000, kMostNets = 10;

/// Bags by name in the order of `bags.csv`, members by row of the features. Errors name the line.
BagTask read_bags(const BagOptions& options, std::vector<std::string>& names) {
  BagTask task;
  task.x = read_feature_rows(options.features, "instance");
  const int64_t instances = task.x.size(0);
  const CsvTable counts = read_table(options.bags), members = read_table(options.members);
  std::map<std::string, size_t> place;
  const size_t bag = counts.column("bag"), count = counts.column("count");
  for (int64_t i = 0; i < counts.size(); ++i) {
    if (!place.emplace(counts.text(i, bag), names.size()).second)
      throw_error<FormatError>("{}: bag '{}' stands here a second time", counts.where(i), counts.text(i, bag));
    names.push_back(counts.text(i, bag));
    task.counts.push_back(counts.integer(i, count));
  }
  task.bags.resize(names.size());
  std::vector<int64_t> line_of(static_cast<size_t>(instances), -1);
  const size_t id = members.column("id"), of = members.column("bag");
  for (int64_t i = 0; i < members.size(); ++i) {
    const int64_t row = members.integer(i, id);
    if (row < 0 || row >= instances)
      throw_error<FormatError>("{}: id {} is no row of {} (0 to {})", members.where(i), row, options.features, instances - 1);
    const auto found = place.find(members.text(i, of));
    if (found == place.end())
      throw_error<FormatError>("{}: bag '{}' is not in {}", members.where(i), members.text(i, of), options.bags);
    int64_t& line = line_of[static_cast<size_t>(row)];
    if (line >= 0) throw_error<FormatError>("{}: id {} is in a bag already (line {})", members.where(i), row, line);
    line = members.lines[static_cast<size_t>(i)];
    task.bags[found->second].push_back(row);
  }
  if (const auto outside = std::count(line_of.begin(), line_of.end(), -1); outside > 0)
    info(fmt::format("{} of {} instances are in no bag", outside, instances));
  for (size_t b = 0; b < names.size(); ++b) {
    const auto row = static_cast<int64_t>(b);
    if (task.bags[b].empty())
      throw_error<FormatError>("{}: bag '{}' has no member in {}", counts.where(row), names[b], options.members);
    if (task.counts[b] < 0 || task.counts[b] > std::ssize(task.bags[b]))
      throw_error<FormatError>("{}: bag '{}' has {} members, but a count of {}", counts.where(row), names[b],
                               task.bags[b].size(), task.counts[b]);
    if (split_of(names[b], {.validation = options.validation, .test = 0}) == Split::validation) task.validation.push_back(row);
  }
  if (task.validation.size() == names.size()) task.validation.pop_back();
  if (!options.labelled.empty()) {
    task.validation.clear();  // the labelled instances choose instead
    const CsvTable table = read_table(options.labelled);
    const size_t row_column = table.column("id"), label_column = table.column("label");
    for (int64_t i = 0; i < table.size(); ++i) {
      const int64_t row = table.integer(i, row_column), label = table.integer(i, label_column);
      if (row < 0 || row >= instances)
        throw_error<FormatError>("{}: id {} is no row of {} (0 to {})", table.where(i), row, options.features, instances - 1);
      if (const int64_t line = line_of[static_cast<size_t>(row)]; line >= 0)
        throw_error<FormatError>("{}: id {} is in a bag ({} line {}); labels are for instances outside the bags",
                                 table.where(i), row, options.members, line);
      if (label != 0 && label != 1) throw_error<FormatError>("{}: label {} is neither 0 nor 1", table.where(i), label);
      task.labelled.push_back(row);
      task.labels.push_back(static_cast<uint8_t>(label));
    }
  }
  return task;
}

}  // namespace

void add_bag_options(CLI::App& app, BagOptions& options) {
  const std::string group = "Bags (llp-bp, dllp)";
  app.add_option("--features", options.features, feature_rows_help("instances"))->type_name("FILE")->group(group);
  app.add_option("--bags", options.bags, "table bag,count: the positives of every bag")->type_name("FILE")->group(group);
  app.add_option("--members", options.members, "table id,bag: id is a row of the features")->type_name("FILE")->group(group);
  app.add_option("--validation", options.validation, "share of the bags that chooses the epoch, by their counts (default 0.15)")
      ->check(CLI::Range(0.0, 0.9))
      ->group(group);
  app.add_option("--labelled", options.labelled,
                 "table id,label (0 or 1) of a few instances outside the bags: they choose the epoch, by AUC, as in the paper")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--apply", options.apply, "a folder that was trained before: labels --features with it (then -o is a CSV)")
      ->type_name("DIR")
      ->group(group);
  bind_options(app, describe(options.method), "LLP-BP");
}

namespace {

/// A line an instance: the probability of being positive, and whether it is above one half.
std::string instances_csv(const torch::Tensor& probabilities) {
  std::string table = "id,probability,label\n";
  for (int64_t i = 0; i < probabilities.size(0); ++i) {
    const auto p = probabilities[i].item<double>();
    table += fmt::format("{},{:.6f},{}\n", i, p, p > 0.5 ? 1 : 0);
  }
  return table;
}

fs::path net_file(const fs::path& folder, size_t net) { return folder / fmt::format("round{}.safetensors", net + 1); }

void save_bag_model(const fs::path& folder, const std::string& method, const LlpBpModel& model, int64_t inputs) {
  for (size_t r = 0; r < model.nets.size(); ++r) save_tensors(net_file(folder, r), state_of(*model.nets[r]));
  write_file(
      folder / "bags.json",
      json_text({{"format", kBagFormat}, {"method", method}, {"inputs", inputs}, {"nets", model.nets.size()}}, 1) + "\n");
}

/// The nets of a folder, and how many features the first one reads.
std::pair<LlpBpModel, int64_t> load_bag_model(const fs::path& folder) {
  check_trained(folder, "bags.json", "bags");
  const std::string where = (folder / "bags.json").string();
  const Json json = formats::parse_json(read_file(where), where);
  const formats::Fields fields(json, where);
  if (fields.text("format", "") != kBagFormat) throw_error<FormatError>("{}: field \"format\" is not {}", where, kBagFormat);
  const int64_t inputs = fields.integer("inputs"), nets = fields.integer("nets");
  if (inputs < 1 || inputs > kMostInputs || nets < 1 || nets > kMostNets)
    throw_error<FormatError>("{}: inputs {} and nets {}: they must lie between 1 and {}, and 1 and {}", where, inputs, nets,
                             kMostInputs, kMostNets);
  LlpBpModel model;
  for (int64_t r = 0; r < nets; ++r) {
    const fs::path file = net_file(folder, static_cast<size_t>(r));
    model.nets.emplace_back(r == 0 ? inputs : model.nets[0]->weight.size(1), uint64_t{0});
    copy_state(load_tensors(file), state_of(*model.nets.back()), file.string());
    model.nets.back()->eval();
  }
  return {std::move(model), inputs};
}

int apply_bags(const Common& common, const BagOptions& options, const std::string& output, bool force) {
  if (options.features.empty()) throw OptionError("--apply needs --features: the instances whose labels are wanted");
  check_output_file(output, force);
  auto [model, inputs] = load_bag_model(options.apply);
  const torch::Tensor probabilities = model.probabilities(rows_for(options.features, inputs));
  write_file(output, instances_csv(probabilities));
  const auto positives = (probabilities > 0.5).sum().item<int64_t>();
  if (common.for_people()) fmt::print("{}: {} of {} instances are positive\n", output, positives, probabilities.size(0));
  write_json(common, {{"samples", probabilities.size(0)}, {"positives", positives}, {"output", output}});
  return 0;
}

int train_bags(const Common& common, const std::string& method, BagOptions& options, const std::string& output_folder,
               bool force) {
  for (const auto& [flag, value] : {std::pair<std::string, std::string>{"--features", options.features},
                                    {"--bags", options.bags},
                                    {"--members", options.members}})
    if (value.empty()) throw_error<OptionError>("--method {} needs {}", method, flag);
  options.method.seed = common.seed;
  validate(describe(options.method));
  AtomicFolder output(output_folder, force);
  std::vector<std::string> names;
  const BagTask task = read_bags(options, names);
  check_task(task);
  TrainPlace place = work_place(output_folder, describe(options.method),
                                {{"--features", options.features},
                                 {"--bags", options.bags},
                                 {"--members", options.members},
                                 {"--labelled", options.labelled}});
  place.identity["method"] = method;
  place.identity["validation"] = options.validation;
  Json figures = {
      {"method", method}, {"instances", task.x.size(0)}, {"bags", names.size()}, {"validation_bags", task.validation.size()}};
  LlpBpModel model;
  BagFit fit;
  if (method == "llp-bp") {
    model = llp_bp(task, options.method, method, place);
    for (const LlpBpRound& round : model.rounds)
      figures["rounds"].push_back({{"iterations", round.beliefs.iterations},
                                   {"converged", round.beliefs.converged},
                                   {"best_epoch", round.fit.best_epoch},
                                   {"score", round.fit.score},
                                   {"score_of_a_constant", round.fit.constant}});
    fit = model.rounds.back().fit;
    if (options.method.propagate && !model.rounds[0].beliefs.converged)
      warn(fmt::format(
          "belief propagation still moved by {:.2g} after {} iterations; a smaller --lambda-edge or --lambda-bag helps",
          model.rounds[0].beliefs.change, model.rounds[0].beliefs.iterations));
  } else {
    model.nets = {train_bag_net(task, task.x, {.targets = {}, .instance_weight = 0, .bag_weight = 1, .through_mean = true},
                                options.method, method, &fit, place)};
  }
  const torch::Tensor probabilities = model.probabilities(task.x);
  const bool judged = !task.validation.empty() || !task.labelled.empty();
  if (judged) {
    figures["best_epoch"] = fit.best_epoch;
    figures["score"] = fit.score;
    figures["score_of_a_constant"] = fit.constant;
    if (fit.score <= fit.constant)
      warn(fmt::format(
          "nothing was learned: the validation score is {:.4f} and always saying the share of positives gives {:.4f}; try "
          "--hard-labels count, more --epochs and --patience, or --method dllp",
          fit.score, fit.constant));
  }
  write_file(output.path() / "predictions.csv", instances_csv(probabilities));
  save_bag_model(output.path(), method, model, task.x.size(1));
  double error = 0;
  for (size_t b = 0; b < names.size(); ++b) {
    const double mean = probabilities.index_select(0, torch::tensor(task.bags[b])).mean().item<double>();
    error += std::abs(mean - static_cast<double>(task.counts[b]) / static_cast<double>(task.bags[b].size())) /
             static_cast<double>(names.size());
  }
  figures["proportion_error"] = error;
  write_file(output.path() / "training.json",
             json_text({{"figures", figures}, {"options", to_json(describe(options.method))}}, 1) + "\n");
  output.commit();
  remove_work(place);
  if (common.for_people())
    fmt::print(
        "{} instances in {} bags; mean difference between a bag's proportion and its mean prediction: {:.3f}\n{}: "
        "predictions.csv\n",
        task.x.size(0), names.size(), error, output_folder);
  write_json(common, figures);
  return 0;
}

}  // namespace

int run_bags(const CLI::App& app, const Common& common, const std::string& method, BagOptions& options,
             const std::string& output, bool force) {
  return applies(app, {"features", "output", "force", "method"}) ? apply_bags(common, options, output, force)
                                                                 : train_bags(common, method, options, output, force);
}

void add_train_bags(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* app =
      train.add_subcommand("bags", "classifies instances of which only the number of positives in each bag is known");
  app->fallthrough();
  struct Options {
    std::string method = "llp-bp", output;
    bool force = false;
    BagOptions bags;
  };
  auto options = std::make_shared<Options>();
  app->add_option("--method", options->method, "llp-bp (default) or the baseline dllp")
      ->check(CLI::IsMember({"llp-bp", "dllp"}));
  app->add_option("-o,--output", options->output, "folder for predictions and nets; with --apply the CSV of labels")
      ->required()
      ->type_name("DIR");
  app->add_flag("--force", options->force, "replace an existing folder");
  add_bag_options(*app, options->bags);
  actions.emplace_back(app, [app, options, common] {
    return run_bags(*app, *common, options->method, options->bags, options->output, options->force);
  });
}

}  // namespace lighten
