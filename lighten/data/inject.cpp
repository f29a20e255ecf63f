#include "lighten/data/inject.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {

namespace {

void check_labels(const char* injector, const std::vector<int32_t>& labels, int32_t classes, int32_t least_classes) {
  if (classes < least_classes)
    throw_error<OptionError>("{}: needs at least {} classes, not {}", injector, least_classes, classes);
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < 0 || labels[i] >= classes)
      throw_error<FormatError>("{}: sample {} has label {}, which is none of the {} classes", injector, i, labels[i], classes);
}

void check_share(const char* injector, const char* name, double value, bool one_allowed) {
  if (!(value >= 0) || !(value <= 1) || (value == 1 && !one_allowed))
    throw_error<OptionError>("{}: {} {} must be at least 0 and {} 1", injector, name, value, one_allowed ? "at most" : "below");
}

/// Counts what happened; hidden labels (-1) count as changed and stand in no column.
InjectionAudit audit_of(std::string kind, Json asked, const std::vector<int32_t>& clean, const std::vector<int32_t>& noisy,
                        int32_t classes) {
  InjectionAudit audit{.kind = std::move(kind), .asked = std::move(asked), .items = static_cast<int64_t>(clean.size())};
  audit.transitions.assign(classes, std::vector<int64_t>(classes, 0));
  for (size_t i = 0; i < clean.size(); ++i) {
    audit.changed += clean[i] != noisy[i] ? 1 : 0;
    if (noisy[i] >= 0) ++audit.transitions[clean[i]][noisy[i]];
  }
  return audit;
}

double draw_normal_gamma(double shape, Random& random) {  // Marsaglia and Tsang, shape >= 1
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = random.normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(1 - random.uniform()) < x * x / 2 + d - d * v + d * std::log(v)) return d * v;
  }
}

/// Cuts `items` by `shares`: client c gets what lies between the rounded cumulative shares.
void deal(const std::vector<int64_t>& items, const std::vector<double>& shares, std::vector<std::vector<int64_t>>& members) {
  double sum = 0;
  size_t from = 0;
  for (size_t c = 0; c < shares.size(); ++c) {
    sum += shares[c];
    const bool last = c + 1 == shares.size();
    const size_t to =
        last ? items.size() : static_cast<size_t>(std::llround(std::min(sum, 1.0) * static_cast<double>(items.size())));
    members[c].insert(members[c].end(), items.begin() + static_cast<int64_t>(from), items.begin() + static_cast<int64_t>(to));
    from = to;
  }
}

void count_clients(Clients& clients, int32_t classes) {
  clients.audit.transitions.assign(classes, std::vector<int64_t>(clients.members.size(), 0));
  for (size_t c = 0; c < clients.members.size(); ++c) {
    std::sort(clients.members[c].begin(), clients.members[c].end());
    for (const int64_t i : clients.members[c]) ++clients.audit.transitions[clients.labels[i]][c];
  }
}

}  // namespace

Json to_json(const InjectionAudit& audit) {
  Json json = {
      {"kind", audit.kind}, {"asked", audit.asked}, {"items", audit.items}, {"changed", audit.changed}, {"rate", audit.rate()}};
  if (!audit.transitions.empty()) json["transitions"] = audit.transitions;
  return json;
}

NoisyLabels symmetric_flip(const std::vector<int32_t>& labels, int32_t classes, double rate, uint64_t seed) {
  check_labels("symmetric_flip", labels, classes, 2);
  check_share("symmetric_flip", "rate", rate, false);
  Random random(seed);
  NoisyLabels result{.noisy = labels, .clean = labels, .audit = {}};
  for (int32_t& label : result.noisy) {
    if (random.uniform() >= rate) continue;
    const int32_t other = static_cast<int32_t>(random.below(classes - 1));
    label = other >= label ? other + 1 : other;
  }
  result.audit = audit_of("symmetric", {{"rate", rate}, {"seed", seed}}, labels, result.noisy, classes);
  return result;
}

