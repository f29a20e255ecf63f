// The rounds: who is visited, on which rank, what goes over the wire, and where it is kept.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/systems/labels/fedlabel/fedlabel.h"
#include "lighten/train/checkpoint.h"
#include "lighten/train/loader.h"

namespace lighten {
namespace {

using Clock = std::chrono::steady_clock;
using Bytes = std::vector<std::byte>;

/// The values of a state one after the other, as they go over a wire.
void append_values(Bytes& bytes, const NamedTensors& state) {
  for (const auto& [name, tensor] : state) {
    const torch::Tensor values = tensor.contiguous();
    const auto* data = static_cast<const std::byte*>(values.const_data_ptr());
    bytes.insert(bytes.end(), data, data + values.nbytes());
  }
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool done() const { return at_ == bytes_.size(); }
  template <typename T>
  T value() {
    T result;
    copy(&result, sizeof(T));
    return result;
  }
  void values(const NamedTensors& state) {
    const torch::NoGradGuard no_gradients;
    for (const auto& [name, tensor] : state) {
      torch::Tensor values = torch::empty_like(tensor, torch::MemoryFormat::Contiguous);
      copy(values.data_ptr(), values.nbytes());
      tensor.copy_(values);
    }
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  void copy(void* target, size_t size) {
    if (bytes_.size() - at_ < size) throw Error("a message of another rank is too short");
    std::memcpy(target, bytes_.data() + at_, size);
    at_ += size;
  }
};

template <typename T>
void append(Bytes& bytes, const T& value) {
  const auto* data = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), data, data + sizeof(T));
}

/// One visit as a message between ranks: place in the round, weight, loss, audit, weights.
void append_update(Bytes& bytes, int64_t place, const ClientUpdate& update) {
  append(bytes, place);
  append(bytes, update.weight);
  append(bytes, update.loss);
  const std::vector<int64_t> numbers = update.audit.numbers();
  append(bytes, static_cast<int64_t>(numbers.size()));
  for (const int64_t number : numbers) append(bytes, number);
  append_values(bytes, update.state);
}

void read_updates(std::span<const std::byte> bytes, const NamedTensors& like, std::vector<ClientUpdate>& updates) {
  Reader reader(bytes);
  while (!reader.done()) {
    ClientUpdate& update = updates.at(static_cast<size_t>(reader.value<int64_t>()));
    update.weight = reader.value<double>();
    update.loss = reader.value<double>();
    std::vector<int64_t> numbers(static_cast<size_t>(reader.value<int64_t>()));
    for (int64_t& number : numbers) number = reader.value<int64_t>();
    update.audit = PseudoAudit::from(numbers);
    update.state = cloned(like);
    reader.values(update.state);
  }
}

class Federation {
 public:
  Federation(const FederatedTask& task, Labeller labeller, const FedLabelOptions& options, const fs::path& folder,
             Ranks& ranks);
  FederatedResult run();

 private:
  const FederatedTask& task_;
  Labeller labeller_;
  const FedLabelOptions& options_;
  fs::path folder_;
  Ranks& ranks_;
  FederatedNet global_, local_;
  NamedTensors state_, local_state_, best_;
  std::vector<size_t> eligible_;
  Json fingerprint_;
  TrainProgress at_;  ///< epoch: the next round
  PseudoAudit audit_;
  int64_t bytes_down_ = 0, bytes_up_ = 0;
  Clock::time_point round_start_ = Clock::now();

