// lighten label: work on labels that are there.
#include "lighten/apps/lighten/label.h"

#include "lighten/apps/lighten/task.h"

namespace lighten {

Verb label_verb(CLI::App& root, int argc, char** argv) {
  Verb verb =
      make_verb(root, "label", "lists labels that are probably wrong; certifies the answers of any multi-label classifier",
                "  lighten label clean --data pictures/ --labels noisy.csv -o suspects.csv\n"
                "  lighten label certify calibrate --scores cal.npy --labels cal.csv -o cal.json\n"
                "  lighten label certify predict --scores test.npy --calibration cal.json --eps 0.1 -o sets.jsonl\n");
  auto actions = std::make_shared<VerbActions>();
  verb.app->require_subcommand(1, 1);
  add_task(*verb.app, verb.common, *actions, "label", "clean", "lists the labels that are probably wrong", argc, argv);
  add_certify(*verb.app, verb.common, *actions);
  verb.run = [actions] { return run_action(*actions); };
  return verb;
}

}  // namespace lighten