NoisyLabels asymmetric_flip(const std::vector<int32_t>& labels, int32_t classes, double rate, uint64_t seed,
                            std::vector<int32_t> target) {
  check_labels("asymmetric_flip", labels, classes, 2);
  check_share("asymmetric_flip", "rate", rate, false);
  Random random(seed);
  if (target.empty()) {
    for (int32_t c = 0; c < classes; ++c) {
      const int32_t other = static_cast<int32_t>(random.below(classes - 1));
      target.push_back(other >= c ? other + 1 : other);
    }
  } else {
    if (target.size() != static_cast<size_t>(classes))
      throw_error<OptionError>("asymmetric_flip: {} targets for {} classes", target.size(), classes);
    check_labels("asymmetric_flip: target", target, classes, 2);
  }
  NoisyLabels result{.noisy = labels, .clean = labels, .audit = {}};
  for (int32_t& label : result.noisy)
    if (random.uniform() < rate) label = target[label];
  result.audit = audit_of("asymmetric", {{"rate", rate}, {"seed", seed}, {"target", target}}, labels, result.noisy, classes);
  return result;
}

DroppedLabels positive_drop(const std::vector<std::vector<int32_t>>& labels, double keep, uint64_t seed, bool at_least_one) {
  check_share("positive_drop", "keep", keep, true);
  Random random(seed);
  DroppedLabels result{.noisy = {}, .clean = labels, .audit = {}};
  result.audit = {.kind = "positive-drop", .asked = {{"keep", keep}, {"at-least-one", at_least_one}, {"seed", seed}}};
  result.noisy.reserve(labels.size());
  for (const std::vector<int32_t>& all : labels) {
    std::vector<int32_t> kept;
    for (const int32_t label : all)
      if (random.uniform() < keep) kept.push_back(label);
    if (kept.empty() && at_least_one && !all.empty()) kept.push_back(all[random.below(all.size())]);
    result.audit.items += static_cast<int64_t>(all.size());
    result.audit.changed += static_cast<int64_t>(all.size() - kept.size());
    result.noisy.push_back(std::move(kept));
  }
  return result;
}

Bags make_bags(const std::vector<int32_t>& labels, int32_t classes, int64_t bag_size, uint64_t seed) {
  check_labels("make_bags", labels, classes, 1);
  const int64_t n = static_cast<int64_t>(labels.size());
  if (bag_size < 1 || bag_size > n) throw_error<OptionError>("make_bags: bags of {} from {} samples", bag_size, n);
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  random.shuffle(order);
  Bags bags{.bag_of = std::vector<int32_t>(n), .members = {}, .counts = {}, .clean = labels, .audit = {}};
  const int64_t number = (n + bag_size - 1) / bag_size;
  bags.members.resize(number);
  bags.counts.assign(number, std::vector<int64_t>(classes, 0));
  for (int64_t place = 0; place < n; ++place) {
    const int64_t bag = place / bag_size, sample = order[place];
    bags.bag_of[sample] = static_cast<int32_t>(bag);
    bags.members[bag].push_back(sample);
    ++bags.counts[bag][labels[sample]];
  }
  for (std::vector<int64_t>& members : bags.members) std::sort(members.begin(), members.end());
  bags.audit = {.kind = "bags", .asked = {{"bag-size", bag_size}, {"bags", number}, {"seed", seed}}, .items = n, .changed = n};
  return bags;
}

std::vector<double> draw_dirichlet(int64_t n, double alpha, Random& random) {
  if (n < 1 || !(alpha > 0)) throw_error<OptionError>("draw_dirichlet: {} parts, alpha {}", n, alpha);
  // Gamma(alpha) = Gamma(alpha + 1) U^(1 / alpha), as logarithms.
  std::vector<double> logs(n);
  for (double& value : logs) {
    value = std::log(draw_normal_gamma(alpha + 1, random));
    value += std::log(1 - random.uniform()) / alpha;
  }
  const double top = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (double& value : logs) sum += value = std::exp(value - top);
  for (double& value : logs) value /= sum;
  return logs;
}

