// Injectors: make labels noisy, partial, proportional or distributed in a controlled way. Each returns what a method may see,
// the clean labels that it must not see, and an audit record of what was done.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/json.h"

namespace lighten {

/// What an injector did, counted from the labels themselves and not from what was asked for.
struct InjectionAudit {
  std::string kind;  ///< "symmetric", "asymmetric", "positive-drop", "bags", "dirichlet", "natural", "n-shot"
  Json asked;        ///< the parameters, seed included
  int64_t items = 0;
  int64_t changed = 0;  ///< items whose label differs from the clean one, or is hidden
  /// [clean class][given class]: counts. Empty for the kinds that change no label.
  std::vector<std::vector<int64_t>> transitions = {};
  double rate() const { return items == 0 ? 0 : static_cast<double>(changed) / static_cast<double>(items); }
};
Json to_json(const InjectionAudit& audit);

/// Labels of single-label samples before and after.
struct NoisyLabels {
  std::vector<int32_t> noisy, clean;
  InjectionAudit audit;
};

/// Each label is replaced with probability `rate` by one of the other classes, all equally likely: P(noisy = j | clean = i) =
/// rate / (C - 1) for j != i. Throws OptionError unless 0 <= rate < 1 and C >= 2; FormatError for a label outside [0, C).
NoisyLabels symmetric_flip(const std::vector<int32_t>& labels, int32_t classes, double rate, uint64_t seed);

/// Each label i is replaced with probability `rate` by target[i]. An empty `target` draws one class per class, never itself; a
/// given one may leave a class alone (target[i] = i).
NoisyLabels asymmetric_flip(const std::vector<int32_t>& labels, int32_t classes, double rate, uint64_t seed,
                            std::vector<int32_t> target = {});

/// Sets of labels before and after.
struct DroppedLabels {
  std::vector<std::vector<int32_t>> noisy, clean;
  InjectionAudit audit;  ///< items: positives; changed: dropped positives
};
/// Every positive label is kept with probability `keep`, each for itself; `at_least_one` gives a sample that lost all of them
/// one back (drawn). Throws OptionError unless 0 <= keep <= 1.
DroppedLabels positive_drop(const std::vector<std::vector<int32_t>>& labels, double keep, uint64_t seed,
                            bool at_least_one = false);

/// Disjoint bags of samples of which only class counts are told.
struct Bags {
  std::vector<int32_t> bag_of;                ///< [n]
  std::vector<std::vector<int64_t>> members;  ///< [bags]: samples, ascending
  std::vector<std::vector<int64_t>> counts;   ///< [bags][classes]
  std::vector<int32_t> clean;                 ///< [n]
  InjectionAudit audit;
};
/// A random partition into bags of `bag_size`; the last one is smaller when that does not divide n. Throws OptionError for a
/// bag size below 1 or above n.
Bags make_bags(const std::vector<int32_t>& labels, int32_t classes, int64_t bag_size, uint64_t seed);

/// Samples dealt to clients.
struct Clients {
  std::vector<std::vector<int64_t>> members;  ///< [clients]: samples, ascending; every sample has one client
  std::vector<int32_t> labels;
  InjectionAudit audit;  ///< transitions: [class][client]
};
/// For each class the shares of the clients are drawn from a symmetric Dirichlet(alpha): small alpha gives each client few
/// classes, alpha to infinity gives all the same mixture. Drawn anew (up to 1,000 times) until every client has at least
/// `least` samples; throws OptionError if that never happens, or for fewer samples than clients * least.
Clients dirichlet_clients(const std::vector<int32_t>& labels, int32_t classes, int64_t clients, double alpha, uint64_t seed,
                          int64_t least = 1);
/// One client per key (maintainer, author), those with fewer than `least` samples left out; the largest first, at most
/// `clients` of them (0: all). Samples without a client are in no member list.
Clients natural_clients(const std::vector<int32_t>& labels, int32_t classes, const std::vector<std::string>& keys,
                        int64_t least, int64_t clients = 0);

/// Labels of which only some are shown; noisy = -1 where hidden.
/// `shots` samples per class are drawn and keep their label. Throws OptionError, naming the class, if one has fewer.
NoisyLabels n_shot(const std::vector<int32_t>& labels, int32_t classes, int64_t shots, uint64_t seed);

/// Shares drawn from a symmetric Dirichlet(alpha) of `n` parts, computed in logarithms so that small alpha does not underflow.
std::vector<double> draw_dirichlet(int64_t n, double alpha, class Random& random);

}  // namespace lighten
