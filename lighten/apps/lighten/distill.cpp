// lighten distill: a large or awkward model's knowledge into a small one.
#include "lighten/apps/lighten/distill.h"

#include "lighten/apps/lighten/task.h"
#include "lighten/base/error.h"

namespace lighten {

Verb distill_verb(CLI::App& root, int argc, char** argv) {
  Verb verb = make_verb(root, "distill", "trains a small model from larger ones: --method meal-v2, vqgraph",
                        "  lighten distill --method meal-v2 --student s/ --teachers a/,b/ --data pictures/ -o better/\n"
                        "  lighten distill --method vqgraph --edges e.tsv --features f.npy --labels l.csv -o mlp/\n"
                        "  lighten distill --method vqgraph --apply mlp/ --features new.npy -o answers/   without any graph\n");
  if (has_task_method("distill", "", peek_argument(argc, argv, "method"))) {  // its flags alone
    verb.run = bind_task(*verb.app, verb.common, "distill", "", argc, argv);
    return verb;
  }
  auto shared = std::make_shared<DistillOptions>();
  auto methods = std::make_shared<DistillMethods>();
  verb.app->add_option("--method", shared->method, "the method: meal-v2 (see --method meal-v2 --help), vqgraph")->required();
  verb.app->add_option("-o,--output", shared->output, "folder for the small model")->required()->type_name("DIR");
  verb.app->add_flag("--force", shared->force, "replace an existing folder");
  add_vqgraph(*verb.app, verb.common, shared, *methods);
  verb.run = [shared, methods] {
    std::vector<std::string> names = {"meal-v2"};
    for (const auto& [name, run] : *methods) {
      if (name == shared->method) return run();
      names.push_back(name);
    }
    throw OptionError(unknown_name_message("method", shared->method, names));
  };
  return verb;
}

}  // namespace lighten
