#include "lighten/eval/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/threads.h"

namespace lighten {

namespace {

constexpr int64_t kBufferFloats = 32 << 20;  // logits held per model: 128 MB

/// Sums over one window; what the bootstrap draws.
struct WindowScore {
  double nll = 0, reference_nll = 0, kl = 0;
  int64_t tokens = 0, bytes = 0, agreements = 0;
  std::vector<double> kls;
};

/// Scores windows with one model, or two in step, in chunks of rows.
class Comparison {
 public:
  Comparison(EvaluatedModel& model, EvaluatedModel* against, int64_t window)
      : model_(model), against_(against), vocab_(model.scorer->vocab_size()), pool_(model.threads) {
    rows_ = std::clamp<int64_t>(kBufferFloats / vocab_, 16, window);
    logits_.resize(static_cast<size_t>(rows_ * vocab_));
    if (against_) reference_.resize(logits_.size());
    scores_.resize(static_cast<size_t>(rows_));
  }

  WindowScore score(const std::vector<int32_t>& ids) {
    WindowScore result;
    model_.scorer->begin(ids);
    if (against_) against_->scorer->begin(ids);
    const auto last = static_cast<int64_t>(ids.size()) - 1;  // the last position predicts a token outside the window
    for (int64_t from = 0; from < last; from += rows_) {
      const int64_t count = std::min(rows_, last - from);
      model_.scorer->next(count, logits_.data());
      if (against_) against_->scorer->next(count, reference_.data());
      const int32_t* targets = ids.data() + from + 1;
      pool_.parallel_for(count, 4, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const std::span<const float> other = against_ ? row_of(reference_, row) : std::span<const float>();
          scores_[static_cast<size_t>(row)] = score_position(row_of(logits_, row), targets[row], other);
        }
      });
      for (int64_t row = 0; row < count; ++row) add(result, scores_[static_cast<size_t>(row)], targets[row], from + row);
    }
    return result;
  }

 private:
  std::span<const float> row_of(const std::vector<float>& logits, int64_t row) const {
    return {logits.data() + row * vocab_, static_cast<size_t>(vocab_)};
  }

  void add(WindowScore& window, const PositionScore& score, int32_t target, int64_t position) const {
    if (std::isnan(score.nll) || std::isnan(score.kl)) {
      throw_error<ModelError>("the model's logits at position {} of a window are not numbers: its weights are damaged",
                              position);
    }
    window.nll += score.nll;
    window.tokens += 1;
    window.bytes += static_cast<int64_t>(model_.tokenizer->piece(target).size());
    if (!against_) return;
    window.reference_nll += score.reference_nll;
    window.kl += score.kl;
    window.kls.push_back(score.kl);
    window.agreements += score.agrees ? 1 : 0;
  }

  EvaluatedModel& model_;
  EvaluatedModel* against_;
  int64_t vocab_, rows_;
  ThreadPool pool_;
  std::vector<float> logits_, reference_;
  std::vector<PositionScore> scores_;
};

using Statistic = std::function<double(const std::vector<size_t>&)>;

/// sum of `above` / sum of `below` over the picked windows
template <typename Above, typename Below>
Statistic ratio(const std::vector<WindowScore>& windows, Above above, Below below) {
  return [&windows, above, below](const std::vector<size_t>& picked) {
    double numerator = 0, denominator = 0;
    for (const size_t at : picked) {
      numerator += static_cast<double>(above(windows[at]));
      denominator += static_cast<double>(below(windows[at]));
    }
    return numerator / denominator;
  };
}

