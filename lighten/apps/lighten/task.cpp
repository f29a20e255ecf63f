#include "lighten/apps/lighten/task.h"

#include <algorithm>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/ranks.h"
#include "lighten/catalogue/tasks.h"

namespace lighten {
namespace {

std::vector<TaskMethod> methods_of(const std::string& verb, const std::string& task) {
  std::vector<TaskMethod> methods = task_methods();
  std::erase_if(methods, [&](const TaskMethod& method) { return method.verb != verb || method.task != task; });
  return methods;
}

std::vector<std::string> names_of(const std::vector<TaskMethod>& methods) {
  std::vector<std::string> names;
  for (const TaskMethod& method : methods) names.push_back(method.name);
  return names;
}

/// "--method NAME: what it is" and an example, for each.
std::string listed(const std::vector<TaskMethod>& methods) {
  std::string text = "\nMethods:\n";
  for (const TaskMethod& method : methods)
    text += fmt::format("  {:<20} {}\n    {}\n", method.name, method.summary, method.example);
  return text;
}

}  // namespace

std::function<int()> bind_task(CLI::App& app, const std::shared_ptr<Common>& common, const std::string& verb,
                               const std::string& task, int argc, char** argv) {
  const std::vector<TaskMethod> methods = methods_of(verb, task);
  const std::string wanted = peek_argument(argc, argv, "method");
  auto name = std::make_shared<std::string>();
  app.add_option("--method", *name,
                 fmt::format("{} (default {}); the flags below are those of the chosen one", fmt::join(names_of(methods), ", "),
                             methods.at(0).name))
      ->type_name("NAME");
  std::optional<TaskMethod> chosen;
  for (const TaskMethod& method : methods)
    if (!chosen && (wanted.empty() || method.name == wanted)) chosen = method;
  if (chosen) {
    bind_options(app, chosen->files, "Files", {{"output", "o"}});
    bind_options(app, chosen->options, fmt::format("Method {}", chosen->name));
    bind_options(app, chosen->apply_options, "Later, on new data");
  } else if (argc > 2 && argv[1] == verb && (task.empty() || argv[2] == task)) {
    throw OptionError(unknown_name_message("method", wanted, names_of(methods)));  // the first thing to say
  }
  app.footer(listed(methods));
  return [chosen, wanted, name, common, &app] {
    std::vector<std::string> only;
    for (const Option& option : chosen->apply_options) only.push_back(option.name);
    if (chosen->apply) {
      std::vector<std::string> takes = {"data", "output", "force", "limit", "method"};
      takes.insert(takes.end(), only.begin(), only.end());
      if (applies(app, takes, only)) {
        need_one_process("--apply");
        write_json(*common,
                   chosen->apply({.seed = common->seed, .threads = common->threads, .for_people = common->for_people()}));
        return 0;
      }
    }
    validate(chosen->files);
    validate(chosen->options);
    if (!chosen->over_ranks) need_one_process(fmt::format("--method {}", chosen->name));
    const bool first = !chosen->over_ranks || Ranks::world().first();
    if (!first) set_quiet(true);
    const Json figures =
        chosen->run({.seed = common->seed, .threads = common->threads, .for_people = first && common->for_people()});
    if (first) write_json(*common, figures);
    return 0;
  };
}

bool applies(const CLI::App& app, const std::vector<std::string>& takes, const std::vector<std::string>& only) {
  const bool given = app.count("--apply") > 0;
  const auto holds = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option->get_group() == "Common" || option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (given && name != "apply" && !holds(takes, name))
      throw_error<OptionError>("--{} is for training, and --apply trains nothing; leave it out (--apply takes --{})", name,
                               fmt::join(takes, ", --"));
    if (!given && holds(only, name)) throw_error<OptionError>("--{} needs --apply DIR, a folder that was trained before", name);
  }
  return given;
}

void add_task(CLI::App& parent, const std::shared_ptr<Common>& common, VerbActions& actions, const std::string& verb,
              const std::string& task, const std::string& summary, int argc, char** argv) {
  CLI::App* app = parent.add_subcommand(task, summary);
  app->fallthrough();
  actions.emplace_back(app, bind_task(*app, common, verb, task, argc, argv));
}

bool has_task_method(const std::string& verb, const std::string& task, const std::string& method) {
  const std::vector<std::string> names = names_of(methods_of(verb, task));
  return std::find(names.begin(), names.end(), method) != names.end();
}

}  // namespace lighten
