// lighten distill: a large or awkward model's knowledge into a small one.
#include "lighten/apps/lighten/distill.h"

#include "lighten/base/error.h"

namespace lighten {

Verb distill_verb(CLI::App& root) {
  Verb verb = make_verb(root, "distill", "trains a small model from larger ones: --method vqgraph",
                        "  lighten distill --method vqgraph --edges e.tsv --features f.npy --labels l.csv -o mlp/\n"
                        "  lighten distill --method vqgraph --apply mlp/ --features new.npy -o answers/   without any graph\n");
  auto shared = std::make_shared<DistillOptions>();
  auto methods = std::make_shared<DistillMethods>();
  verb.app->add_option("--method", shared->method, "the method: vqgraph")->required();
  verb.app->add_option("-o,--output", shared->output, "folder for the small model")->required()->type_name("DIR");
  verb.app->add_flag("--force", shared->force, "replace an existing folder");
  add_vqgraph(*verb.app, verb.common, shared, *methods);
  verb.run = [shared, methods] {
    std::vector<std::string> names;
    for (const auto& [name, run] : *methods) {
      if (name == shared->method) return run();
      names.push_back(name);
    }
    throw OptionError(unknown_name_message("method", shared->method, names));
  };
  return verb;
}

}  // namespace lighten
