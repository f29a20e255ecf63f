// The subcommands of `lighten train`, one file each.
#pragma once
#include <functional>
#include <utility>
#include <vector>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/systems/labels/llp_bp/llp_bp.h"

namespace lighten {

/// `lighten train graph --method erase`.
void add_train_graph(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);

/// `lighten train bags --method llp-bp`, and what `lighten train classify --method llp-bp` shares with it.
void add_train_bags(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);
struct BagOptions {
  std::string features, bags, members, labelled;
  double validation = 0.15;
  LlpBpOptions method;
};
void add_bag_options(CLI::App& app, BagOptions& options);
int train_bags(const Common& common, const std::string& method, BagOptions& options, const std::string& output_folder,
               bool force);

/// `lighten train federate --method fedlabel`.
void add_train_federate(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);

/// `lighten train match --method dexml`.
void add_train_match(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions);

}  // namespace lighten
