// lighten train classify, lighten label clean: pictures of a folder or of a data set.
#include <iostream>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/ranks.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/apply.h"
#include "lighten/catalogue/tasks.h"
#include "lighten/formats/csv.h"
#include "lighten/systems/labels/nested_coteaching/nested_coteaching.h"
#include "lighten/train/classify.h"

namespace lighten {
namespace {

void set_threads(const TaskRun& run) {
  if (run.threads > 0) at::set_num_threads(run.threads);
}

/// Accuracies on the sides that were not trained on.
Json figures(const ClassifyData& data, const std::function<torch::Tensor(std::span<const int64_t>)>& logits,
             const TaskRun& run) {
  Json json = {{"train_samples", data.train.size()}, {"classes", data.set->class_names.size()}};
  json["validation_accuracy"] = accuracy_of(logits(data.validation), data.labels, data.validation);
  Table table({"side", "samples", "accuracy"});
  table.row({"validation", std::to_string(data.validation.size()),
             fmt::format("{:.2f} %", 100 * json["validation_accuracy"].get<double>())});
  if (!data.test.empty()) {
    json["test_accuracy"] = accuracy_of(logits(data.test), data.labels, data.test);
    table.row({"test", std::to_string(data.test.size()), fmt::format("{:.2f} %", 100 * json["test_accuracy"].get<double>())});
  }
  if (run.for_people) std::cout << table.text();
  return json;
}

Json train_ce(const PictureFiles& files, ClassifyOptions options, const TaskRun& run) {
  check_output(files);
  set_threads(run);
  options.train.seed = run.seed;
  const ImageSet set = read_pictures(files, run.seed, false);
  const ClassifyData data = classify_data(set, labels_of(files, set));
  Ranks& ranks = Ranks::world();
  const TrainedNet trained = train_classifier(data, options, "training", work_of(files), {}, &ranks);
  if (!ranks.first()) return {};
  Json json = figures(
      data, [&](std::span<const int64_t> samples) { return logits_of(*trained.net, data, samples); }, run);
  json["ranks"] = ranks.size();
  json["parameters"] = vision_parameters(trained.net->config);
  json["best_epoch"] = trained.result.best_epoch + 1;
  json["options"] = to_json(describe(options));
  save_classifier(classifier_from(trained.net, data, json), files.output, files.force);
  remove_work(files);
  return json;
}

/// The nets of a pair as plain classifiers: head weights behind the k-th feature are 0.
void save_pair(const NestedPair& pair, const ClassifyData& data, const Json& json, const PictureFiles& files) {
  AtomicFolder output(files.output, files.force);
  for (size_t i = 0; i < pair.nets.size(); ++i) {
    const torch::NoGradGuard no_grad;
    torch::Tensor weight = pair.nets[i]->head->weight;
    if (pair.features[i] < weight.size(1)) weight.narrow(1, pair.features[i], weight.size(1) - pair.features[i]).zero_();
    Json training = json;
    training["features_used"] = pair.features[i];
    save_classifier(classifier_from(pair.nets[i], data, training), output.path() / fmt::format("net{}", i + 1), true);
  }
  output.commit();
}

Json train_nested_task(const PictureFiles& files, NestedCoteachingOptions options, const TaskRun& run) {
  check_output(files);
  set_threads(run);
  options.classify.train.seed = run.seed;
  const ImageSet set = read_pictures(files, run.seed, false);
  const ClassifyData data = classify_data(set, labels_of(files, set));
  const NestedPair pair = nested_coteaching(data, options, work_of(files));
  Json json = figures(
      data, [&](std::span<const int64_t> samples) { return pair_logits(pair, data, samples); }, run);
  json["features_used"] = pair.features;
  json["options"] = to_json(describe(options));
  save_pair(pair, data, json, files);
  remove_work(files);
  return json;
}

Json clean(const PictureFiles& files, NestedCoteachingOptions options, const TaskRun& run) {
  check_output(files);
  set_threads(run);
  options.classify.train.seed = run.seed;
  const ImageSet set = read_pictures(files, run.seed, true);
  const ClassifyData data = classify_data(set, labels_of(files, set));
  const NestedPair pair = nested_coteaching(data, options, work_of(files));
  std::vector<int64_t> judged = data.train;
  judged.insert(judged.end(), data.validation.begin(), data.validation.end());
  const std::vector<Suspect> found = suspects(pair_logits(pair, data, judged), data.labels, judged);
  std::string rows = "id,score,given,suggested\n";
  for (const Suspect& suspect : found)
    rows += fmt::format("{},{:.6f},{},{}\n", csv_field(set.ids[suspect.sample]), suspect.score,
                        csv_field(set.class_names[suspect.given]), csv_field(set.class_names[suspect.suggested]));
  write_file(files.output, rows);
  remove_work(files);
  if (run.for_people) {
    Table table({"suspect", "score", "given", "suggested"});
    for (size_t i = 0; i < std::min<size_t>(found.size(), 10); ++i)
      table.row({set.ids[found[i].sample], fmt::format("{:.3f}", found[i].score), set.class_names[found[i].given],
                 set.class_names[found[i].suggested]});
    fmt::print("{}{} of {} labels are doubted; all of them: {}\n", found.empty() ? "" : table.text(), found.size(),
               judged.size(), files.output);
  }
  return {{"samples", judged.size()},
          {"suspects", found.size()},
          {"validation_accuracy", pair.validation},
          {"features_used", pair.features}};
}

template <typename Options>
struct Owner {
  PictureFiles files;
  ApplyOptions apply;
  Options options;
};

template <typename Options, typename Run>
TaskMethod row(const std::string& verb, const std::string& task, const std::string& name, const std::string& summary,
               const std::string& example, const std::string& output_meaning, const Run& run, bool over_ranks = false) {
  auto owner = std::make_shared<Owner<Options>>();
  return {.verb = verb,
          .task = task,
          .name = name,
          .summary = summary,
          .example = example,
          .owner = owner,
          .files = describe(owner->files, output_meaning),
          .options = describe(owner->options),
          .run = [owner, run](const TaskRun& task_run) { return run(owner->files, owner->options, task_run); },
          .apply_options = {},
          .apply = {},
          .over_ranks = over_ranks};
}

/// A row whose output --apply takes.
template <typename Options>
TaskMethod applied(TaskMethod method) {
  const auto owner = std::static_pointer_cast<Owner<Options>>(method.owner);
  method.apply_options = describe(owner->apply);
  method.apply = [owner](const TaskRun& run) { return apply_classifier(owner->files, owner->apply, run); };
  return method;
}

}  // namespace

std::vector<TaskMethod> classify_tasks() {
  return {
      applied<ClassifyOptions>(row<ClassifyOptions>("train", "classify", "ce", "cross-entropy: the plain classifier",
                                                    "lighten train classify --method ce --data DIR -o net",
                                                    "folder of the classifier; with --apply the CSV of labels", train_ce,
                                                    true)),
      applied<NestedCoteachingOptions>(row<NestedCoteachingOptions>(
          "train", "classify", "nested-coteaching", "learns from labels that are partly wrong",
          "lighten train classify --method nested-coteaching --data DIR --labels noisy.csv --forget 0.2 -o nets",
          "folder of the two classifiers; with --apply the CSV of labels", train_nested_task)),
      row<NestedCoteachingOptions>("label", "clean", "nested-coteaching", "lists the labels that are probably wrong",
                                   "lighten label clean --data DIR --labels noisy.csv -o suspects.csv",
                                   "CSV of the suspects: id,score,given,suggested", clean),
  };
}

}  // namespace lighten
