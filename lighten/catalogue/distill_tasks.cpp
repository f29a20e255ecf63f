// lighten distill: a trained classifier and its teachers.
#include <iostream>

#include "lighten/base/error.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/picture_files.h"
#include "lighten/catalogue/tasks.h"
#include "lighten/systems/distillation/meal_v2/meal_v2.h"

namespace lighten {
namespace {

struct MealV2Task {
  PictureFiles files;
  std::string student, teachers;
  MealV2Options options;
};

std::vector<std::string> names_in(const std::string& list) {
  std::vector<std::string> names(1);
  for (const char c : list) {
    if (c == ',')
      names.emplace_back();
    else
      names.back() += c;
  }
  std::erase(names, "");
  return names;
}

/// The pictures as the student sees them.
ClassifyData data_for(const Classifier& student, const ImageSet& set, std::vector<int32_t> labels) {
  check_size(set, student.net->config, "the student");
  if (set.class_names != student.class_names)
    throw_error<OptionError>("the data have other classes ({}) than the student ({}), or in another order",
                             set.class_names.size(), student.class_names.size());
  ClassifyData data = classify_data(set, std::move(labels));
  data.normalization = {student.mean, student.deviation};
  return data;
}

Json distill(MealV2Task& task, const TaskRun& run) {
  require_option(task.student, "student", "the folder of a trained classifier (`lighten train classify --method ce`)");
  require_option(task.teachers, "teachers", "folders of trained classifiers, separated by commas");
  check_output(task.files);
  if (run.threads > 0) at::set_num_threads(run.threads);
  task.options.train.seed = run.seed;
  Classifier student = load_classifier(task.student);
  TeacherBank teachers;
  for (const std::string& folder : names_in(task.teachers)) teachers.members.push_back(load_classifier(folder));
  check_teachers(teachers, student);
  if (is_image_folder(task.files)) {
    task.files.side = student.net->config.height;
    task.files.grey = student.net->config.channels == 1;
  }
  const ImageSet set = read_pictures(task.files, run.seed, false);
  const ClassifyData data = data_for(student, set, labels_of(task.files, set));
  const std::vector<int64_t>& judged = data.test.empty() ? data.validation : data.test;
  const auto accuracy = [&](const torch::Tensor& logits) { return accuracy_of(logits, data.labels, judged); };
  const double before = accuracy(logits_of(*student.net, data, judged));
  const TrainResult result = meal_v2(student, teachers, data, task.options, "distilling", work_of(task.files));
  Json json = {{"side", data.test.empty() ? "validation" : "test"}, {"samples", judged.size()}, {"accuracy_before", before}};
  json["accuracy"] = accuracy(logits_of(*student.net, data, judged));
  torch::Tensor mean;
  Table table({"classifier", "parameters", "accuracy, " + json["side"].get<std::string>()});
  const auto row = [&](const std::string& name, const VisionNetImpl& net, double value) {
    table.row({name, std::to_string(vision_parameters(net.config)), fmt::format("{:.2f} %", 100 * value)});
  };
  for (size_t i = 0; i < teachers.members.size(); ++i) {
    const Classifier& teacher = teachers.members[i];
    ClassifyData seen = data;
    seen.normalization = {teacher.mean, teacher.deviation};
    json["teachers"].push_back(accuracy(logits_of(*teacher.net, seen, judged)));
    row(fmt::format("teacher {}", i + 1), *teacher.net, json["teachers"].back());
  }
  row("student before", *student.net, before);
  row("student after", *student.net, json["accuracy"]);
  if (run.for_people) std::cout << table.text();
  json["best_epoch"] = result.best_epoch + 1;
  json["options"] = to_json(describe(task.options));
  student.training = json;
  save_classifier(student, task.files.output, task.files.force);
  remove_work(task.files);
  return json;
}

}  // namespace

std::vector<TaskMethod> distill_tasks() {
  auto owner = std::make_shared<MealV2Task>();
  OptionList files = {
      option("student", owner->student, any_value(), "folder of the trained classifier to be improved", ""),
      option("teachers", owner->teachers, any_value(), "folders of stronger classifiers, separated by commas", "")};
  for (Option& more : describe(owner->files, "folder of the improved classifier")) files.push_back(std::move(more));
  return {{.verb = "distill",
           .task = "",
           .name = "meal-v2",
           .summary = "a small classifier imitates the mean of stronger ones",
           .example = "lighten distill --method meal-v2 --student s --teachers a,b --data DIR -o better",
           .owner = owner,
           .files = files,
           .options = describe(owner->options),
           .run = [owner](const TaskRun& run) { return distill(*owner, run); },
           .apply_options = {},
           .apply = {}}};
}

}  // namespace lighten
