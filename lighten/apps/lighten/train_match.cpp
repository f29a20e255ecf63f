// lighten train match: a dual encoder for texts and many labels.
#include <algorithm>
#include <numeric>

#include "lighten/apps/lighten/task.h"
#include "lighten/apps/lighten/texts.h"
#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/data/dataset.h"
#include "lighten/data/packages.h"
#include "lighten/features/text_features.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/npy.h"
#include "lighten/nn/state.h"
#include "lighten/systems/labels/dexml/dexml.h"

namespace lighten {
namespace {

/// Above it trained layers forget; the release takes 5e-5 to 3e-4.
constexpr double kLargestTuningRate = 5e-4;

struct MatchOptions {
  std::string method = "dexml", texts, labels, pairs, output, predict, apply, model = "minilm-l6";
  int64_t top = 10, layers = 0, max_tokens = 128;
  bool force = false;
  DexmlOptions dexml;
};

torch::Tensor features_of(const std::string& model, const std::vector<std::string>& texts, const std::string& name,
                          int64_t max_tokens) {
  const FeatureOptions how{.max_tokens = max_tokens};
  const Features features =
      model == "minilm-l6" ? minilm_features(texts, name, how) : text_features(resolve_model(model), texts, name, how);
  return torch::tensor(features.values).view({features.rows, features.columns});
}

/// What a trained folder holds: a tower on the vectors of a sentence encoder, or a tuned encoder.
struct Matcher {
  std::string model;  ///< that the tower stands on
  int64_t max_tokens = 128;
  MatchTower tower{nullptr};
  TextEncoder encoder;

