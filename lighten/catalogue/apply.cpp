#include "lighten/catalogue/apply.h"

#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/output_file.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/picture_reader.h"
#include "lighten/eval/predictions.h"
#include "lighten/features/feature_rows.h"
#include "lighten/formats/file_kind.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/npy.h"
#include "lighten/train/classify.h"

namespace lighten {
namespace {

/// One classifier, or the two of nested-coteaching, which must fit together.
std::vector<Classifier> load_classifiers(const fs::path& folder) {
  std::vector<Classifier> nets;
  if (fs::exists(folder / "net1")) {
    for (const char* name : {"net1", "net2"}) nets.push_back(load_classifier(folder / name));
    const VisionConfig &a = nets[0].net->config, &b = nets[1].net->config;
    if (nets[0].class_names != nets[1].class_names || a.channels != b.channels || a.height != b.height || a.width != b.width)
      throw_error<FormatError>("{}: net1 and net2 differ in their class_names or in the pictures that they see",
                               folder.string());
    return nets;
  }
  check_trained(folder, "config.json", "classify");
  nets.push_back(load_classifier(folder));
  return nets;
}

}  // namespace

OptionList describe(ApplyOptions& o) {
  return {
      option("apply", o.folder, any_value(), "a folder that was trained before: labels --data with it (then -o is a CSV)", ""),
      option("top", o.top, range(1, 100000), "so many classes a sample, the likeliest first, with their rank", "Lighten"),
      option("probabilities", o.probabilities, any_value(), "also write those of all classes: .npy [samples, classes]", ""),
  };
}

void check_trained(const fs::path& folder, const std::string& file, const std::string& what) {
  if (fs::exists(folder / file)) return;
  std::string hint;
  for (const auto& [mark, task] : {std::pair<const char*, const char*>{"net1", "train classify"},
                                   {"bags.json", "train bags"},
                                   {"net", "train federate"},
                                   {"match.json", "train match"}})
    if (fs::exists(folder / mark)) hint = fmt::format("; this one is of `lighten {} --apply`", task);
  throw_error<FileError>("{}: not there; --apply takes a folder that `lighten train {}` wrote{}", (folder / file).string(),
                         what, hint);
}

void check_answers(const ApplyOptions& options, const std::string& output, bool force) {
  require_option(output, "output", "the CSV to write (-o)");
  check_output_file(output, force);
  if (!options.probabilities.empty()) check_output_file(options.probabilities, force);
}

Json write_answers(const ApplyOptions& options, const std::string& output, const torch::Tensor& logits,
                   const std::vector<std::string>& class_names, const std::vector<std::string>& ids, bool for_people) {
  const torch::Tensor probabilities = torch::softmax(logits, 1).contiguous();
  const float* p = probabilities.const_data_ptr<float>();
  if (!options.probabilities.empty())
    write_npy(options.probabilities, {probabilities.size(0), probabilities.size(1)},
              std::vector<float>(p, p + probabilities.numel()));
  write_file(output, predictions_csv(probabilities, class_names, ids, options.top));
  if (for_people) fmt::print("{}: {} samples, {} classes\n", output, logits.size(0), class_names.size());
  return {{"samples", logits.size(0)}, {"classes", class_names}, {"output", output}};
}

torch::Tensor rows_for(const fs::path& file, int64_t columns) {
  const torch::Tensor rows = read_feature_rows(file, "sample");
  if (rows.size(1) != columns && small_ending(file) != ".npy")
    throw_error<FormatError>(
        "{}: the features of texts have {} columns, but the model learnt from vectors of {}; give such (.npy)", file.string(),
        rows.size(1), columns);
  if (rows.size(1) != columns)
    throw_error<FormatError>("{}: {} columns, but the model reads {}; make them as those of the training were made",
                             file.string(), rows.size(1), columns);
  return rows;
}

std::vector<std::string> class_names_of(const fs::path& folder, const std::string& field, int64_t outputs) {
  const std::string where = (folder / "config.json").string();
  const Json json = formats::parse_json(read_file(where), where);
  std::vector<std::string> names = formats::Fields(json, where).texts(field);
  if (std::ssize(names) != outputs)
    throw_error<FormatError>("{}: field \"{}\" names {} classes for the {} outputs of the net", where, field, names.size(),
                             outputs);
  return names;
}

ImageSet pictures_for(const Classifier& classifier, const fs::path& folder) {
  const VisionConfig& config = classifier.net->config;
  if (config.height != config.width)
    throw_error<OptionError>("the classifier sees pictures of {} x {}; those of a folder are brought to squares", config.height,
                             config.width);
  return read_pictures_below(folder, {.side = config.height, .channels = config.channels});
}

torch::Tensor mean_logits(const std::vector<Classifier>& classifiers, const ImageSet& set) {
  std::vector<int64_t> all(static_cast<size_t>(set.size()));
  std::iota(all.begin(), all.end(), int64_t{0});
  torch::Tensor sum;
  for (const Classifier& classifier : classifiers) {
    const ClassifyData data{.set = &set, .labels = {}, .normalization = {classifier.mean, classifier.deviation}};
    const torch::Tensor logits = logits_of(*classifier.net, data, all);
    sum = sum.defined() ? sum + logits : logits;
  }
  return sum / static_cast<double>(classifiers.size());
}

Json apply_classifier(const PictureFiles& files, const ApplyOptions& options, const TaskRun& run) {
  require_option(files.data, "data", "a folder with the new pictures, or an id of `lighten data list`");
  check_answers(options, files.output, files.force);
  if (run.threads > 0) at::set_num_threads(run.threads);
  const std::vector<Classifier> nets = load_classifiers(options.folder);
  const VisionConfig& config = nets[0].net->config;
  ImageSet set;
  if (is_image_folder(files)) {
    set = pictures_for(nets[0], files.data);
  } else {
    set = image_set(files.data, {.limit = files.limit});
    check_size(set, config, "the classifier");
  }
  return write_answers(options, files.output, mean_logits(nets, set), nets[0].class_names, set.ids, run.for_people);
}

}  // namespace lighten
