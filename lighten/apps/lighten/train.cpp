// lighten train: systems that train something on a user's own data.
#include "lighten/apps/lighten/train.h"

namespace lighten {

Verb train_verb(CLI::App& root) {
  Verb verb = make_verb(root, "train", "trains on your own data: graph, bags, match",
                        "  lighten train graph --method erase --edges e.tsv --features f.npy --labels l.csv -o out/\n"
                        "  lighten train bags --method llp-bp --features f.npy --bags bags.csv --members members.csv -o out/\n"
                        "  lighten train match --method dexml --texts x.txt --label-texts y.txt --pairs xy.csv -o out/\n");
  auto actions = std::make_shared<VerbActions>();
  verb.app->require_subcommand(1, 1);
  add_train_graph(*verb.app, verb.common, *actions);
  add_train_bags(*verb.app, verb.common, *actions);
  add_train_match(*verb.app, verb.common, *actions);
  verb.run = [actions] { return run_action(*actions); };
  return verb;
}

}  // namespace lighten
