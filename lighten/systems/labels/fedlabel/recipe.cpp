// The reproduction: sections of Debian packages whose clients are their maintainers, and letters dealt unevenly to clients.
#include "lighten/systems/labels/fedlabel/recipe.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/data/deb_sets.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/inject.h"
#include "lighten/evidence/seeds.h"
#include "lighten/features/text_features.h"
#include "lighten/systems/labels/fedlabel/fedlabel.h"
#include "lighten/systems/labels/fedlabel/views.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;

constexpr double kLabelled = 0.1;                           // share of a client's samples, at least one
constexpr int64_t kWidth = 128;                             // of the MLP's hidden layer
const std::string kPlainChoice = "fedlabel-no-divergence";  // the choice between the experts alone: lambda0 = 0

struct Extent {
  int64_t limit;         ///< samples of each split
  int64_t clients;       ///< maintainers with the most packages
  int64_t least;         ///< packages of a client
  int64_t rounds, held;  ///< held: validation samples, test samples
  std::vector<double> rates;
  int seeds;
  bool letters;
};

Extent extent_of(RecipeSize size) {
  if (size == RecipeSize::smoke) return {150, 8, 4, 4, 100, {0.1}, 1, false};
  if (size == RecipeSize::standard) return {6000, 50, 12, 100, 1500, {0.05, 0.15, 0.5}, 3, false};
  return {0, 80, 12, 100, 2000, {0.05, 0.15, 0.5}, 3, true};
}

const std::vector<std::string> kSections = {"admin", "electronics", "fonts",   "games", "graphics", "mail",
                                            "math",  "net",         "science", "sound", "text",     "web"};

/// Samples, truth, and who has what; training labels are hidden but for a share.
struct Ground {
  FederatedTask task;  ///< labels: the truth
  std::vector<FederatedClient> all_labelled;
  std::vector<int64_t> validation, test;
  ImageSet pictures;
};

/// Some of the samples of a side, evenly spread.
std::vector<int64_t> some(std::vector<int64_t> samples, int64_t number) {
  const auto all = std::ssize(samples);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < std::min(number, all); ++i)
    kept.push_back(samples[static_cast<size_t>(i * all / std::min(number, all))]);
  return kept;
}

/// Turns members into clients with a tenth of their labels.
void set_clients(Ground& ground, const Clients& clients, const std::vector<int64_t>& samples,
                 const std::vector<std::string>& names, uint64_t seed) {
  for (size_t k = 0; k < clients.members.size(); ++k) {
    FederatedClient client, whole;
    client.name = whole.name = names[k];
    for (const int64_t member : clients.members[k]) whole.labelled.push_back(samples[static_cast<size_t>(member)]);
    std::vector<int64_t> order = whole.labelled;
    Random random(derived_seed(seed, 60, k));
    random.shuffle(order);
    const auto shown = std::max<int64_t>(1, std::llround(kLabelled * static_cast<double>(order.size())));
    client.labelled.assign(order.begin(), order.begin() + shown);
    client.unlabelled.assign(order.begin() + shown, order.end());
    ground.task.clients.push_back(std::move(client));
    ground.all_labelled.push_back(std::move(whole));
  }
}

std::unique_ptr<Ground> packages(const std::vector<DebianRecord>& records, const Extent& extent, uint64_t seed) {
  auto ground = std::make_unique<Ground>();
  const TextSet set = keep_classes(deb_text_from(records, {.limit = 0, .split_seed = seed}), kSections);
  std::unordered_map<std::string, std::string> maintainer;
  for (const DebianRecord& record : records) maintainer.emplace(record.name, record.maintainer);
  std::vector<int64_t> train = samples_of(set.splits, Split::train);
  if (extent.limit > 0) train = some(train, extent.limit);
  std::vector<int32_t> labels;
  std::vector<std::string> keys;
  for (const int64_t i : train) {
    labels.push_back(set.labels[static_cast<size_t>(i)]);
    keys.push_back(maintainer.at(set.ids[static_cast<size_t>(i)]));
  }
  const Clients clients = natural_clients(labels, static_cast<int32_t>(kSections.size()), keys, extent.least, extent.clients);
  // Only texts that are used are encoded.
  std::vector<int64_t> used;
  const auto use = [&](const std::vector<int64_t>& samples) {
    std::vector<int64_t> places;
    for (const int64_t sample : samples) {
      places.push_back(std::ssize(used));
      used.push_back(sample);
    }
    return places;
  };
  const std::vector<int64_t> places = use(train);
  ground->validation = use(some(samples_of(set.splits, Split::validation), extent.held));
  ground->test = use(some(samples_of(set.splits, Split::test), extent.held));
  std::vector<std::string> texts, names;
  for (const int64_t sample : used) {
    texts.push_back(set.texts[static_cast<size_t>(sample)]);
    ground->task.labels.push_back(set.labels[static_cast<size_t>(sample)]);
  }
  for (const auto& members : clients.members) names.push_back(keys[static_cast<size_t>(members.at(0))]);
  const Features features = minilm_features(texts, "deb-text");
  ground->task.classes = std::ssize(kSections);
  set_clients(*ground, clients, places, names, seed);
  use_features(ground->task, scaled_rows(torch::tensor(features.values).view({features.rows, features.columns})), kWidth, seed);
  return ground;
}

