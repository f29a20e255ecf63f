#include "lighten/systems/labels/llp_bp/belief_propagation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/threads.h"

namespace lighten {
namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kImpossible ? a : a + std::log1p(std::exp(b - a));
}

double log_sum(std::span<const double> values) {
  const double highest = *std::max_element(values.begin(), values.end());
  if (highest == kImpossible) return kImpossible;
  double sum = 0;
  for (const double value : values) sum += std::exp(value - highest);
  return highest + std::log(sum);
}

void check(const BagModel& model) {
  const auto outside = [&](int64_t i) { return i < 0 || i >= model.n; };
  if (model.weights.size() != model.edges.size() || model.counts.size() != model.bags.size() ||
      (!model.bias.empty() && std::ssize(model.bias) != model.n))
    throw OptionError("bag model: weights, counts or biases are not as many as edges, bags or nodes");
  for (const auto& [i, j] : model.edges)
    if (outside(i) || outside(j) || i >= j)
      throw_error<OptionError>("bag model: an edge between nodes {} and {} of {}", i, j, model.n);
  std::vector<int64_t> bag_of(static_cast<size_t>(model.n), -1);
  for (size_t b = 0; b < model.bags.size(); ++b) {
    if (model.counts[b] < 0 || model.counts[b] > std::ssize(model.bags[b]))
      throw_error<OptionError>("bag {}: {} positives among {} members", b, model.counts[b], model.bags[b].size());
    for (const int64_t i : model.bags[b]) {
      if (outside(i)) throw_error<OptionError>("bag {}: member {} of {}", b, i, model.n);
      if (bag_of[static_cast<size_t>(i)] >= 0)
        throw_error<OptionError>("node {} is in the bags {} and {}; bags must be disjoint", i, bag_of[static_cast<size_t>(i)],
                                 b);
      bag_of[static_cast<size_t>(i)] = static_cast<int64_t>(b);
    }
  }
}

/// Directed pair messages, by receiver: entries [begin[i], begin[i + 1]) arrive at node i.
struct PairMessages {
  std::vector<int64_t> begin;
  std::vector<int32_t> sender;
  std::vector<double> potential;  ///< W
  std::vector<int64_t> reverse;   ///< the entry of the opposite message
  std::vector<double> value;
};

PairMessages pair_messages(int64_t n, const std::vector<std::pair<int32_t, int32_t>>& pairs,
                           const std::vector<double>& potential) {
  PairMessages messages;
  messages.begin.assign(static_cast<size_t>(n) + 1, 0);
  for (const auto& [i, j] : pairs) {
    ++messages.begin[static_cast<size_t>(i) + 1];
    ++messages.begin[static_cast<size_t>(j) + 1];
  }
  for (size_t i = 1; i < messages.begin.size(); ++i) messages.begin[i] += messages.begin[i - 1];
  const auto entries = static_cast<size_t>(messages.begin.back());
  messages.sender.resize(entries);
  messages.potential.resize(entries);
  messages.reverse.resize(entries);
  messages.value.assign(entries, 0);
  std::vector<int64_t> place = messages.begin;
  for (size_t k = 0; k < pairs.size(); ++k) {
    const auto [i, j] = pairs[k];
    const int64_t at_i = place[static_cast<size_t>(i)]++, at_j = place[static_cast<size_t>(j)]++;
    messages.sender[static_cast<size_t>(at_i)] = j;
    messages.sender[static_cast<size_t>(at_j)] = i;
    messages.potential[static_cast<size_t>(at_i)] = messages.potential[static_cast<size_t>(at_j)] = potential[k];
    messages.reverse[static_cast<size_t>(at_i)] = at_j;
    messages.reverse[static_cast<size_t>(at_j)] = at_i;
  }
  return messages;
}

}  // namespace