Clients dirichlet_clients(const std::vector<int32_t>& labels, int32_t classes, int64_t clients, double alpha, uint64_t seed,
                          int64_t least) {
  check_labels("dirichlet_clients", labels, classes, 1);
  const int64_t n = static_cast<int64_t>(labels.size());
  if (clients < 1 || least < 0 || clients * std::max<int64_t>(least, 1) > n)
    throw_error<OptionError>("dirichlet_clients: {} samples cannot give {} clients {} each", n, clients, least);
  if (!(alpha > 0)) throw_error<OptionError>("dirichlet_clients: alpha {} must be above 0", alpha);
  std::vector<std::vector<int64_t>> by_class(classes);
  for (int64_t i = 0; i < n; ++i) by_class[labels[i]].push_back(i);
  Random random(seed);
  Clients result{.members = {}, .labels = labels, .audit = {}};
  for (int attempt = 0; attempt < 1000; ++attempt) {
    result.members.assign(clients, {});
    for (std::vector<int64_t>& items : by_class) {
      random.shuffle(items);
      deal(items, draw_dirichlet(clients, alpha, random), result.members);
    }
    const auto fewest = std::min_element(result.members.begin(), result.members.end(),
                                         [](const auto& a, const auto& b) { return a.size() < b.size(); });
    if (static_cast<int64_t>(fewest->size()) < least) continue;
    result.audit = {
        .kind = "dirichlet",
        .asked = {{"clients", clients}, {"alpha", alpha}, {"least", least}, {"seed", seed}, {"attempts", attempt + 1}},
        .items = n};
    count_clients(result, classes);
    return result;
  }
  throw_error<OptionError>(
      "dirichlet_clients: in 1,000 draws with alpha {} some of the {} clients always had fewer than {} samples; take a larger "
      "alpha or fewer clients",
      alpha, clients, least);
}

Clients natural_clients(const std::vector<int32_t>& labels, int32_t classes, const std::vector<std::string>& keys,
                        int64_t least, int64_t clients) {
  check_labels("natural_clients", labels, classes, 1);
  if (keys.size() != labels.size())
    throw_error<OptionError>("natural_clients: {} keys for {} samples", keys.size(), labels.size());
  std::map<std::string_view, std::vector<int64_t>> by_key;
  for (size_t i = 0; i < keys.size(); ++i) by_key[keys[i]].push_back(static_cast<int64_t>(i));
  Clients result{.members = {}, .labels = labels, .audit = {}};
  for (auto& [key, items] : by_key)
    if (static_cast<int64_t>(items.size()) >= least) result.members.push_back(std::move(items));
  if (result.members.empty())
    throw_error<OptionError>("natural_clients: no key has {} samples; take a smaller least number", least);
  std::stable_sort(result.members.begin(), result.members.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  if (clients > 0 && static_cast<int64_t>(result.members.size()) > clients) result.members.resize(clients);
  result.audit = {
      .kind = "natural", .asked = {{"least", least}, {"clients", clients}}, .items = static_cast<int64_t>(labels.size())};
  int64_t dealt = 0;
  for (const auto& members : result.members) dealt += static_cast<int64_t>(members.size());
  result.audit.changed = result.audit.items - dealt;
  count_clients(result, classes);
  return result;
}

NoisyLabels n_shot(const std::vector<int32_t>& labels, int32_t classes, int64_t shots, uint64_t seed) {
  check_labels("n_shot", labels, classes, 1);
  if (shots < 1) throw_error<OptionError>("n_shot: {} shots; at least 1", shots);
  std::vector<std::vector<int64_t>> by_class(classes);
  for (size_t i = 0; i < labels.size(); ++i) by_class[labels[i]].push_back(static_cast<int64_t>(i));
  Random random(seed);
  NoisyLabels result{.noisy = std::vector<int32_t>(labels.size(), -1), .clean = labels, .audit = {}};
  for (int32_t c = 0; c < classes; ++c) {
    std::vector<int64_t>& items = by_class[c];
    if (static_cast<int64_t>(items.size()) < shots)
      throw_error<OptionError>("n_shot: class {} has {} samples, fewer than the {} asked for", c, items.size(), shots);
    random.shuffle(items);
    for (int64_t i = 0; i < shots; ++i) result.noisy[items[i]] = c;
  }
  result.audit = audit_of("n-shot", {{"shots", shots}, {"seed", seed}}, labels, result.noisy, classes);
  return result;
}

}  // namespace lighten
