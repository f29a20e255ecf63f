// The subcommands of `lighten train`, one file each.
#pragma once
#include <functional>
#include <utility>
#include <vector>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/systems/labels/llp_bp/llp_bp.h"
#include "lighten/train/loop.h"

namespace lighten {

/// OUTPUT.work, where a verb's trainings stand until the output is complete, so that the same command goes on after a stop.
/// They must agree on the options and on the contents of the input files, by flag; empty names are left out.
TrainPlace work_place(const std::string& output, const OptionList& options,
                      const std::vector<std::pair<std::string, std::string>>& inputs);
/// Removes it; never throws.
void remove_work(const TrainPlace& place);

/// `lighten train graph --method erase`.
void add_train_graph(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);

/// `lighten train bags --method llp-bp`, and what `lighten train classify --method llp-bp` shares with it.
void add_train_bags(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);
struct BagOptions {
  std::string features, bags, members, labelled, apply;
  double validation = 0.15;
  LlpBpOptions method;
};
void add_bag_options(CLI::App& app, BagOptions& options);
/// With --apply: what was trained labels the instances of --features.
int run_bags(const CLI::App& app, const Common& common, const std::string& method, BagOptions& options,
             const std::string& output, bool force);

/// `lighten train federate --method fedlabel`.
void add_train_federate(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);

/// `lighten train match --method dexml`.
void add_train_match(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);

}  // namespace lighten
