// Where a light model may be written: nothing that was not made by Lighten is ever replaced.
#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/compress/checkpoint.h"
#include "lighten/compress/pipeline.h"

namespace lighten {
namespace {

bool is_light(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_regular_file(folder / "config.json", error)) return false;
  const Json config = Json::parse(read_file(folder / "config.json"), nullptr, /*allow_exceptions=*/false);
  return config.is_object() && config.contains("lighten") && config["lighten"].is_object() &&
         config["lighten"].contains("format_version");
}

void check_place(const QuantizeRequest& request) {
  const std::string output = request.output.string(), model = request.model.string();
  if (request.model.empty()) return;
  if (is_within(request.model, request.output))
    throw_error<OptionError>("{}: the output would take the place of the model {}; choose another -o", output, model);
  if (fs::is_directory(request.model) && is_within(request.output, request.model))
    throw_error<OptionError>("{}: the output lies inside the model's folder {}; choose another -o", output, model);
  const auto check_texts = [&](const std::vector<fs::path>& texts, const char* role) {
    for (const fs::path& text : texts)
      if (is_within(text, request.output))
        throw_error<OptionError>("{}: the output would take the place of the {} {}; choose another -o", output, role,
                                 text.string());
  };
  check_texts(request.calibration, "calibration text");
  check_texts(request.trim_corpus, "--trim-vocab text");
}

}  // namespace

fs::path partial_folder(const fs::path& output) {
  std::string text = output.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text + ".partial";
}

void compress::check_places(const QuantizeRequest& request) {
  const fs::path &output = request.output, partial = partial_folder(output);
  if (output.empty()) throw OptionError("the output folder has no name: give -o DIR");
  if (output.extension() == ".gguf")
    throw_error<OptionError>("{}: a light model is a folder, not a GGUF file; choose an -o without .gguf", output.string());
  check_place(request);
  if (fs::exists(output) && !request.force)
    throw_error<FileError>(
        "{} exists already; choose another -o, or replace it with --force (it stays until the new model is "
        "complete)",
        output.string());
  if (fs::exists(output) && !fs::is_directory(output))
    throw_error<FileError>("{} is a file, not a folder; choose another -o", output.string());
  if (fs::exists(output) && !fs::is_empty(output) && !is_light(output))
    throw_error<FileError>(
        "{} is no light model (it has no config.json with lighten's format version), so --force does not replace it; choose "
        "another -o, or remove it yourself",
        output.string());
  if (fs::exists(partial) &&
      (!fs::is_directory(partial) || !(fs::is_empty(partial) || compress::is_unfinished_work(partial) || is_light(partial))))
    throw_error<FileError>(
        "{} is in the way: unfinished work would be kept there, and it is none of lighten's; move it, or "
        "choose another -o",
        partial.string());
}

void check_output(const QuantizeRequest& request) {
  compress::check_places(request);
  const fs::path partial = partial_folder(request.output);
  if (fs::exists(partial)) const compress::FolderLock free(partial);
}

}  // namespace lighten
