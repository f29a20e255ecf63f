// lighten train: systems that train something on a user's own data.
#include "lighten/apps/lighten/train.h"

#include "lighten/apps/lighten/task.h"

namespace lighten {

namespace {

/// `lighten train classify --method llp-bp`: the same as `lighten train bags`.
void add_classify_bags(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* app = train.add_subcommand("classify", "learns a classifier from counts in bags");
  app->fallthrough();
  struct Arguments {
    BagOptions bags;
    std::string method, output;
    bool force = false;
  };
  auto arguments = std::make_shared<Arguments>();
  app->add_option("--method", arguments->method, "llp-bp");
  add_bag_options(*app, arguments->bags);
  app->add_option("-o,--output", arguments->output, "folder for the model; with --apply the CSV of labels")
      ->required()
      ->type_name("DIR");
  app->add_flag("--force", arguments->force, "replace an existing folder");
  actions.emplace_back(app, [app, arguments, common] {
    need_one_process("--method llp-bp");
    return run_bags(*app, *common, arguments->method, arguments->bags, arguments->output, arguments->force);
  });
}

}  // namespace

Verb train_verb(CLI::App& root, int argc, char** argv) {
  Verb verb = make_verb(root, "train", "trains on your own data: classify, graph, bags, match, federate",
                        "  lighten train classify --method nested-coteaching --data pictures/ --labels noisy.csv -o nets/\n"
                        "  lighten train classify --apply nets/ --data new/ -o labels.csv        what was trained, later\n"
                        "  lighten train graph --method erase --edges e.tsv --features f.npy --labels l.csv -o out/\n"
                        "  lighten train bags --method llp-bp --features f.npy --bags bags.csv --members members.csv -o out/\n"
                        "  lighten train match --method dexml --texts x.txt --label-texts y.txt --pairs xy.csv -o out/\n"
                        "  lighten train federate --clients hospitals/ -o out/\n");
  auto actions = std::make_shared<VerbActions>();
  verb.app->require_subcommand(1, 1);
  if (peek_argument(argc, argv, "method") == "llp-bp")
    add_classify_bags(*verb.app, verb.common, *actions);
  else
    add_task(*verb.app, verb.common, *actions, "train", "classify", "classifies pictures: ce, nested-coteaching", argc, argv);
  add_train_graph(*verb.app, verb.common, *actions);
  add_train_bags(*verb.app, verb.common, *actions);
  add_train_match(*verb.app, verb.common, *actions);
  add_train_federate(*verb.app, verb.common, *actions);
  verb.run = [actions] {
    for (const auto& [app, run] : *actions)
      if (const std::string& name = app->get_name(); app->parsed() && name != "federate" && name != "classify")
        need_one_process("lighten train " + name);
    return run_action(*actions);
  };
  return verb;
}

}  // namespace lighten
