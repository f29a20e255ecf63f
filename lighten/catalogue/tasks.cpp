#include "lighten/catalogue/tasks.h"

#include "lighten/base/error.h"

namespace lighten {

std::vector<TaskMethod> task_methods() {
  std::vector<TaskMethod> all;
  for (const auto part : {classify_tasks, distill_tasks})
    for (TaskMethod& method : part()) all.push_back(std::move(method));
  return all;
}

void require_option(const std::string& value, const std::string& name, const std::string& meaning) {
  if (value.empty()) throw_error<OptionError>("--{} is missing: {}", name, meaning);
}

}  // namespace lighten
