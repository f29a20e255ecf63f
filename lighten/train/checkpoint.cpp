#include "lighten/train/checkpoint.h"

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"

namespace lighten {

namespace {

// JSON has no infinities and no NaN: such a score is null.
Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
double number(const Json& json, double otherwise) { return json.is_number() ? json.get<double>() : otherwise; }

Json to_json(const TrainProgress& p) {
  Json history = Json::array();
  for (const EpochLog& log : p.result.history) history.push_back(to_json(log));
  return {{"epoch", p.epoch},
          {"step", p.step},
          {"loss_sum", p.loss_sum},
          {"loss_steps", p.loss_steps},
          {"epoch_seconds", p.epoch_seconds},
          {"bad_epochs", p.bad_epochs},
          {"finished", p.finished},
          {"best_epoch", p.result.best_epoch},
          {"best_score", finite(p.result.best_score)},
          {"stopped_early", p.result.stopped_early},
          {"skipped_steps", p.result.skipped_steps},
          {"seconds", p.result.seconds},
          {"samples_seen", p.result.samples_seen},
          {"history", history}};
}

TrainProgress progress_from(const Json& json) {
  TrainProgress p;
  p.epoch = json.at("epoch");
  p.step = json.at("step");
  p.loss_sum = json.at("loss_sum");
  p.loss_steps = json.at("loss_steps");
  p.epoch_seconds = json.at("epoch_seconds");
  p.bad_epochs = json.at("bad_epochs");
  p.finished = json.at("finished");
  p.result.best_epoch = json.at("best_epoch");
  p.result.best_score = number(json.at("best_score"), p.result.best_score);
  p.result.stopped_early = json.at("stopped_early");
  p.result.skipped_steps = json.at("skipped_steps");
  p.result.seconds = json.at("seconds");
  p.result.samples_seen = json.at("samples_seen");
  for (const Json& line : json.at("history")) {
    EpochLog log;
    log.epoch = line.at("epoch");
    log.loss = number(line.at("loss"), log.score);
    log.score = number(line.at("score"), log.score);
    log.learning_rate = line.at("learning_rate");
    log.seconds = line.at("seconds");
    log.observed = line.value("observed", Json());
    p.result.history.push_back(std::move(log));
  }
  return p;
}

}  // namespace

Json to_json(const EpochLog& log) {
  Json line = {{"epoch", log.epoch},
               {"loss", finite(log.loss)},
               {"score", finite(log.score)},
               {"learning_rate", log.learning_rate},
               {"seconds", log.seconds}};
  if (!log.observed.is_null()) line["observed"] = log.observed;
  return line;
}

void save_checkpoint(const fs::path& path, const TrainCheckpoint& checkpoint) {
  save_tensors(path, checkpoint.tensors,
               {{"format", "lighten-training-1"},
                {"fingerprint", json_text(checkpoint.fingerprint)},
                {"progress", json_text(to_json(checkpoint.progress))}});
}

std::optional<TrainCheckpoint> load_checkpoint(const fs::path& path, const Json& fingerprint) {
  if (!fs::exists(path)) return std::nullopt;
  TrainCheckpoint checkpoint;
  try {
    const std::map<std::string, std::string> metadata = SafetensorsFile(path).metadata();
    checkpoint.fingerprint = Json::parse(metadata.at("fingerprint"));
    checkpoint.progress = progress_from(Json::parse(metadata.at("progress")));
  } catch (const FormatError& error) {
    throw_error<FormatError>("{}; remove this checkpoint to start anew", error.what());
  } catch (const std::out_of_range&) {
    throw_error<FormatError>("{}: not a checkpoint of a training; remove it to start anew", path.string());
  } catch (const Json::exception& error) {
    throw_error<FormatError>("{}: not a checkpoint of a training ({}); remove it to start anew", path.string(), error.what());
  }
  for (const auto& [key, value] : fingerprint.items())
    if (const Json before = checkpoint.fingerprint.value(key, Json()); before != value)
      throw_error<OptionError>("{}: was made with {} = {}, not {}; give the same options to go on, or remove it to start anew",
                               path.string(), key, json_text(before), json_text(value));
  checkpoint.tensors = load_tensors(path);
  return checkpoint;
}

}  // namespace lighten
