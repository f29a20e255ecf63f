// lighten train classify --method llp-bp: instance classifiers from the counts of bags.
#include <iostream>
#include <map>

#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/data/dataset.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/npy.h"
#include "lighten/nn/state.h"
#include "lighten/systems/labels/llp_bp/llp_bp.h"

namespace lighten {
namespace {

/// Bags by name in the order of `bags.csv`, members by row of the features. Errors name the line.
BagTask read_bags(const BagOptions& options, std::vector<std::string>& names) {
  const NpyFile features(options.features);
  if (features.rows() == 0) throw_error<FormatError>("{}: holds no rows; an instance has one each", options.features);
  BagTask task;
  task.x = torch::tensor(features.to_float()).view({features.rows(), features.columns()});
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
  std::vector<int64_t> line_of(static_cast<size_t>(features.rows()), -1);
  const size_t id = members.column("id"), of = members.column("bag");
  for (int64_t i = 0; i < members.size(); ++i) {
    const int64_t row = members.integer(i, id);
    if (row < 0 || row >= features.rows())
      throw_error<FormatError>("{}: id {} is no row of {} (0 to {})", members.where(i), row, options.features,
                               features.rows() - 1);
    const auto found = place.find(members.text(i, of));
    if (found == place.end())
      throw_error<FormatError>("{}: bag '{}' is not in {}", members.where(i), members.text(i, of), options.bags);
    int64_t& line = line_of[static_cast<size_t>(row)];
    if (line >= 0) throw_error<FormatError>("{}: id {} is in a bag already (line {})", members.where(i), row, line);
    line = members.lines[static_cast<size_t>(i)];
    task.bags[found->second].push_back(row);
  }
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
      if (row < 0 || row >= features.rows())
        throw_error<FormatError>("{}: id {} is no row of {} (0 to {})", table.where(i), row, options.features,
                                 features.rows() - 1);
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
  app.add_option("--features", options.features, ".npy [instances, width] (of texts: lighten embed)")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--bags", options.bags, "table bag,count: the positives of every bag")->type_name("FILE")->group(group);
  app.add_option("--members", options.members, "table id,bag: id is a row of the features")->type_name("FILE")->group(group);
  app.add_option("--validation", options.validation, "share of the bags that chooses the epoch, by their counts (default 0.15)")
      ->check(CLI::Range(0.0, 0.9))
      ->group(group);
  app.add_option("--labelled", options.labelled,
                 "table id,label (0 or 1) of a few instances outside the bags: they choose the epoch, by AUC, as in the paper")
      ->type_name("FILE")
      ->group(group);
  bind_options(app, describe(options.method), "LLP-BP");
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
  torch::Tensor probabilities;
  Json figures = {
      {"method", method}, {"instances", task.x.size(0)}, {"bags", names.size()}, {"validation_bags", task.validation.size()}};
  std::vector<BagNet> nets;
  BagFit fit;
  if (method == "llp-bp") {
    LlpBpModel model = llp_bp(task, options.method, method, place);
    probabilities = model.probabilities(task.x);
    nets = model.nets;
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
    nets = {train_bag_net(task, task.x, {.targets = {}, .instance_weight = 0, .bag_weight = 1, .through_mean = true},
                          options.method, method, &fit, place)};
    const torch::NoGradGuard no_grad;
    probabilities = torch::sigmoid(nets[0]->instances(task.x));
  }
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
  std::string predictions = "id,probability,label\n";
  for (int64_t i = 0; i < probabilities.size(0); ++i) {
    const auto p = probabilities[i].item<double>();
    predictions += fmt::format("{},{:.6f},{}\n", i, p, p > 0.5 ? 1 : 0);
  }
  write_file(output.path() / "predictions.csv", predictions);
  for (size_t r = 0; r < nets.size(); ++r)
    save_tensors(output.path() / fmt::format("round{}.safetensors", r + 1), state_of(*nets[r]));
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
  app->add_option("-o,--output", options->output, "folder for predictions and nets")->required()->type_name("DIR");
  app->add_flag("--force", options->force, "replace an existing folder");
  add_bag_options(*app, options->bags);
  actions.emplace_back(
      app, [options, common] { return train_bags(*common, options->method, options->bags, options->output, options->force); });
}

}  // namespace lighten
