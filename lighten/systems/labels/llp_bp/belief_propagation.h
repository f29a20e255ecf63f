// Belief propagation over binary labels that neighbours share and bags count. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace lighten {

/// P(y) ~ exp(sum_i bias_i y_i - lambda_bag sum_S (sum_{i in S} y_i - count_S)^2 - lambda_edge sum_(i,j) w_ij (y_i - y_j)^2),
/// y in {0, 1}^n.
struct BagModel {
  int64_t n = 0;
  std::vector<double> bias;                        ///< [n] or empty: none
  std::vector<std::pair<int32_t, int32_t>> edges;  ///< i < j, each once
  std::vector<double> weights;                     ///< w of each edge, >= 0
  std::vector<std::vector<int64_t>> bags;          ///< disjoint members
  std::vector<int64_t> counts;                     ///< of ones
  double lambda_bag = 10, lambda_edge = 10;
};

struct BeliefOptions {
  int iterations = 200;
  double damping = 0.5;     ///< share of the old message that stays; raised (to 0.95 at most) where the changes do not shrink
  double tolerance = 1e-4;  ///< stop when no message moves more
  /// Bags up to this size are pairs of members (as in the release); larger ones are one factor each.
  int64_t pairwise_up_to = 0;
  int threads = 0;
};

struct Beliefs {
  std::vector<double> log_odds;  ///< [n]: ln P(y_i = 1) / P(y_i = 0)
  int iterations = 0;
  double change = 0;  ///< largest change of a message in the last iteration
  bool converged = false;
};

/// Sum-product with log-odds messages. An edge of pair potential W at (1, 1) sends
///   m = ln(1 + e^(a + W)) - ln(1 + e^a),  a = the sender's log-odds without the receiver's message.
/// A bag is one factor of its count: with a_j the log-odds that the other members send,
///   m_i = ln sum_c P(c others are 1) e^(-lambda (c + 1 - count)^2) - ln sum_c P(c others are 1) e^(-lambda (c - count)^2),
/// exact by forward and backward sums over the members, O(|S|^2) for all of them (cardinality_messages).
/// Throws OptionError: an edge or member outside, a node in two bags, a count above its bag's size.
Beliefs propagate_beliefs(const BagModel& model, const BeliefOptions& options = {});

/// The messages of one bag's factor to all members from the members' log-odds.
std::vector<double> cardinality_messages(std::span<const double> log_odds, int64_t count, double lambda);

/// Marginal log-odds by summing over all 2^n labellings (n <= 20): for tests.
std::vector<double> exact_log_odds(const BagModel& model);

}  // namespace lighten
