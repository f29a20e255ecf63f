// lighten train federate: one classifier from the data of many clients, in one process or over MPI.
#include <iostream>
#include <numeric>

#include "lighten/apps/lighten/task.h"
#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/ranks.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/apply.h"
#include "lighten/data/client_files.h"
#include "lighten/features/feature_rows.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/json_fields.h"
#include "lighten/systems/labels/fedlabel/fedlabel.h"
#include "lighten/systems/labels/fedlabel/views.h"

namespace lighten {
namespace {

struct FederateOptions {
  std::string method = "fedlabel", clients, data, output;
  bool force = false;
  double validation = 0.1;
  int64_t width = 0;
  ClientFileOptions files;
  FedLabelOptions fedlabel;
  ApplyOptions apply;
};

/// How the net of features sees its rows; stored beside it.
constexpr const char* kScaledRows = "rows scaled to a root mean square of 1";

/// The clients with the samples that validate (in no client's lists).
struct Loaded {
  ClientFiles files;
  FederatedTask task;
  std::vector<int64_t> validation;
};

std::string hash_of(const void* data, size_t bytes) {
  return fmt::format("{:016x}", stable_hash(std::string_view(static_cast<const char*>(data), bytes)));
}

/// Of each client's labelled samples a share is set aside by the hash of its name; a client keeps at least one.
void deal(Loaded& loaded, double validation, uint64_t seed) {
  for (size_t k = 0; k < loaded.files.names.size(); ++k) {
    FederatedClient client{.name = loaded.files.names[k], .labelled = {}, .unlabelled = {}};
    for (int64_t i = loaded.files.begin[k]; i < loaded.files.begin[k + 1]; ++i) {
      const auto at = static_cast<size_t>(i);
      if (loaded.files.labels[at] < 0)
        client.unlabelled.push_back(i);
      else if (split_of(client.name + "/" + loaded.files.ids[at], {.validation = validation, .test = 0}, seed) ==
               Split::validation)
        loaded.validation.push_back(i);
      else
        client.labelled.push_back(i);
    }
    if (client.labelled.empty() && !loaded.validation.empty() && loaded.validation.back() >= loaded.files.begin[k]) {
      client.labelled.push_back(loaded.validation.back());
      loaded.validation.pop_back();
    }
    loaded.task.clients.push_back(std::move(client));
  }
}

/// The clients' features, or those of their texts, [n, width].
torch::Tensor rows_of(const ClientFiles& files) {
  if (files.texts.empty()) return torch::tensor(files.features).view({files.size(), files.columns});
  return text_rows(files.texts, "clients' texts");
}

std::unique_ptr<Loaded> load(const FederateOptions& options) {
  auto loaded = std::make_unique<Loaded>();
  loaded->files = read_clients(options.clients, options.files);
  const ClientFiles& files = loaded->files;
  FederatedTask& task = loaded->task;
  task.title = options.method;
  task.labels = files.labels;
  task.classes = std::ssize(files.class_names);
  deal(*loaded, options.validation, options.fedlabel.seed);
  check_task(task);
  task.identity["labels"] = hash_of(files.labels.data(), files.labels.size() * sizeof(int32_t));
  task.identity["validation"] = options.validation;
  task.identity["width"] = options.width;
  if (files.are_pictures()) {
    const ImageSet& set = files.pictures;
    task.identity["data"] = hash_of(set.pixels.data(), set.pixels.size());
    // Fixed, so that no client tells the brightness of its pictures.
    const Normalization half = {std::vector<float>(static_cast<size_t>(set.channels), 0.5F),
                                std::vector<float>(static_cast<size_t>(set.channels), 0.25F)};
    use_pictures(task, set, half, options.width > 0 ? options.width : 16, options.fedlabel.seed);
  } else {
    const torch::Tensor rows = rows_of(files);
    task.identity["data"] = hash_of(rows.const_data_ptr(), rows.nbytes());
    use_features(task, scaled_rows(rows), options.width > 0 ? options.width : 128, options.fedlabel.seed);
  }
  if (!loaded->validation.empty())
    task.validate = [all = loaded.get()](const FederatedNet& net) {
      return federated_accuracy(all->task, net, all->validation, all->files.labels);
    };
  return loaded;
}

void write_net(const fs::path& folder, const Loaded& loaded, const FederatedNet& net, const Json& figures) {
  const auto& names = loaded.files.class_names;
  if (auto vision = std::dynamic_pointer_cast<VisionNetImpl>(net.module)) {
    const auto channels = static_cast<size_t>(loaded.files.pictures.channels);
    save_classifier({.net = vision,
                     .mean = std::vector<float>(channels, 0.5F),
                     .deviation = std::vector<float>(channels, 0.25F),
                     .class_names = names,
                     .training = figures},
                    folder / "net", true);
  } else {
    fs::create_directory(folder / "net");
    save_feature_net(FeatureNet(std::dynamic_pointer_cast<FeatureNetImpl>(net.module)), folder / "net",
                     {{"class_names", names}, {"input", kScaledRows}});
  }
}

void write_predictions(const fs::path& file, const Loaded& loaded, const FederatedNet& net) {
  std::vector<int64_t> all(static_cast<size_t>(loaded.files.size()));
  std::iota(all.begin(), all.end(), 0);
  const auto [probability, label] = torch::softmax(federated_logits(loaded.task, net, all), 1).max(1);
  const float* p = probability.const_data_ptr<float>();
  const int64_t* y = label.const_data_ptr<int64_t>();
  std::string rows = "client,id,label,probability\n";
  for (size_t k = 0; k < loaded.files.names.size(); ++k)
    for (int64_t i = loaded.files.begin[k]; i < loaded.files.begin[k + 1]; ++i)
      rows += fmt::format("{},{},{},{:.6f}\n", csv_field(loaded.files.names[k]),
                          csv_field(loaded.files.ids[static_cast<size_t>(i)]),
                          csv_field(loaded.files.class_names[static_cast<size_t>(y[i])]), p[i]);
  write_file(file, rows);
}

Json figures_of(const FederateOptions& options, const Loaded& loaded, const FederatedResult& result, int ranks) {
  int64_t labelled = 0, without = 0;
  for (const FederatedClient& client : loaded.task.clients) {
    labelled += std::ssize(client.labelled);
    without += client.labelled.empty();
  }
  const auto rounds = static_cast<double>(result.rounds.size());
  Json figures = {{"method", options.method},
                  {"clients", loaded.task.clients.size()},
                  {"clients_without_labels", without},
                  {"samples", loaded.files.size()},
                  {"labelled", labelled},
                  {"classes", loaded.files.class_names},
                  {"rounds", result.rounds.size()},
                  {"best_round", result.best_round + 1},
                  {"ranks", ranks},
                  {"bytes_down", result.bytes_down},
                  {"bytes_up", result.bytes_up},
                  {"bytes_down_per_round", static_cast<double>(result.bytes_down) / rounds},
                  {"bytes_up_per_round", static_cast<double>(result.bytes_up) / rounds},
                  {"pseudo_labels", to_json(result.audit, false)}};
  if (!loaded.validation.empty()) {
    figures["validation_samples"] = loaded.validation.size();
    figures["validation_accuracy"] = result.best_score;
  }
  return figures;
}

void print(const FederateOptions& options, const Json& figures) {
  Table table({"what", "value"});
  table.row({"clients", fmt::format("{} ({} without labels)", figures["clients"].get<int64_t>(),
                                    figures["clients_without_labels"].get<int64_t>())});
  table.row(
      {"samples", fmt::format("{} ({} labelled)", figures["samples"].get<int64_t>(), figures["labelled"].get<int64_t>())});
  table.row({"to clients", fmt::format("{} in all, {} a round", human_bytes(figures["bytes_down"].get<double>()),
                                       human_bytes(figures["bytes_down_per_round"].get<double>()))});
  table.row({"to the server", fmt::format("{} in all, {} a round", human_bytes(figures["bytes_up"].get<double>()),
                                          human_bytes(figures["bytes_up_per_round"].get<double>()))});
  if (const Json& coverage = figures["pseudo_labels"]["coverage"]; coverage.is_number())
    table.row({"pseudo-labels used", fmt::format("{:.1f} %", 100 * coverage.get<double>())});
  if (figures.contains("validation_accuracy"))
    table.row({"validation accuracy",
               fmt::format("{:.1f} % of {} held back, round {}", 100 * figures["validation_accuracy"].get<double>(),
                           figures["validation_samples"].get<int64_t>(), figures["best_round"].get<int64_t>())});
  fmt::print("{}\n{}: net/, predictions.csv, log.jsonl, training.json\n", table.text(), options.output);
}

/// What a training wrote labels new data: the rows of --data (or of the client's folder that it is), or its pictures.
int apply_federate(const Common& common, const FederateOptions& options) {
  need_one_process("--apply");
  require_option(options.data, "data", "the new data: features (.npy), texts, or a folder of pictures");
  check_answers(options.apply, options.output, options.force);
  at::set_num_threads(std::max(common.threads, 1));
  check_trained(options.apply.folder, "net/config.json", "federate");
  const fs::path folder = fs::path(options.apply.folder) / "net", data = options.data;
  const std::string where = (folder / "config.json").string();
  const Json config = formats::parse_json(read_file(where), where);
  const formats::Fields fields(config, where);
  std::vector<std::string> class_names, ids;
  torch::Tensor logits;
  if (fields.text("format", "") == "lighten-classifier") {
    const std::vector<Classifier> nets = {load_classifier(folder)};
    const ImageSet set = pictures_for(nets[0], data);
    class_names = nets[0].class_names;
    ids = set.ids;
    logits = mean_logits(nets, set);
  } else {
    FeatureNet net = load_feature_net(folder);
    class_names = class_names_of(folder, "class_names", net->config.outputs);
    if (fields.text("input", "") != kScaledRows)
      throw_error<FormatError>("{}: field \"input\" is not \"{}\"; `lighten train federate` did not write this", where,
                               kScaledRows);
    const fs::path file = fs::is_directory(data) ? client_rows(data) : data;
    logits = predict(net, scaled_rows(rows_for(file, net->config.inputs)));
  }
  write_json(common, write_answers(options.apply, options.output, logits, class_names, ids, common.for_people()));
  return 0;
}

int train_federate(const Common& common, FederateOptions& options) {
  require_option(options.clients, "clients", "a folder with a sub-folder a client (or --apply DIR to use a trained folder)");
  options.fedlabel.seed = common.seed;
  validate(describe(options.fedlabel));
  const Labeller labeller = labeller_of(options.method);
  // One thread for nets of this size; and so any number of processes adds in the same order.
  at::set_num_threads(std::max(common.threads, 1));
  Ranks& ranks = Ranks::world();
  if (!ranks.first()) set_quiet(true);
  if (fs::exists(options.output) && !options.force) throw_error<FileError>("{}: exists; --force replaces it", options.output);
  const std::unique_ptr<Loaded> loaded = load(options);
  const fs::path work = options.output + ".work";
  const FederatedResult result = federate(loaded->task, labeller, options.fedlabel, work, ranks);
  if (!ranks.first()) return 0;
  const Json figures = figures_of(options, *loaded, result, ranks.size());
  AtomicFolder output(options.output, options.force);
  write_net(output.path(), *loaded, result.net, figures);
  write_predictions(output.path() / "predictions.csv", *loaded, result.net);
  fs::copy_file(work / "log.jsonl", output.path() / "log.jsonl");
  write_file(output.path() / "training.json",
             json_text({{"figures", figures}, {"options", to_json(describe(options.fedlabel))}}, 1) + "\n");
  output.commit();
  std::error_code error;
  fs::remove_all(work, error);
  if (common.for_people()) print(options, figures);
  write_json(common, figures);
  return 0;
}

}  // namespace

void add_train_federate(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* app =
      train.add_subcommand("federate", "one classifier from many clients that keep their data, few labels; also under mpirun");
  app->fallthrough();
  auto options = std::make_shared<FederateOptions>();
  app->add_option("--method", options->method,
                  "default fedlabel; fedavg (labelled samples alone), global-only, local-only (one labeller)")
      ->check(CLI::IsMember({"fedlabel", "fedavg", "global-only", "local-only"}));
  app->add_option("--clients", options->clients,
                  "a folder with a sub-folder a client: features.npy, texts (texts.txt one a line; texts.jsonl, .csv, .tsv "
                  "with `text`) or PNG/JPEG pictures, and labels.csv (id,label; id: row or file name; samples without a label "
                  "are unlabelled)")
      ->type_name("DIR");
  app->add_option("-o,--output", options->output, "folder for net, predictions and log; with --apply the CSV of labels")
      ->required()
      ->type_name("DIR");
  app->add_flag("--force", options->force, "replace an existing folder");
  app->add_option("--validation", options->validation, "share of the labelled samples that chooses the round (default 0.1)")
      ->check(CLI::Range(0.0, 0.9));
  app->add_option("--width", options->width, "hidden units (features, default 128) or first channels (pictures, default 16)")
      ->check(CLI::Range(0, 4096));
  app->add_option("--side", options->files.side, "pixels to which pictures are brought (default 28)")
      ->check(CLI::Range(8, 256));
  app->add_flag("--grey", options->files.grey, "read pictures without their colours");
  bind_options(*app, describe(options->fedlabel), "FedLabel");
  const std::string later = "Later, on new data";
  bind_options(*app, describe(options->apply), later);
  app->add_option("--data", options->data,
                  "with --apply: features (.npy), texts (.txt, .jsonl, .csv, .tsv) or a folder of pictures")
      ->type_name("PATH")
      ->group(later);
  actions.emplace_back(app, [app, options, common] {
    const bool applied =
        applies(*app, {"data", "top", "probabilities", "output", "force", "method"}, {"data", "top", "probabilities"});
    return applied ? apply_federate(*common, *options) : train_federate(*common, *options);
  });
}

}  // namespace lighten