void summarise(Evaluation& result, const std::vector<WindowScore>& windows, const EvaluationOptions& options) {
  std::vector<size_t> all(windows.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  const auto both = [&](const Statistic& statistic, double& value, Interval& interval) {
    value = statistic(all);
    interval = bootstrap(windows.size(), options.bootstrap, options.seed, statistic);
  };
  const auto tokens = [](const WindowScore& window) { return window.tokens; };
  const auto nll = ratio(
      windows, [](const WindowScore& window) { return window.nll; }, tokens);
  both([&](const auto& picked) { return std::exp(nll(picked)); }, result.perplexity, result.perplexity_ci);
  both(ratio(
           windows, [](const WindowScore& window) { return window.nll / std::numbers::ln2; },
           [](const WindowScore& window) { return window.bytes; }),
       result.bits_per_byte, result.bits_per_byte_ci);
  for (const WindowScore& window : windows) result.tokens += window.tokens;
  result.windows = static_cast<int64_t>(windows.size());
  if (!result.against) return;
  const auto reference_nll = ratio(
      windows, [](const WindowScore& window) { return window.reference_nll; }, tokens);
  both([&](const auto& picked) { return std::exp(reference_nll(picked)); }, result.against_perplexity,
       result.against_perplexity_ci);
  both([&](const auto& picked) { return std::exp(nll(picked) - reference_nll(picked)) - 1; }, result.perplexity_rise,
       result.perplexity_rise_ci);
  both(ratio(
           windows, [](const WindowScore& window) { return window.kl; }, tokens),
       result.kl_mean, result.kl_mean_ci);
  both(ratio(
           windows, [](const WindowScore& window) { return window.agreements; }, tokens),
       result.top1_agreement, result.top1_agreement_ci);
  std::vector<double> merged;
  both(
      [&](const std::vector<size_t>& picked) {
        merged.clear();
        for (const size_t at : picked) merged.insert(merged.end(), windows[at].kls.begin(), windows[at].kls.end());
        return quantile(merged, 0.99);
      },
      result.kl_p99, result.kl_p99_ci);
}

int32_t bos_of(const EvaluatedModel& model) {
  if (!model.tokenizer->adds_bos()) return -1;
  const int32_t bos = model.tokenizer->bos() >= 0 ? model.tokenizer->bos() : static_cast<int32_t>(model.config.bos_token);
  if (bos < 0)
    throw_error<ModelError>("the tokenizer puts a BOS before texts, but names no such token: set bos_token_id in config.json");
  return bos;
}

void check_fits(const EvaluatedModel& model, const std::vector<int32_t>& ids, const EvaluationOptions& options) {
  if (options.window > model.config.context_length) {
    throw_error<OptionError>("a window of {} tokens is longer than the model's context of {}: choose a smaller --window",
                             options.window, model.config.context_length);
  }
  const auto highest = std::max_element(ids.begin(), ids.end());
  if (highest != ids.end() && *highest >= model.scorer->vocab_size()) {
    throw_error<ModelError>(
        "the tokenizer gives id {}, but the model's vocabulary has {} entries: tokenizer and weights do not "
        "belong together",
        *highest, model.scorer->vocab_size());
  }
}

void check_comparable(const EvaluatedModel& model, const EvaluatedModel& against, const std::vector<int32_t>& ids,
                      const std::string& text) {
  if (model.scorer->vocab_size() != against.scorer->vocab_size()) {
    throw_error<ModelError>(
        "the model has a vocabulary of {} and the one it is compared against has {}: KL and agreement need the "
        "same vocabulary; evaluate each one alone, without --against, and compare their bits per byte",
        model.scorer->vocab_size(), against.scorer->vocab_size());
  }
  if (against.tokenizer && against.tokenizer->encode(text, /*special=*/false) != ids) {
    throw_error<ModelError>(
        "the model and the one it is compared against tokenize the text differently: KL and agreement need the "
        "same tokenizer; evaluate each one alone, without --against, and compare their bits per byte");
  }
}

Json pair(const Interval& interval) { return interval.known() ? Json::array({interval.low, interval.high}) : Json(nullptr); }

}  // namespace

std::vector<std::vector<int32_t>> evaluation_windows(std::span<const int32_t> ids, int32_t bos,
                                                     const EvaluationOptions& options) {
  if (options.window < 2) throw_error<OptionError>("a window of {} tokens scores nothing: 2 is the least", options.window);
  if (options.max_tokens < 0)
    throw_error<OptionError>("max-tokens is {}: give 0 for all, or a number above", options.max_tokens);
  if (options.max_tokens > 0) ids = ids.first(std::min(ids.size(), static_cast<size_t>(options.max_tokens)));
  const size_t text_tokens = static_cast<size_t>(options.window) - (bos >= 0 ? 1 : 0);
  std::vector<std::vector<int32_t>> windows;
  for (; ids.size() >= text_tokens; ids = ids.subspan(text_tokens)) {
    std::vector<int32_t>& window = windows.emplace_back();
    if (bos >= 0) window.push_back(bos);
    window.insert(window.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(text_tokens));
  }
  return windows;
}

Evaluation evaluate(EvaluatedModel& model, EvaluatedModel* against, const std::string& text, const EvaluationOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids = model.tokenizer->encode(text, /*special=*/false);
  check_fits(model, ids, options);
  if (against) check_comparable(model, *against, ids, text);
  const auto windows = evaluation_windows(ids, bos_of(model), options);
  if (windows.empty()) {
    throw_error<FormatError>("the text has {} tokens{}, fewer than one window of {}: give a longer text or a smaller --window",
                             ids.size(), options.max_tokens > 0 ? fmt::format(" (cut to {})", options.max_tokens) : "",
                             options.window);
  }

  Comparison comparison(model, against, options.window);
  std::vector<WindowScore> scores;
  Progress progress("evaluating", static_cast<int64_t>(windows.size()), "windows");
  double nll = 0, tokens = 0;
  for (const auto& window : windows) {
    scores.push_back(comparison.score(window));
    nll += scores.back().nll;
    tokens += static_cast<double>(scores.back().tokens);
    progress.advance(1, fmt::format("perplexity {:.3f}", std::exp(nll / tokens)));
  }
  progress.finish();

  Evaluation result;
  result.against = against != nullptr;
  result.size_bytes = model.size_bytes;
  result.bits_per_weight = model.bits_per_weight;
  summarise(result, scores, options);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Json Evaluation::json() const {
  Json json = {{"perplexity", perplexity},
               {"perplexity_ci", pair(perplexity_ci)},
               {"bits_per_byte", bits_per_byte},
               {"bits_per_byte_ci", pair(bits_per_byte_ci)},
               {"tokens", tokens},
               {"windows", windows},
               {"size_bytes", size_bytes},
               {"bits_per_weight", bits_per_weight}};
  if (against) {
    json["against_perplexity"] = against_perplexity;
    json["against_perplexity_ci"] = pair(against_perplexity_ci);
    json["perplexity_rise"] = perplexity_rise;
    json["perplexity_rise_ci"] = pair(perplexity_rise_ci);
    json["kl_mean"] = kl_mean;
    json["kl_mean_ci"] = pair(kl_mean_ci);
    json["kl_p99"] = kl_p99;
    json["kl_p99_ci"] = pair(kl_p99_ci);
    json["top1_agreement"] = top1_agreement;
    json["top1_agreement_ci"] = pair(top1_agreement_ci);
  }
  json["seconds"] = seconds;
  return json;
}

}  // namespace lighten