/// 36 classes: digits and capital letters of unseen fonts; 50 clients, Dirichlet(0.1).
std::unique_ptr<Ground> letters(const Extent& extent, uint64_t seed) {
  auto ground = std::make_unique<Ground>();
  std::vector<std::string> names;
  for (char c = '0'; c <= '9'; ++c) names.emplace_back(1, c);
  for (char c = 'A'; c <= 'Z'; ++c) names.emplace_back(1, c);
  ground->pictures = keep_classes(glyph_latin_set({.limit = 16000, .split_seed = seed}), names);
  const ImageSet& set = ground->pictures;
  const std::vector<int64_t> train = some(samples_of(set.splits, Split::train), 8000);
  ground->validation = some(samples_of(set.splits, Split::validation), extent.held);
  ground->test = some(samples_of(set.splits, Split::test), extent.held);
  ground->task.labels = set.labels;
  ground->task.classes = std::ssize(names);
  std::vector<int32_t> labels;
  for (const int64_t i : train) labels.push_back(set.labels[static_cast<size_t>(i)]);
  const Clients clients = dirichlet_clients(labels, static_cast<int32_t>(names.size()), 50, 0.1, seed + 7, 10);
  std::vector<std::string> client_names;
  for (size_t k = 0; k < clients.members.size(); ++k) client_names.push_back(fmt::format("{}", k));
  set_clients(*ground, clients, train, client_names, seed);
  use_pictures(ground->task, set, measure_normalization(set, train), 8, seed);
  return ground;
}

Metrics measure(const Ground& ground, const std::string& data, const std::string& arm, const Extent& extent,
                const std::vector<double>& rates, uint64_t seed) {
  FederatedTask task = ground.task;
  task.hidden = task.labels;
  if (arm == "fedavg-100") task.clients = ground.all_labelled;
  task.validate = [&](const FederatedNet& net) { return federated_accuracy(task, net, ground.validation, task.labels); };
  const bool plain = arm.starts_with("fedavg");
  const bool ours = arm == "fedlabel" || arm == kPlainChoice;
  const Labeller labeller = plain ? Labeller::labelled_only : labeller_of(ours ? "fedlabel" : arm);
  std::optional<FederatedResult> best;
  double rate = 0;
  for (const double candidate : rates) {  // every arm chooses its rate on validation
    FedLabelOptions options;
    options.rounds = extent.rounds;
    options.learning_rate = candidate;
    options.seed = seed;
    if (arm == "fedavg") options.unlabelled_steps = 0;
    if (arm == kPlainChoice) options.agreement = 0;
    task.title = fmt::format("{}, {}, rate {}, seed {}", data, arm, candidate, seed);
    FederatedResult result = federate(task, labeller, options);
    if (best && result.best_score <= best->best_score) continue;
    best = std::move(result);
    rate = candidate;
  }
  const PseudoAudit& a = best->audit;
  Metrics metrics = {{"accuracy", federated_accuracy(task, best->net, ground.test, task.labels)},
                     {"validation", best->best_score},
                     {"rate", rate},
                     {"megabytes", static_cast<double>(best->bytes_down + best->bytes_up) / 1e6},
                     {"bytes", static_cast<double>(best->bytes_down + best->bytes_up)}};
  const auto share = [&](const std::string& name, int64_t part, int64_t whole) {
    if (whole > 0) metrics[name] = static_cast<double>(part) / static_cast<double>(whole);
  };
  share("coverage", a.accepted, a.seen);
  share("precision", a.right, a.accepted);
  if (ours) {
    share("local_share", a.local, a.accepted);
    share("local_share_own", a.own_class_local, a.own_class);
    share("local_share_other", a.local - a.own_class_local, a.accepted - a.own_class);
    share("local_precision", a.local_right, a.local);
    share("global_precision", a.right - a.local_right, a.accepted - a.local);
  }
  return metrics;
}

