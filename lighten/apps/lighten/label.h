// The subcommands of `lighten label`, one file each.
#pragma once
#include <functional>
#include <utility>
#include <vector>

#include "lighten/apps/lighten/verbs.h"

namespace lighten {

/// `lighten label certify calibrate|predict` (lp-icp).
void add_certify(CLI::App& label, const std::shared_ptr<Common>& common, VerbActions& actions);

}  // namespace lighten