std::vector<double> cardinality_messages(std::span<const double> log_odds, int64_t count, double lambda) {
  const size_t n = log_odds.size();
  // forward[i][c]: log P(c ones among the first i); backward likewise holds, for c ones so far, the log of what members i.. and
  // the count say. Row i of both has n + 1 places.
  const size_t width = n + 1;
  std::vector<double> forward((n + 1) * width, kImpossible), backward((n + 1) * width, kImpossible);
  std::vector<double> yes(n), no(n);
  for (size_t i = 0; i < n; ++i) {
    yes[i] = -softplus(-log_odds[i]);
    no[i] = -softplus(log_odds[i]);
  }
  forward[0] = 0;
  for (size_t i = 0; i < n; ++i)
    for (size_t c = 0; c <= i + 1; ++c)
      forward[(i + 1) * width + c] = log_add(c <= i ? forward[i * width + c] + no[i] : kImpossible,
                                             c > 0 ? forward[i * width + c - 1] + yes[i] : kImpossible);
  for (size_t c = 0; c <= n; ++c) {
    const auto gap = static_cast<double>(static_cast<int64_t>(c) - count);
    backward[n * width + c] = -lambda * gap * gap;
  }
  for (size_t i = n; i-- > 0;)
    for (size_t c = 0; c <= i; ++c)
      backward[i * width + c] = log_add(backward[(i + 1) * width + c] + no[i], backward[(i + 1) * width + c + 1] + yes[i]);
  std::vector<double> messages(n), one(width), zero(width);
  for (size_t i = 0; i < n; ++i) {
    for (size_t c = 0; c <= i; ++c) {
      one[c] = forward[i * width + c] + backward[(i + 1) * width + c + 1];
      zero[c] = forward[i * width + c] + backward[(i + 1) * width + c];
    }
    messages[i] = log_sum(std::span(one).first(i + 1)) - log_sum(std::span(zero).first(i + 1));
  }
  return messages;
}

