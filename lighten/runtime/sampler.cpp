#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/attention.h"
#include "lighten/runtime/model.h"

namespace lighten {

OptionList describe(SamplingOptions& o) {
  return {
      option("temperature", o.temperature, range(0, 100), "divides the logits before the draw; 0: always the likeliest token",
             "Lighten"),
      option("top-k", o.top_k, range(0, 1 << 24), "draw from the k likeliest tokens; 0: off", "Fan et al. 2018"),
      option("top-p", o.top_p, range(1e-6, 1), "draw from the fewest likeliest tokens that hold this probability; 1: off",
             "Holtzman et al. 2020"),
      option("min-p", o.min_p, range(0, 1), "drop tokens below this share of the likeliest one's probability; 0: off",
             "Nguyen et al. 2024"),
      option("repetition-penalty", o.repetition_penalty, range(0.01, 100),
             "divides (multiplies) positive (negative) logits of recent tokens; 1: off", "Keskar et al. 2019"),
      option("repetition-window", o.repetition_window, range(0, 1 << 30), "how many recent tokens the penalty looks at",
             "Lighten", "tokens"),
      option("seed", o.seed, any_value(), "seed of the draws", "Lighten"),
  };
}

struct Sampler::State {
  struct Candidate {
    int32_t id;
    float logit;
    double weight;  ///< exp(logit - largest), after temperature
  };
  SamplingOptions options;
  Random random;
  std::vector<Candidate> candidates;

  explicit State(const SamplingOptions& o) : options(o), random(o.seed) { validate(describe(options)); }
  void penalize(std::span<float> logits, std::span<const int32_t> history) const;
  void collect(std::span<const float> logits, float largest);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  int32_t draw();
};

Sampler::Sampler(const SamplingOptions& options) : state_(std::make_unique<State>(options)) {}
Sampler::~Sampler() = default;

void Sampler::State::penalize(std::span<float> logits, std::span<const int32_t> history) const {
  if (options.repetition_penalty == 1) return;
  const size_t window = std::min(history.size(), static_cast<size_t>(options.repetition_window));
  const std::span<const int32_t> recent = history.last(window);
  const auto penalty = static_cast<float>(options.repetition_penalty);
  for (const int32_t id : std::set<int32_t>(recent.begin(), recent.end())) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void Sampler::State::collect(std::span<const float> logits, float largest) {
  candidates.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {static_cast<int32_t>(i), logits[i],
                     std::exp(static_cast<double>(logits[i] - largest) / options.temperature)};
}

void Sampler::State::keep_top_k() {
  const auto k = static_cast<size_t>(options.top_k);
  if (k == 0 || k >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(k), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  candidates.resize(k);
}

/// The shortest likeliest-first prefix that holds top_p of the probability; the token that crosses the line is kept.
void Sampler::State::keep_top_p() {
  if (options.top_p >= 1) return;
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  // Tokens below this share sum to less than 1 - top_p, so none of them is in the prefix: most need not be sorted.
  const double negligible = (1 - options.top_p) / static_cast<double>(candidates.size()) * total;
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < negligible; });
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size() && sum < options.top_p * total) sum += candidates[kept++].weight;
  candidates.resize(std::max<size_t>(kept, 1));
}

void Sampler::State::keep_min_p() {
  if (options.min_p <= 0) return;
  std::erase_if(candidates,
                [&](const Candidate& candidate) { return candidate.weight < options.min_p; });  // the likeliest has weight 1
}

int32_t Sampler::State::draw() {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double left = random.uniform() * total;
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.id;
  }
  return std::max_element(candidates.begin(), candidates.end(),
                          [](const auto& a, const auto& b) { return a.weight < b.weight; })
      ->id;
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> history) {
  State& s = *state_;
  s.penalize(logits, history);
  const int64_t best = argmax(logits.data(), static_cast<int64_t>(logits.size()));
  const float largest = logits[static_cast<size_t>(best)];
  if (!std::isfinite(largest))
    throw ModelError("the model's logits are not finite: its weights are damaged, or values overflow");
  if (s.options.temperature == 0) return static_cast<int32_t>(best);
  s.collect(logits, largest);
  s.keep_top_k();
  s.keep_top_p();
  s.keep_min_p();
  return s.draw();
}

}  // namespace lighten
