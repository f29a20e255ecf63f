#include "lighten/systems/labels/lp_icp/lp_icp.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

constexpr int kSteps = 4096;  // of the counting

Alpha cost(double difference, double power) {
  return std::llround((power == 1 ? difference : std::pow(difference, power)) / kAlphaUnit);
}

/// One sample's point set and what it costs to leave it.
struct Flips {
  Alpha base = 0;               ///< alpha of the point set
  std::vector<int32_t> labels;  ///< by cost, ascending
  std::vector<Alpha> costs;     ///< of flipping each of them, >= 0
};

Flips flips_of(std::span<const float> scores, double power) {
  Flips flips;
  std::vector<std::pair<Alpha, int32_t>> order;
  for (size_t j = 0; j < scores.size(); ++j) {
    const Alpha absent = cost(scores[j], power), present = cost(1 - static_cast<double>(scores[j]), power);
    // A score of exactly one half counts as present; both then cost the same.
    const bool in = scores[j] >= 0.5F;
    flips.base += in ? present : absent;
    order.emplace_back(in ? absent - present : present - absent, static_cast<int32_t>(j));
  }
  std::sort(order.begin(), order.end());
  for (const auto& [d, label] : order) {
    flips.costs.push_back(std::max<Alpha>(d, 0));
    flips.labels.push_back(label);
  }
  return flips;
}

std::vector<int32_t> flipped(const std::vector<int32_t>& point, std::vector<int32_t> flips) {
  std::sort(flips.begin(), flips.end());
  std::vector<int32_t> result;
  std::set_symmetric_difference(point.begin(), point.end(), flips.begin(), flips.end(), std::back_inserter(result));
  return result;
}

/// Lists subsets of flips in order of their sums while these are at most `limit`, and at most `most` of them.
void enumerate(const Flips& flips, Alpha limit, const LpIcpCalibration& calibration, int64_t most,
               LpIcpPrediction& prediction) {
  struct Node {
    int64_t parent;  ///< the subset that this one extends, -1: none
    int32_t last;    ///< place of its last flip
  };
  using Entry = std::pair<Alpha, int64_t>;  // sum, node; equal sums in order of discovery
  std::vector<Node> nodes;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  const auto push = [&](Alpha sum, int64_t parent, size_t last) {
    if (last >= flips.costs.size() || sum > limit) return;
    nodes.push_back({parent, static_cast<int32_t>(last)});
    queue.emplace(sum, static_cast<int64_t>(nodes.size()) - 1);
  };
  const auto list = [&](Alpha sum, int64_t node) {
    std::vector<int32_t> chosen;
    for (int64_t at = node; at >= 0; at = nodes[static_cast<size_t>(at)].parent)
      chosen.push_back(flips.labels[static_cast<size_t>(nodes[static_cast<size_t>(at)].last)]);
    prediction.sets.push_back({flipped(prediction.point, std::move(chosen)), calibration.p_value(flips.base + sum)});
  };
  list(0, -1);
  if (!flips.costs.empty()) push(flips.costs[0], -1, 0);
  while (!queue.empty() && std::ssize(prediction.sets) < most) {
    const auto [sum, node] = queue.top();
    queue.pop();
    list(sum, node);
    const auto [parent, last] = nodes[static_cast<size_t>(node)];
    const auto next = static_cast<size_t>(last) + 1;
    if (next >= flips.costs.size()) continue;
    push(sum + flips.costs[next], node, next);
    push(sum - flips.costs[static_cast<size_t>(last)] + flips.costs[next], parent, next);
  }
  prediction.complete = queue.empty();
  prediction.visited = static_cast<int64_t>(nodes.size()) + 1;
}

}  // namespace

OptionList describe(LpIcpOptions& options) {
  return {
      option("eps", options.eps, range(0.0001, 0.9999), "the true label set may be missed with at most this probability",
             "Lighten"),
      option("power", options.power, range(0.1, 16), "s of the nonconformity score sum |t - o|^s", "the paper's first measure"),
      option("max-sets", options.max_sets, range(1, 10'000'000),
             "list at most so many sets of a sample, the most plausible first", "Lighten"),
  };
}

double LpIcpCalibration::p_value(Alpha alpha) const {
  const auto at_least = scores.end() - std::lower_bound(scores.begin(), scores.end(), alpha);
  return static_cast<double>(at_least + 1) / static_cast<double>(scores.size() + 1);
}

Alpha LpIcpCalibration::threshold(double eps) const {
  // p > eps exactly if at least n0 scores are >= alpha. The small addition keeps 0.29 * 100 at 29.
  const auto n0 = static_cast<int64_t>(std::floor(eps * static_cast<double>(scores.size() + 1) + 1e-9));
  if (n0 < 1)
    throw_error<OptionError>(
        "{} calibration samples exclude nothing at eps = {}: at least {:.0f} are needed (1 / eps - 1). Calibrate on more "
        "samples "
        "or ask for a larger eps",
        scores.size(), eps, std::ceil(1 / eps - 1 - 1e-9));
  return scores[scores.size() - static_cast<size_t>(std::min<int64_t>(n0, std::ssize(scores)))];
}

Json to_json(const LpIcpCalibration& calibration) {
  Json json = {
      {"format", "lighten lp-icp 1"}, {"labels", calibration.labels}, {"power", calibration.power}, {"unit", kAlphaUnit}};
  if (!calibration.names.empty()) json["names"] = calibration.names;
  if (calibration.logits) json["logits"] = *calibration.logits;
  json["scores"] = calibration.scores;
  return json;
}

