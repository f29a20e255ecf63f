// The methods of `lighten distill`, one file each.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lighten/apps/lighten/verbs.h"

namespace lighten {

/// A method's name and what `lighten distill --method NAME` does; its flags are in a group of their own.
using DistillMethods = std::vector<std::pair<std::string, std::function<int()>>>;

/// What all methods take.
struct DistillOptions {
  std::string method, output;
  bool force = false;
};

/// A graph network into a perceptron on features.
void add_vqgraph(CLI::App& app, const std::shared_ptr<Common>& common, const std::shared_ptr<DistillOptions>& shared,
                 DistillMethods& methods);

}  // namespace lighten