  void resume();
  void save() const;
  void share_state();
  std::vector<size_t> drawn() const;
  void take_round();
  void close_round(const std::vector<size_t>& clients, const std::vector<ClientUpdate>& updates);
};

Federation::Federation(const FederatedTask& task, Labeller labeller, const FedLabelOptions& options, const fs::path& folder,
                       Ranks& ranks)
    : task_(task),
      labeller_(labeller),
      options_(options),
      folder_(folder),
      ranks_(ranks),
      global_(task.make_net()),
      local_(task.make_net()),
      state_(state_of(*global_.module)),
      local_state_(state_of(*local_.module)) {
  for (size_t k = 0; k < task.clients.size(); ++k)
    if (labeller != Labeller::labelled_only || !task.clients[k].labelled.empty()) eligible_.push_back(k);
  FedLabelOptions copy = options;
  fingerprint_ = to_json(describe(copy));
  for (const auto& [name, value] : task.identity.items()) fingerprint_[name] = value;
  fingerprint_["labeller"] = static_cast<int>(labeller);
  fingerprint_["clients"] = task.clients.size();
}

void Federation::resume() {
  if (folder_.empty() || !ranks_.first()) return;
  const fs::path file = folder_ / "checkpoint.safetensors";
  const std::optional<TrainCheckpoint> found = load_checkpoint(file, fingerprint_);
  if (!found) return;
  const auto part = [&](const std::string& prefix) {
    NamedTensors tensors;
    for (const auto& [name, tensor] : found->tensors)
      if (name.starts_with(prefix)) tensors.emplace_back(name.substr(prefix.size()), tensor);
    return tensors;
  };
  at_ = found->progress;
  copy_state(part("net."), state_, file.string());
  if (at_.result.best_epoch >= 0) {
    best_ = cloned(state_);
    copy_state(part("best."), best_, file.string());
  }
  for (const EpochLog& log : at_.result.history) {
    audit_.add(PseudoAudit::from(log.observed.at("counts")));
    bytes_down_ += log.observed.at("bytes_down").get<int64_t>();
    bytes_up_ += log.observed.at("bytes_up").get<int64_t>();
  }
  if (at_.epoch < options_.rounds) info(fmt::format("{}: going on at round {}", task_.title, at_.epoch + 1));
}

void Federation::save() const {
  if (folder_.empty() || !ranks_.first()) return;
  TrainCheckpoint checkpoint{.fingerprint = fingerprint_, .progress = at_, .tensors = {}};
  for (const auto& [name, tensor] : state_) checkpoint.tensors.emplace_back("net." + name, tensor);
  for (const auto& [name, tensor] : best_) checkpoint.tensors.emplace_back("best." + name, tensor);
  save_checkpoint(folder_ / "checkpoint.safetensors", checkpoint);
  std::string lines;
  for (const EpochLog& log : at_.result.history) lines += json_text(to_json(log)) + "\n";
  write_file(folder_ / "log.jsonl", lines);
}

/// All ranks get the first rank's weights.
void Federation::share_state() {
  if (ranks_.size() == 1) return;
  Bytes bytes;
  append_values(bytes, state_);
  ranks_.broadcast(bytes);
  Reader(bytes).values(state_);
}

/// The clients of this round.
std::vector<size_t> Federation::drawn() const {
  std::vector<size_t> clients = eligible_;
  Random random(derived_seed(options_.seed, 50, static_cast<uint64_t>(at_.epoch)));
  random.shuffle(clients);
  clients.resize(std::min<size_t>(clients.size(), static_cast<size_t>(options_.clients_per_round)));
  std::sort(clients.begin(), clients.end());
  return clients;
}

void Federation::take_round() {
  round_start_ = Clock::now();
  const std::vector<size_t> clients = drawn();
  const uint64_t seed = derived_seed(options_.seed, 51, static_cast<uint64_t>(at_.epoch));
  std::vector<ClientUpdate> updates(clients.size());
  Bytes message;
  for (size_t place = static_cast<size_t>(ranks_.rank()); place < clients.size(); place += static_cast<size_t>(ranks_.size())) {
    copy_state(state_, local_state_, task_.title);
    updates[place] = client_step(local_, global_, task_, task_.clients[clients[place]], labeller_, options_,
                                 derived_seed(seed, clients[place]));
    if (!ranks_.first()) append_update(message, static_cast<int64_t>(place), updates[place]);
  }
  for (const Bytes& of_rank : ranks_.gather(message)) read_updates(of_rank, state_, updates);
  if (ranks_.first()) {
    aggregate(state_, updates, options_.server_rate);
    close_round(clients, updates);
  }
  ++at_.epoch;
  share_state();
}

/// Log, bytes, validation; on the first rank.
void Federation::close_round(const std::vector<size_t>& clients, const std::vector<ClientUpdate>& updates) {
  EpochLog log;
  log.epoch = at_.epoch;
  log.learning_rate = options_.learning_rate;
  PseudoAudit audit;
  int64_t down = 0, up = 0;
  std::vector<std::string> names;
  for (size_t i = 0; i < updates.size(); ++i) {
    log.loss += updates[i].loss / static_cast<double>(updates.size());
    audit.add(updates[i].audit);
    down += bytes_of(state_);
    up += bytes_of(updates[i].state) + static_cast<int64_t>(sizeof(updates[i].weight));
    names.push_back(task_.clients[clients[i]].name);
  }
  audit_.add(audit);
  bytes_down_ += down;
  bytes_up_ += up;
  const bool last = at_.epoch + 1 == options_.rounds;
  if (task_.validate && (last || (at_.epoch + 1) % options_.check_every == 0)) {
    const torch::NoGradGuard no_gradients;
    global_.module->eval();
    log.score = task_.validate(global_);
    if (at_.result.best_epoch < 0 || log.score > at_.result.best_score) {
      at_.result.best_epoch = at_.epoch;
      at_.result.best_score = log.score;
      best_ = cloned(state_);
    }
  }
  log.observed = to_json(audit, !task_.hidden.empty());
  log.observed["bytes_down"] = down;
  log.observed["bytes_up"] = up;
  log.observed["clients"] = names;
  log.observed["counts"] = audit.numbers();
  log.seconds = std::chrono::duration<double>(Clock::now() - round_start_).count();
  at_.result.seconds += log.seconds;
  at_.result.history.push_back(std::move(log));
}

FederatedResult Federation::run() {
  if (!folder_.empty() && ranks_.first()) fs::create_directories(folder_);
  resume();
  int64_t begin = at_.epoch;
  ranks_.broadcast(std::as_writable_bytes(std::span(&begin, 1)));
  at_.epoch = begin;
  share_state();
  Progress progress(task_.title, options_.rounds, "rounds");
  progress.skip(begin);
  while (at_.epoch < options_.rounds) {
    take_round();
    at_.finished = at_.epoch == options_.rounds;
    save();
    std::string note;
    if (!at_.result.history.empty()) {
      std::vector<double> losses;
      for (const EpochLog& log : at_.result.history) losses.push_back(log.loss);
      note = fmt::format("loss {:.4g} {}", losses.back(), sparkline(losses));
      if (at_.result.best_epoch >= 0) note += fmt::format(" validation {:.4g}", at_.result.best_score);
    }
    progress.advance(1, note);
  }
  progress.finish();
  if (!best_.empty()) copy_state(best_, state_, task_.title);
  share_state();
  global_.module->eval();
  FederatedResult result{.net = global_, .rounds = at_.result.history, .audit = audit_};
  result.best_round = at_.result.best_epoch;
  result.best_score = at_.result.best_score;
  result.bytes_down = bytes_down_;
  result.bytes_up = bytes_up_;
  return result;
}

}  // namespace

FederatedResult federate(const FederatedTask& task, Labeller labeller, const FedLabelOptions& options, const fs::path& folder,
                         Ranks& ranks) {
  FedLabelOptions copy = options;
  validate(describe(copy));
  check_task(task);
  return Federation(task, labeller, options, folder, ranks).run();
}

}  // namespace lighten
