// The explicit table of what `lighten train`, `lighten label` and `lighten distill` can do: verb, task, method. Knows nothing
// of torch.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lighten/base/json.h"
#include "lighten/base/options.h"

namespace lighten {

/// What every task is told besides its own options.
struct TaskRun {
  uint64_t seed = 0;
  int threads = 0;
  bool for_people = true;  ///< tables may go to standard output
};

/// One method, with the object that its options are bound to. `run` does the work and returns its figures.
struct TaskMethod {
  std::string verb;     ///< "train", "label", "distill"
  std::string task;     ///< "classify", "certify predict"; "" for a verb of one task
  std::string name;     ///< --method
  std::string summary;  ///< one line for --help
  std::string example;  ///< a command
  std::shared_ptr<void> owner;
  OptionList files;    ///< inputs and outputs
  OptionList options;  ///< of the method
  std::function<Json(const TaskRun&)> run;
  /// --apply: uses what `run` wrote on new data. Reads these flags and, of those above, `data`, `limit`, `output` and `force`;
  /// empty where there is no such thing.
  OptionList apply_options;
  std::function<Json(const TaskRun&)> apply;
  /// Whether several processes under mpirun share the work: then all call `run`, and only the first one writes.
  bool over_ranks = false;
};

/// All rows, each with fresh default options. The first method of a task is its default.
std::vector<TaskMethod> task_methods();

/// The parts of the table, one function a file.
std::vector<TaskMethod> classify_tasks();
std::vector<TaskMethod> distill_tasks();

/// Throws OptionError "--data is missing: ..." if `value` is empty.
void require_option(const std::string& value, const std::string& name, const std::string& meaning);

}  // namespace lighten