Beliefs propagate_beliefs(const BagModel& model, const BeliefOptions& options) {
  check(model);
  std::vector<double> unary = model.bias.empty() ? std::vector<double>(static_cast<size_t>(model.n), 0.0) : model.bias;
  std::vector<std::pair<int32_t, int32_t>> pairs = model.edges;
  std::vector<double> potential;
  for (size_t k = 0; k < model.edges.size(); ++k) {
    // -l w (y_i - y_j)^2 = -l w y_i - l w y_j + 2 l w y_i y_j
    const double strength = model.lambda_edge * model.weights[k];
    unary[static_cast<size_t>(model.edges[k].first)] -= strength;
    unary[static_cast<size_t>(model.edges[k].second)] -= strength;
    potential.push_back(2 * strength);
  }
  std::vector<size_t> factors;  // bags that are one factor
  for (size_t b = 0; b < model.bags.size(); ++b) {
    const auto& bag = model.bags[b];
    if (std::ssize(bag) > options.pairwise_up_to) {
      factors.push_back(b);
      continue;
    }
    // -l (sum - count)^2 = sum_i -l (1 - 2 count) y_i - 2 l sum_{i<j} y_i y_j - l count^2
    for (size_t p = 0; p < bag.size(); ++p) {
      unary[static_cast<size_t>(bag[p])] -= model.lambda_bag * (1 - 2 * static_cast<double>(model.counts[b]));
      for (size_t q = p + 1; q < bag.size(); ++q) {
        pairs.emplace_back(static_cast<int32_t>(std::min(bag[p], bag[q])), static_cast<int32_t>(std::max(bag[p], bag[q])));
        potential.push_back(-2 * model.lambda_bag);
      }
    }
  }
  PairMessages messages = pair_messages(model.n, pairs, potential);
  std::vector<double> from_bag(static_cast<size_t>(model.n), 0.0), total(static_cast<size_t>(model.n));
  std::vector<double> new_value(messages.value.size()), new_from_bag = from_bag;
  ThreadPool pool(options.threads);
  const auto add_up = [&] {
    pool.parallel_for(model.n, 1024, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        total[i] = unary[i] + from_bag[i];
        for (int64_t k = messages.begin[i]; k < messages.begin[i + 1]; ++k) total[i] += messages.value[static_cast<size_t>(k)];
      }
    });
  };
  Beliefs beliefs;
  double damping = options.damping, best_change = std::numeric_limits<double>::infinity();
  int since_best = 0;
  for (; beliefs.iterations < options.iterations && !beliefs.converged; ++beliefs.iterations) {
    check_interrupt();
    add_up();
    pool.parallel_for(std::ssize(messages.value), 4096, [&](int64_t begin, int64_t end) {
      for (auto k = static_cast<size_t>(begin); k < static_cast<size_t>(end); ++k) {
        const double a =
            total[static_cast<size_t>(messages.sender[k])] - messages.value[static_cast<size_t>(messages.reverse[k])];
        new_value[k] = softplus(a + messages.potential[k]) - softplus(a);
      }
    });
    pool.parallel_for(std::ssize(factors), 1, [&](int64_t begin, int64_t end) {
      for (auto f = static_cast<size_t>(begin); f < static_cast<size_t>(end); ++f) {
        const auto& bag = model.bags[factors[f]];
        std::vector<double> log_odds;
        for (const int64_t i : bag) log_odds.push_back(total[static_cast<size_t>(i)] - from_bag[static_cast<size_t>(i)]);
        const std::vector<double> sent = cardinality_messages(log_odds, model.counts[factors[f]], model.lambda_bag);
        for (size_t p = 0; p < bag.size(); ++p) new_from_bag[static_cast<size_t>(bag[p])] = sent[p];
      }
    });
    beliefs.change = 0;
    const auto damp = [&](std::vector<double>& old, const std::vector<double>& fresh) {
      for (size_t k = 0; k < old.size(); ++k) {
        const double next = damping * old[k] + (1 - damping) * fresh[k];
        beliefs.change = std::max(beliefs.change, std::abs(next - old[k]));
        old[k] = next;
      }
    };
    damp(messages.value, new_value);
    damp(from_bag, new_from_bag);
    // Judged without the damping, which makes every step small.
    beliefs.converged = beliefs.change < options.tolerance * (1 - damping);
    // Messages that swing back and forth come to rest with smaller steps.
    if (beliefs.change < 0.9 * best_change) {
      best_change = beliefs.change;
      since_best = 0;
    } else if (++since_best >= 5) {
      damping = (1 + damping) / 2;
      damping = std::min(damping, 0.95);
      best_change = beliefs.change;
      since_best = 0;
    }
  }
  add_up();
  beliefs.log_odds = std::move(total);
  return beliefs;
}

std::vector<double> exact_log_odds(const BagModel& model) {
  check(model);
  if (model.n > 20) throw_error<OptionError>("2^{} labellings are too many to sum over", model.n);
  std::vector<double> yes(static_cast<size_t>(model.n), kImpossible), no = yes;
  for (uint32_t y = 0; y < (1U << model.n); ++y) {
    double energy = 0;
    const auto bit = [&](int64_t i) { return static_cast<double>((y >> i) & 1U); };
    for (int64_t i = 0; i < std::ssize(model.bias); ++i) energy += model.bias[static_cast<size_t>(i)] * bit(i);
    for (size_t k = 0; k < model.edges.size(); ++k) {
      const double gap = bit(model.edges[k].first) - bit(model.edges[k].second);
      energy -= model.lambda_edge * model.weights[k] * gap * gap;
    }
    for (size_t b = 0; b < model.bags.size(); ++b) {
      double gap = -static_cast<double>(model.counts[b]);
      for (const int64_t i : model.bags[b]) gap += bit(i);
      energy -= model.lambda_bag * gap * gap;
    }
    for (int64_t i = 0; i < model.n; ++i) {
      double& side = bit(i) > 0 ? yes[static_cast<size_t>(i)] : no[static_cast<size_t>(i)];
      side = log_add(side, energy);
    }
  }
  for (size_t i = 0; i < yes.size(); ++i) yes[i] -= no[i];
  return yes;
}

}  // namespace lighten
