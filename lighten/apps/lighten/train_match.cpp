// lighten train match: a dual encoder for texts and many labels.
#include <algorithm>
#include <numeric>

#include "lighten/apps/lighten/texts.h"
#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/data/dataset.h"
#include "lighten/features/text_features.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/npy.h"
#include "lighten/nn/state.h"
#include "lighten/systems/labels/dexml/dexml.h"

namespace lighten {
namespace {

struct MatchOptions {
  std::string method = "dexml", texts, labels, pairs, output, predict;
  int64_t top = 10;
  bool force = false;
  DexmlOptions dexml;
};

torch::Tensor features_of(const std::vector<std::string>& texts, const std::string& name) {
  const Features features = minilm_features(texts, name);
  return torch::tensor(features.values).view({features.rows, features.columns});
}

/// Labels of every text from a table `text,label` of numbers (from 0). A tenth of the texts, by hash, is for validation.
MatchTask read_task(const MatchOptions& options, int64_t texts, int64_t labels) {
  MatchTask task{
      .queries = texts, .labels = labels, .positives = IdLists(static_cast<size_t>(texts)), .train = {}, .validation = {}};
  const CsvTable table = read_table(options.pairs);
  const size_t text = table.column("text"), label = table.column("label");
  for (int64_t i = 0; i < table.size(); ++i) {
    const int64_t t = table.integer(i, text), l = table.integer(i, label);
    if (t < 0 || t >= texts) throw_error<FormatError>("{}: text {} of {} (0 to {})", table.where(i), t, texts, texts - 1);
    if (l < 0 || l >= labels) throw_error<FormatError>("{}: label {} of {} (0 to {})", table.where(i), l, labels, labels - 1);
    auto& list = task.positives[static_cast<size_t>(t)];
    if (std::find(list.begin(), list.end(), l) != list.end())
      throw_error<FormatError>("{}: text {} has the label {} already", table.where(i), t, l);
    list.push_back(static_cast<int32_t>(l));
  }
  for (int64_t t = 0; t < texts; ++t) {
    auto& list = task.positives[static_cast<size_t>(t)];
    std::sort(list.begin(), list.end());
    if (list.empty()) continue;
    (split_of(fmt::format("{}", t), {.validation = 0.1, .test = 0}) == Split::validation ? task.validation : task.train)
        .push_back(t);
  }
  return task;
}

int train_match(const Common& common, MatchOptions& options) {
  options.dexml.seed = common.seed;
  validate(describe(options.dexml));
  AtomicFolder output(options.output, options.force);
  const std::vector<std::string> texts = read_texts(options.texts), labels = read_texts(options.labels);
  if (texts.empty()) throw OptionError("--texts must hold at least one line");
  if (labels.size() < 2)
    throw_error<FormatError>("{}: one label only; two or more are needed to tell them apart", options.labels);
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i].find_first_not_of(" \t\r") == std::string::npos)
      throw_error<FormatError>("{}: line {}: label {} has no text; a label is found by its text", options.labels, i + 1, i);
  const MatchTask task = read_task(options, std::ssize(texts), std::ssize(labels));
  check_task(task);
  const torch::Tensor x = features_of(texts, options.texts), y = features_of(labels, options.labels);
  MatchTower tower(x.size(1), options.dexml.hidden, common.seed);
  DualEncoder encoder = tower_encoder(tower, x, y);
  train_dexml(task, encoder, options.dexml, options.method);
  std::vector<int64_t> all(labels.size());
  std::iota(all.begin(), all.end(), int64_t{0});
  const torch::Tensor label_vectors = encode_all(encoder.labels, all).contiguous();
  save_tensors(output.path() / "tower.safetensors", state_of(*tower));
  write_npy(output.path() / "labels.npy", {label_vectors.size(0), label_vectors.size(1)},
            std::vector<float>(label_vectors.data_ptr<float>(), label_vectors.data_ptr<float>() + label_vectors.numel()));
  Json figures = {{"texts", texts.size()},
                  {"labels", labels.size()},
                  {"training_texts", task.train.size()},
                  {"parameters", parameter_count(*tower)}};
  if (!task.validation.empty()) {
    IdLists truth;
    for (const int64_t query : task.validation) truth.push_back(task.positives[static_cast<size_t>(query)]);
    const IdLists ranked = best_labels(encode_all(encoder.queries, task.validation), label_vectors, 5);
    figures["validation_p1"] = precision_at(ranked, truth, 1);
    figures["validation_p5"] = precision_at(ranked, truth, 5);
  }
  if (!options.predict.empty()) {
    const std::vector<std::string> asked = read_texts(options.predict);
    torch::Tensor vectors;
    {
      const torch::NoGradGuard no_grad;
      vectors = tower->forward(features_of(asked, options.predict));
    }
    const IdLists ranked = best_labels(vectors, label_vectors, options.top);
    std::string table = "text,rank,label,score\n";
    for (size_t i = 0; i < ranked.size(); ++i)
      for (size_t r = 0; r < ranked[i].size(); ++r)
        table += fmt::format("{},{},{},{:.5f}\n", i, r + 1, ranked[i][r],
                             (vectors[static_cast<int64_t>(i)] * label_vectors[ranked[i][r]]).sum().item<double>());
    write_file(output.path() / "predictions.csv", table);
  }
  write_file(output.path() / "training.json",
             json_text({{"figures", figures}, {"options", to_json(describe(options.dexml))}}, 1) + "\n");
  output.commit();
  if (common.for_people())
    fmt::print("{} texts, {} labels; validation P@1 {}, P@5 {}\n{}: tower.safetensors, labels.npy{}\n", texts.size(),
               labels.size(),
               figures.contains("validation_p1") ? fmt::format("{:.3f}", figures["validation_p1"].get<double>()) : "-",
               figures.contains("validation_p5") ? fmt::format("{:.3f}", figures["validation_p5"].get<double>()) : "-",
               options.output, options.predict.empty() ? "" : ", predictions.csv");
  write_json(common, figures);
  return 0;
}

}  // namespace

void add_train_match(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* app = train.add_subcommand("match", "matches texts with many labels that have texts themselves (dexml)");
  app->fallthrough();
  auto options = std::make_shared<MatchOptions>();
  app->add_option("--method", options->method, "dexml (default)")->check(CLI::IsMember({"dexml"}));
  app->add_option("--texts", options->texts, "text file, one text a line, or .jsonl with a field text")
      ->required()
      ->type_name("FILE");
  app->add_option("--label-texts", options->labels, "the labels' texts, in the same way")->required()->type_name("FILE");
  app->add_option("--pairs", options->pairs, "table text,label of line numbers from 0, a line for every label of every text")
      ->required()
      ->type_name("FILE");
  app->add_option("-o,--output", options->output, "folder for the tower, the labels' vectors and predictions")
      ->required()
      ->type_name("DIR");
  app->add_option("--predict", options->predict, "more texts: their best labels go to predictions.csv")->type_name("FILE");
  app->add_option("--top", options->top, "so many labels for each of them (default 10)")->check(CLI::Range(1, 10000));
  app->add_flag("--force", options->force, "replace an existing folder");
  bind_options(*app, describe(options->dexml), "DEXML");
  actions.emplace_back(app, [options, common] { return train_match(*common, *options); });
}

}  // namespace lighten