LpIcpCalibration calibration_from_json(const Json& json, const std::string& where) {
  const formats::Fields fields(json, where);
  if (fields.text("format", "") != "lighten lp-icp 1")
    throw_error<FormatError>("{}: is no calibration that `lighten label certify calibrate` wrote", where);
  LpIcpCalibration calibration{fields.integer("labels"), fields.number("power"), fields.integers("scores"),
                               fields.texts("names")};
  if (fields.has("logits")) calibration.logits = fields.boolean("logits", false);
  if (!calibration.names.empty() && std::ssize(calibration.names) != calibration.labels)
    throw_error<FormatError>("{}: field \"names\" holds {} names for {} labels; calibrate again", where,
                             calibration.names.size(), calibration.labels);
  if (calibration.labels < 1 || calibration.scores.empty() ||
      !std::is_sorted(calibration.scores.begin(), calibration.scores.end()))
    throw_error<FormatError>("{}: field \"scores\" or \"labels\" is damaged; calibrate again", where);
  return calibration;
}

void check_scores(std::span<const float> scores, int64_t columns, const std::string& name) {
  for (size_t i = 0; i < scores.size(); ++i)
    if (!(scores[i] >= 0 && scores[i] <= 1))
      throw_error<OptionError>("{}: row {}, column {}: {} is no probability between 0 and 1 (for logits there is --logits)",
                               name, i / static_cast<size_t>(columns), i % static_cast<size_t>(columns), scores[i]);
}

Alpha nonconformity(std::span<const float> scores, std::span<const uint8_t> labels, double power) {
  Alpha alpha = 0;
  for (size_t j = 0; j < scores.size(); ++j)
    alpha += cost(labels[j] ? 1 - static_cast<double>(scores[j]) : static_cast<double>(scores[j]), power);
  return alpha;
}

LpIcpCalibration lp_icp_calibrate(std::span<const float> scores, std::span<const uint8_t> labels, int64_t columns,
                                  double power) {
  const auto width = static_cast<size_t>(columns);
  if (columns < 1 || scores.size() != labels.size() || scores.empty() || scores.size() % width != 0)
    throw_error<OptionError>("calibration: {} scores and {} labels are not the same rows of {} labels", scores.size(),
                             labels.size(), columns);
  check_scores(scores, columns, "calibration scores");
  LpIcpCalibration calibration{columns, power, {}};
  for (size_t row = 0; row < scores.size(); row += width)
    calibration.scores.push_back(nonconformity(scores.subspan(row, width), labels.subspan(row, width), power));
  std::sort(calibration.scores.begin(), calibration.scores.end());
  return calibration;
}

LpIcpPrediction lp_icp_predict(const LpIcpCalibration& calibration, std::span<const float> scores,
                               const LpIcpOptions& options) {
  if (std::ssize(scores) != calibration.labels)
    throw_error<OptionError>("{} scores for a calibration of {} labels", scores.size(), calibration.labels);
  const Flips flips = flips_of(scores, calibration.power);
  const Alpha limit = calibration.threshold(options.eps) - flips.base;
  LpIcpPrediction prediction;
  for (size_t j = 0; j < scores.size(); ++j)
    if (scores[j] >= 0.5F) prediction.point.push_back(static_cast<int32_t>(j));
  prediction.credibility = calibration.p_value(flips.base);
  prediction.confidence = 1 - calibration.p_value(flips.base + flips.costs[0]);
  if (limit < 0) return prediction;  // even the point set is implausible: Gamma is empty
  enumerate(flips, limit, calibration, options.max_sets, prediction);
  // A label can differ from the point set exactly if its flip alone is affordable.
  const auto affordable =
      static_cast<size_t>(std::upper_bound(flips.costs.begin(), flips.costs.end(), limit) - flips.costs.begin());
  prediction.undecided.assign(flips.labels.begin(), flips.labels.begin() + static_cast<std::ptrdiff_t>(affordable));
  std::sort(prediction.undecided.begin(), prediction.undecided.end());
  std::set_difference(prediction.point.begin(), prediction.point.end(), prediction.undecided.begin(),
                      prediction.undecided.end(), std::back_inserter(prediction.always));
  prediction.count_low = prediction.count_high = static_cast<double>(prediction.sets.size());
  if (!prediction.complete) {
    const auto [low, high] = count_subsets({flips.costs.data(), affordable}, limit);
    prediction.count_low = std::max(prediction.count_low, low);
    prediction.count_high = high;
  }
  return prediction;
}

bool lp_icp_contains(const LpIcpCalibration& calibration, std::span<const float> scores, std::span<const uint8_t> labels,
                     double eps) {
  return nonconformity(scores, labels, calibration.power) <= calibration.threshold(eps);
}

std::pair<double, double> count_subsets(std::span<const Alpha> costs, Alpha limit) {
  if (limit < 0) return {0, 0};
  const double step = std::max(1.0, static_cast<double>(limit) / kSteps);
  const auto count = [&](bool up) {
    // ways[s]: subsets whose rounded costs add up to s. Costs rounded up fit into floor(limit): too few subsets are counted;
    // rounded down: too many.
    const auto last = static_cast<size_t>(static_cast<double>(limit) / step);
    std::vector<double> ways(last + 1, 0);
    ways[0] = 1;
    for (const Alpha c : costs) {
      const double steps = static_cast<double>(c) / step;
      const auto width = static_cast<size_t>(up ? std::ceil(steps) : std::floor(steps));
      if (width > last) continue;
      for (size_t s = last + 1; s-- > width;) ways[s] += ways[s - width];
    }
    return std::accumulate(ways.begin(), ways.end(), 0.0);
  };
  return {count(true), count(false)};
}

}  // namespace lighten
