// --apply of `lighten train`: what a training wrote labels new data.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/catalogue/picture_files.h"
#include "lighten/nn/vision.h"

namespace lighten {

/// What --apply takes besides the new data and the output.
struct ApplyOptions {
  std::string folder, probabilities;
  int64_t top = 1;
};
OptionList describe(ApplyOptions& options);

/// Throws FileError: `folder` lacks `file`, which `lighten train WHAT` writes. Says so if another training wrote the folder.
void check_trained(const fs::path& folder, const std::string& file, const std::string& what);

/// Throws OptionError without an output, FileError if an output exists and may not be replaced.
void check_answers(const ApplyOptions& options, const std::string& output, bool force);
/// Writes predictions.csv (eval/predictions.h) and, where they are asked for, the probabilities [n, classes] as .npy, from
/// logits [n, classes]; says so, and returns the figures.
Json write_answers(const ApplyOptions& options, const std::string& output, const torch::Tensor& logits,
                   const std::vector<std::string>& class_names, const std::vector<std::string>& ids, bool for_people);

/// The rows of a .npy for a net that reads `columns` features. Throws FormatError: no rows, another width, NaN.
torch::Tensor rows_for(const fs::path& file, int64_t columns);
/// The field of config.json beside a perceptron (nn/mlp.h) that names a class for each of its `outputs`. Throws FormatError.
std::vector<std::string> class_names_of(const fs::path& folder, const std::string& field, int64_t outputs);

/// The pictures below a folder as a classifier wants them: its channels and side.
ImageSet pictures_for(const Classifier& classifier, const fs::path& folder);
/// Mean of the classifiers' logits, [pictures, classes]; each sees the pictures with its own mean and deviation.
torch::Tensor mean_logits(const std::vector<Classifier>& classifiers, const ImageSet& set);

/// `lighten train classify --apply`: a classifier, or net1 and net2 of nested-coteaching, on --data (a folder of pictures at
/// any depth, or a data set).
Json apply_classifier(const PictureFiles& files, const ApplyOptions& options, const TaskRun& run);

}  // namespace lighten
