// Where the trainings behind a verb stand until its output is complete.
#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/data/dataset.h"

namespace lighten {

TrainPlace work_place(const std::string& output, const OptionList& options,
                      const std::vector<std::pair<std::string, std::string>>& inputs) {
  std::string name = output;
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  TrainPlace place{.folder = name + ".work", .identity = to_json(options)};
  for (const auto& [flag, file] : inputs)
    if (fs::exists(file))
      place.identity["contents of " + flag] = fmt::format("{:016x}", stable_hash(read_file(file)));
    else if (!file.empty())
      place.identity["contents of " + flag] = file;  // the id of a data set
  return place;
}

void remove_work(const TrainPlace& place) {
  std::error_code error;
  fs::remove_all(place.folder, error);
}

}  // namespace lighten