void describe_metrics(Bench& bench) {
  bench.describe_metric("accuracy", "test accuracy");
  bench.describe_metric("validation", "validation accuracy");
  bench.describe_metric("rate", "learning rate (by validation)");
  bench.describe_metric("megabytes", "on the wire", "MB");
  bench.describe_metric("coverage", "pseudo-labels used, of those asked for");
  bench.describe_metric("precision", "used pseudo-labels that are right");
  bench.describe_metric("local_share", "used ones that the local expert gave");
  bench.describe_metric("local_share_own", "the same, of classes the client has labels of");
  bench.describe_metric("local_share_other", "the same, of other classes");
  bench.describe_metric("local_precision", "right ones of the local expert");
  bench.describe_metric("global_precision", "right ones of the global expert");
}

void claims(Bench& bench, const std::string& data) {
  const auto name = [&](const std::string& arm) { return arm + ", " + data; };
  for (const std::string worse : {"global-only", "local-only", "fedavg", "fedavg-more-steps"})
    claim_higher(bench, fmt::format("FedLabel is more accurate than {} ({})", worse, data), name("fedlabel"), name(worse),
                 "accuracy");
  claim_higher(bench, fmt::format("the divergence from the loser helps ({})", data), name("fedlabel"), name(kPlainChoice),
               "accuracy");
  claim_higher(bench, fmt::format("the choice alone, without divergence, is more accurate than fedavg-more-steps ({})", data),
               name(kPlainChoice), name("fedavg-more-steps"), "accuracy");
  claim_higher(bench, fmt::format("the choice alone is more accurate than local-only ({})", data), name(kPlainChoice),
               name("local-only"), "accuracy");
  const std::vector<double> ours = bench.values(name("fedlabel"), "bytes"), theirs = bench.values(name("fedavg"), "bytes");
  bool equal = true;
  for (size_t i = 0; i < ours.size(); ++i) equal = equal && ours[i] == theirs[i];
  bench.claim(fmt::format("FedLabel sends as many bytes as FedAvg, to the byte ({})", data),
              equal ? 1.0 : -std::abs(ours[0] / theirs[0] - 1));
}

void run(Bench& bench) {
  at::set_num_threads(1);  // the nets are small: more threads would only wait for each other
  describe_metrics(bench);
  const Extent extent = extent_of(bench.size());
  const std::vector<DebianRecord> records = debian_records(bench.size() != RecipeSize::smoke);
  const std::vector<std::string> arms = {"fedlabel",   "fedavg",     "fedavg-more-steps", "global-only",
                                         "local-only", "fedavg-100", kPlainChoice};
  std::vector<std::string> sets = {"packages"};
  if (extent.letters) sets.emplace_back("letters");
  for (const std::string& data : sets)
    for (const uint64_t seed : bench.seeds(extent.seeds)) {
      std::unique_ptr<Ground> ground;
      for (const std::string& arm : arms)
        bench.arm(arm + ", " + data, seed, [&] {
          if (!ground) ground = data == "packages" ? packages(records, extent, seed) : letters(extent, seed);
          // The rate that validation chose with the first seed is kept for the others.
          const std::vector<double> chosen = bench.values(arm + ", " + data, "rate");
          const bool keep = !chosen.empty();
          const std::vector<double> rates = data == "letters" ? std::vector<double>{0.05, 0.15} : extent.rates;
          return measure(*ground, data, arm, extent, keep ? std::vector<double>{chosen[0]} : rates, seed);
        });
    }
  for (const std::string& data : sets) claims(bench, data);
  bench.note(fmt::format(
      "Packages: twelve topical sections of Debian, MiniLM features, an MLP; a client is a maintainer, the {} with the most "
      "packages. Letters (--full): digits and capitals of unseen fonts, 50 clients by Dirichlet(0.1), conv3 with group norm. A "
      "client shows a tenth of its labels, at least one. Every arm visits the same clients in the same rounds and chooses "
      "learning rate and round on the same validation side. fedavg is FedLabel without its second phase; fedavg-more-steps "
      "takes the steps of that phase on labelled samples, so that all steps are as many; fedavg-100 does so with every label "
      "(an upper bound). fedlabel-no-divergence leaves the divergence out (lambda0 = 0). Split by source package, or by font.",
      extent.clients));
  FedLabelOptions options;
  options.rounds = extent.rounds;
  bench.setting("data", "deb-text, glyph-latin");
  bench.setting("clients", extent.clients);
  bench.setting("rates", extent.rates);
  bench.setting("fedlabel", to_json(describe(options)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe fedlabel_recipe() {
  return {
      .id = "fedlabel",
      .claim =
          "With few labels on uneven clients, choosing the surer of the local and the global model for every sample gives a "
          "more accurate global model than either alone or than federated averaging on the labels, for the same bytes.",
      .run = run};
}

}  // namespace lighten