  torch::Tensor vectors(const std::vector<std::string>& texts, const std::string& name) {
    const torch::NoGradGuard no_grad;
    if (tower) return tower->forward(features_of(model, texts, name, max_tokens));
    return embed_texts(encoder, texts);
  }
};

void save(const Matcher& matcher, const fs::path& source, const fs::path& folder) {
  Json json = {{"format", "lighten-match-1"}, {"max_tokens", matcher.max_tokens}};
  if (matcher.tower) {
    save_tensors(folder / "tower.safetensors", state_of(*matcher.tower));
    json["model"] = matcher.model;
    json["width"] = matcher.tower->w1.size(1);
    json["hidden"] = matcher.tower->w1.size(0);
  } else {
    fs::create_directories(folder / "encoder");
    save_text_encoder(matcher.encoder, source, folder / "encoder");
  }
  write_file(folder / "match.json", json_text(json, 1) + "\n");
}

Matcher load_matcher(const fs::path& folder) {
  const std::string where = (folder / "match.json").string();
  if (!fs::exists(where))
    throw_error<FileError>("{}: not there; --apply takes a folder that `lighten train match` wrote", where);
  const Json json = formats::parse_json(read_file(where), where);
  const formats::Fields fields(json, where);
  if (fields.text("format") != "lighten-match-1") throw_error<FormatError>("{}: format: not lighten-match-1", where);
  Matcher matcher;
  matcher.max_tokens = fields.integer("max_tokens");
  if (json.contains("model")) {
    matcher.model = fields.text("model");
    const int64_t width = fields.integer("width"), hidden = fields.integer("hidden");
    if (width < 1 || width > 65536 || hidden < 1 || hidden > 65536)
      throw_error<FormatError>("{}: width {} and hidden {}: both must lie between 1 and 65536", where, width, hidden);
    matcher.tower = MatchTower(width, hidden, 0);
    const fs::path file = folder / "tower.safetensors";
    copy_state(load_tensors(file), state_of(*matcher.tower), file.string());
  } else {
    matcher.encoder = load_text_encoder(folder / "encoder");
    matcher.encoder.max_tokens = std::clamp<int64_t>(matcher.max_tokens, 3, matcher.encoder.bert->config.positions);
  }
  return matcher;
}

/// predictions.csv: the best labels of new texts.
void predict(Matcher& matcher, const torch::Tensor& labels, const MatchOptions& options, const fs::path& file) {
  const torch::Tensor vectors = matcher.vectors(read_texts(options.predict), options.predict);
  if (vectors.size(1) != labels.size(1))
    throw_error<FormatError>("labels.npy has {} columns, the texts' vectors {}", labels.size(1), vectors.size(1));
  const IdLists ranked = best_labels(vectors, labels, std::min(options.top, labels.size(0)));
  std::string table = "text,rank,label,score\n";
  for (size_t i = 0; i < ranked.size(); ++i)
    for (size_t r = 0; r < ranked[i].size(); ++r)
      table += fmt::format("{},{},{},{:.5f}\n", i, r + 1, ranked[i][r],
                           (vectors[static_cast<int64_t>(i)] * labels[ranked[i][r]]).sum().item<double>());
  write_file(file, table);
}

int apply_match(const Common& common, const MatchOptions& options) {
  if (options.predict.empty()) throw OptionError("--apply needs --predict: the texts whose labels are wanted");
  AtomicFolder output(options.output, options.force);
  Matcher matcher = load_matcher(options.apply);
  const NpyFile labels(fs::path(options.apply) / "labels.npy");
  predict(matcher, torch::tensor(labels.to_float()).view({labels.rows(), labels.columns()}), options,
          output.path() / "predictions.csv");
  output.commit();
  if (common.for_people()) fmt::print("{}: predictions.csv\n", options.output);
  write_json(common, {{"labels", labels.rows()}, {"predictions", (fs::path(options.output) / "predictions.csv").string()}});
  return 0;
}

/// Labels of every text from a table `text,label` of numbers (from 0). A tenth of the texts, by hash, is for validation.
MatchTask read_task(const MatchOptions& options, int64_t texts, int64_t labels) {
  MatchTask task{
      .queries = texts, .labels = labels, .positives = IdLists(static_cast<size_t>(texts)), .train = {}, .validation = {}};
  const CsvTable table = read_table(options.pairs);
  const size_t text = table.column("text"), label = table.column("label");
  for (int64_t i = 0; i < table.size(); ++i) {
    const int64_t t = table.integer(i, text), l = table.integer(i, label);
    if (t < 0 || t >= texts) throw_error<FormatError>("{}: text {} of {} (0 to {})", table.where(i), t, texts, texts - 1);
    if (l < 0 || l >= labels) throw_error<FormatError>("{}: label {} of {} (0 to {})", table.where(i), l, labels, labels - 1);
    auto& list = task.positives[static_cast<size_t>(t)];
    if (std::find(list.begin(), list.end(), l) != list.end())
      throw_error<FormatError>("{}: text {} has the label {} already", table.where(i), t, l);
    list.push_back(static_cast<int32_t>(l));
  }
  for (int64_t t = 0; t < texts; ++t) {
    auto& list = task.positives[static_cast<size_t>(t)];
    std::sort(list.begin(), list.end());
    if (list.empty()) continue;
    (split_of(fmt::format("{}", t), {.validation = 0.1, .test = 0}) == Split::validation ? task.validation : task.train)
        .push_back(t);
  }
  return task;
}

/// The texts, the labels' texts and which belong together, all checked before any work.
struct MatchInput {
  std::vector<std::string> texts, labels;
  MatchTask task;
};
MatchInput read_input(const MatchOptions& options) {
  for (const auto& [flag, value] : {std::pair<std::string, std::string>{"--texts", options.texts},
                                    {"--label-texts", options.labels},
                                    {"--pairs", options.pairs}})
    if (value.empty()) throw_error<OptionError>("{} is missing (or --apply DIR to use a trained folder)", flag);
  MatchInput input{.texts = read_texts(options.texts), .labels = read_texts(options.labels), .task = {}};
  if (input.texts.empty()) throw OptionError("--texts must hold at least one line");
  if (input.labels.size() < 2)
    throw_error<FormatError>("{}: one label only; two or more are needed to tell them apart", options.labels);
  for (size_t i = 0; i < input.labels.size(); ++i)
    if (input.labels[i].find_first_not_of(" \t\r") == std::string::npos)
      throw_error<FormatError>("{}: line {}: label {} has no text; a label is found by its text", options.labels, i + 1, i);
  if (!options.predict.empty()) (void)read_texts(options.predict);  // a wrong name is said before the work
  input.task = read_task(options, std::ssize(input.texts), std::ssize(input.labels));
  check_task(input.task);
  return input;
}

/// What learns, and what it reads: vectors for a tower, token ids for an encoder. `dual` refers to the other members.
struct Learner {
  Learner(const MatchOptions& options, const MatchInput& input)
      : matcher{.model = options.model, .max_tokens = options.max_tokens, .encoder = {}} {
    if (options.layers == 0) {
      const torch::Tensor x = features_of(options.model, input.texts, options.texts, options.max_tokens),
                          y = features_of(options.model, input.labels, options.labels, options.max_tokens);
      matcher.tower = MatchTower(x.size(1), options.dexml.hidden, options.dexml.seed);
      dual = tower_encoder(matcher.tower, x, y);
      return;
    }
    source = options.model == "minilm-l6" ? data_path("minilm-l6") : resolve_model(options.model);
    matcher.encoder = load_text_encoder(source);
    matcher.encoder.max_tokens = std::min(options.max_tokens, matcher.encoder.bert->config.positions);
    const auto layers = std::ssize(matcher.encoder.bert->layers);
    if (options.layers > layers)
      throw_error<OptionError>("--tune-layers {}: the encoder has {} layers; -1 is all of it", options.layers, layers);
    if (options.dexml.learning_rate > kLargestTuningRate)
      warn(
          fmt::format("--learning-rate {} is large for layers that are trained already (--tune-layers): 5e-5 to 3e-4 are usual",
                      options.dexml.learning_rate));
    trainable_layers(matcher.encoder.bert, options.layers);
    for (const std::string& text : input.texts) text_ids.push_back(token_ids(matcher.encoder, text));
    for (const std::string& text : input.labels) label_ids.push_back(token_ids(matcher.encoder, text));
    dual = text_dual_encoder(matcher.encoder, text_ids, label_ids);
  }
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  Matcher matcher;
  DualEncoder dual;
  fs::path source;  ///< of the encoder that is tuned
  std::vector<std::vector<int32_t>> text_ids, label_ids;
};

Json figures_of(const Learner& learner, const MatchInput& input, const DexmlOptions& options,
                const torch::Tensor& label_vectors) {
  Json figures = {{"texts", input.texts.size()},
                  {"labels", input.labels.size()},
                  {"training_texts", input.task.train.size()},
                  {"parameters", parameter_count(*learner.dual.module)},
                  {"peak_memory_bytes", static_cast<double>(peak_resident_bytes())}};
  if (input.task.validation.empty()) return figures;
  IdLists truth;
  for (const int64_t query : input.task.validation) truth.push_back(input.task.positives[static_cast<size_t>(query)]);
  const torch::Tensor vectors = encode_all(learner.dual.queries, input.task.validation, options.chunk, options.chunk_tokens);
  const IdLists ranked = best_labels(vectors, label_vectors, 5);
  figures["validation_p1"] = precision_at(ranked, truth, 1);
  figures["validation_p5"] = precision_at(ranked, truth, 5);
  return figures;
}

int train_match(const Common& common, MatchOptions& options) {
  options.dexml.seed = common.seed;
  validate(describe(options.dexml));
  const MatchInput input = read_input(options);
  AtomicFolder output(options.output, options.force);
  Learner learner(options, input);
  TrainPlace place = work_place(options.output, describe(options.dexml),
                                {{"--texts", options.texts}, {"--label-texts", options.labels}, {"--pairs", options.pairs}});
  place.identity["model"] = options.model;
  place.identity["tune-layers"] = options.layers;
  place.identity["max-tokens"] = options.max_tokens;
  train_dexml(input.task, learner.dual, options.dexml, options.method, place);
  std::vector<int64_t> all(input.labels.size());
  std::iota(all.begin(), all.end(), int64_t{0});
  const torch::Tensor label_vectors =
      encode_all(learner.dual.labels, all, options.dexml.chunk, options.dexml.chunk_tokens).contiguous();
  save(learner.matcher, learner.source, output.path());
  write_npy(output.path() / "labels.npy", {label_vectors.size(0), label_vectors.size(1)},
            std::vector<float>(label_vectors.data_ptr<float>(), label_vectors.data_ptr<float>() + label_vectors.numel()));
  const Json figures = figures_of(learner, input, options.dexml, label_vectors);
  if (!options.predict.empty()) predict(learner.matcher, label_vectors, options, output.path() / "predictions.csv");
  write_file(output.path() / "training.json", json_text({{"figures", figures}, {"options", place.identity}}, 1) + "\n");
  output.commit();
  remove_work(place);
  const auto shown = [&](const char* name) {
    return figures.contains(name) ? fmt::format("{:.3f}", figures[name].get<double>()) : "-";
  };
  if (common.for_people())
    fmt::print("{} texts, {} labels; validation P@1 {}, P@5 {}; peak memory {}\n{}: {}, labels.npy{}\n", input.texts.size(),
               input.labels.size(), shown("validation_p1"), shown("validation_p5"), human_bytes(figures["peak_memory_bytes"]),
               options.output, learner.matcher.tower ? "tower.safetensors" : "encoder/",
               options.predict.empty() ? "" : ", predictions.csv");
  write_json(common, figures);
  return 0;
}

}  // namespace

void add_train_match(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* app = train.add_subcommand("match", "matches texts with many labels that have texts themselves (dexml)");
  app->fallthrough();
  auto options = std::make_shared<MatchOptions>();
  app->add_option("--method", options->method, "dexml (default)")->check(CLI::IsMember({"dexml"}));
  app->add_option("--texts", options->texts, "text file, one text a line, or .jsonl, .csv or .tsv with a field text")
      ->type_name("FILE");
  app->add_option("--label-texts", options->labels, "the labels' texts, in the same way")->type_name("FILE");
  app->add_option("--pairs", options->pairs, "table text,label of line numbers from 0, a line for every label of every text")
      ->type_name("FILE");
  app->add_option("--model", options->model, "sentence encoder: minilm-l6 (default) or a BERT folder")->type_name("MODEL");
  app->add_option("--tune-layers", options->layers,
                  "0 (default): a tower on the frozen encoder; N: the encoder's own last N layers learn, -1: all of it (with a "
                  "small --learning-rate, 5e-5 to 3e-4)")
      ->check(CLI::Range(-1, 100));
  app->add_option("--max-tokens", options->max_tokens, "longer texts are cut (default 128)")->check(CLI::Range(3, 512));
  app->add_option("--apply", options->apply, "a folder that was trained before: labels for the texts of --predict")
      ->type_name("DIR");
  app->add_option("-o,--output", options->output, "folder for the tower or encoder, the labels' vectors and predictions")
      ->required()
      ->type_name("DIR");
  app->add_option("--predict", options->predict, "more texts: their best labels go to predictions.csv")->type_name("FILE");
  app->add_option("--top", options->top, "so many labels for each of them (default 10)")->check(CLI::Range(1, 10000));
  app->add_flag("--force", options->force, "replace an existing folder");
  bind_options(*app, describe(options->dexml), "DEXML");
  actions.emplace_back(app, [app, options, common] {
    return applies(*app, {"predict", "top", "output", "force", "method"}) ? apply_match(*common, *options)
                                                                          : train_match(*common, *options);
  });
}

}  // namespace lighten
