#include "lighten/train/over_ranks.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/nn/norm.h"

namespace lighten {

struct GradientSums::State {
  struct Bucket {
    std::vector<size_t> parameters;
    std::vector<int64_t> offsets;
    torch::Tensor values;  ///< the gradients, then 1 or 0 for each: whether there was one
    int64_t missing = 0;
    Ranks::Sum sum;
    float& flag(size_t place) {
      return values.data_ptr<float>()[values.numel() - std::ssize(parameters) + static_cast<int64_t>(place)];
    }
  };
  std::vector<torch::Tensor> parameters;
  std::vector<size_t> bucket_of, place_of;
  std::vector<Bucket> buckets;
  std::vector<uint8_t> arrived;
  size_t sent = 0;
  int64_t sent_early = 0;
  Ranks* ranks = nullptr;

  void take(size_t parameter);
  void send_next();
  void begin();
};

namespace {

struct Hook : torch::autograd::PostAccumulateGradHook {
  Hook(std::weak_ptr<GradientSums::State> owner, size_t which);
  void operator()(const torch::autograd::Variable& parameter) override;
  std::weak_ptr<GradientSums::State> state;
  size_t index;
};

}  // namespace

/// A gradient is there: into its bucket, and off with the bucket if it is full and the next in turn.
void GradientSums::State::take(size_t index) {
  if (arrived[index]) return;
  const torch::NoGradGuard no_gradients;
  arrived[index] = 1;
  Bucket& bucket = buckets[bucket_of[index]];
  torch::Tensor slot = bucket.values.narrow(0, bucket.offsets[place_of[index]], parameters[index].numel());
  const bool there = parameters[index].grad().defined();
  if (there)
    slot.copy_(parameters[index].grad().reshape(-1));
  else
    slot.zero_();
  bucket.flag(place_of[index]) = there ? 1.0F : 0.0F;
  --bucket.missing;
  for (size_t i = 0; i < sent; ++i) buckets[i].sum.progress();
  while (sent < buckets.size() && buckets[sent].missing == 0) send_next();
}

void GradientSums::State::send_next() {
  Bucket& bucket = buckets[sent++];
  bucket.sum = ranks->start_sum({bucket.values.data_ptr<float>(), static_cast<size_t>(bucket.values.numel())});
}

void GradientSums::State::begin() {
  sent = 0;
  std::fill(arrived.begin(), arrived.end(), 0);
  for (Bucket& bucket : buckets) bucket.missing = std::ssize(bucket.parameters);
}

namespace {

Hook::Hook(std::weak_ptr<GradientSums::State> owner, size_t which) : state(std::move(owner)), index(which) {}

void Hook::operator()(const torch::autograd::Variable&) {
  if (const auto held = state.lock()) held->take(index);
}

}  // namespace

GradientSums::GradientSums(const std::vector<torch::Tensor>& parameters, Ranks& ranks, int64_t bucket_bytes)
    : state_(std::make_shared<State>()) {
  State& state = *state_;
  state.ranks = &ranks;
  for (const torch::Tensor& parameter : parameters)
    if (parameter.requires_grad()) state.parameters.push_back(parameter);
  state.bucket_of.resize(state.parameters.size());
  state.place_of.resize(state.parameters.size());
  state.arrived.resize(state.parameters.size());
  int64_t filled = 0;
  const auto close = [&] {
    if (!state.buckets.empty())
      state.buckets.back().values = torch::empty({filled + std::ssize(state.buckets.back().parameters)});
  };
  for (size_t i = state.parameters.size(); i-- > 0;) {
    if (state.buckets.empty() || (filled + state.parameters[i].numel()) * static_cast<int64_t>(sizeof(float)) > bucket_bytes) {
      close();
      state.buckets.emplace_back();
      filled = 0;
    }
    state.bucket_of[i] = state.buckets.size() - 1;
    state.place_of[i] = state.buckets.back().parameters.size();
    state.buckets.back().parameters.push_back(i);
    state.buckets.back().offsets.push_back(filled);
    filled += state.parameters[i].numel();
    torch::autograd::impl::set_post_acc_grad_hooks(state.parameters[i], std::make_unique<Hook>(state_, i));
  }
  close();
  state.begin();
}

GradientSums::~GradientSums() {
  for (const torch::Tensor& parameter : state_->parameters) torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
}

int64_t GradientSums::buckets() const { return std::ssize(state_->buckets); }
int64_t GradientSums::sent_early() const { return state_->sent_early; }

void GradientSums::finish() {
  const torch::NoGradGuard no_gradients;
  State& state = *state_;
  state.sent_early = static_cast<int64_t>(state.sent);
  for (size_t i = state.parameters.size(); i-- > 0;) state.take(i);
  for (State::Bucket& bucket : state.buckets) {
    bucket.sum.wait();
    for (size_t k = 0; k < bucket.parameters.size(); ++k) {
      const torch::Tensor& parameter = state.parameters[bucket.parameters[k]];
      if (bucket.flag(k) == 0) {
        parameter.mutable_grad().reset();  // as in one process: an optimizer leaves it alone
        continue;
      }
      const torch::Tensor sum = bucket.values.narrow(0, bucket.offsets[k], parameter.numel()).view_as(parameter);
      if (parameter.grad().defined())
        parameter.mutable_grad().copy_(sum);
      else
        parameter.mutable_grad() = sum.clone();
    }
  }
  state.begin();
}

namespace {

/// What belongs to a task over ranks while it lives.
struct Sharing {
  Ranks& ranks;
  std::vector<torch::nn::Module*> modules;
  GradientSums sums;
  Sharing(const TrainTask& task, const std::vector<torch::Tensor>& parameters, Ranks& world, int64_t bucket_bytes)
      : ranks(world), sums(parameters, world, bucket_bytes) {
    for (const TrainedModule& trained : task.modules) {
      modules.push_back(trained.module);
      synchronise_norms(*trained.module, &ranks);
    }
  }
  ~Sharing() {
    for (torch::nn::Module* module : modules) synchronise_norms(*module, nullptr);
  }
  Sharing(const Sharing&) = delete;
  Sharing& operator=(const Sharing&) = delete;
};

void broadcast_state(const TrainTask& task, Ranks& ranks) {
  const torch::NoGradGuard no_gradients;
  for (const TrainedModule& trained : task.modules)
    for (const auto& [name, tensor] : state_of(*trained.module)) {
      torch::Tensor values = tensor.contiguous();
      ranks.broadcast({static_cast<std::byte*>(values.data_ptr()), static_cast<size_t>(values.nbytes())});
      tensor.copy_(values);
    }
}

}  // namespace

TrainTask over_ranks(TrainTask task, Ranks& ranks, int64_t bucket_bytes) {
  if (ranks.size() == 1) return task;
  std::vector<torch::Tensor> parameters;
  for (const TrainedModule& trained : task.modules)
    for (const torch::Tensor& parameter : trained.module->parameters()) parameters.push_back(parameter);
  broadcast_state(task, ranks);
  const auto sharing = std::make_shared<Sharing>(task, parameters, ranks, bucket_bytes);
  task.writes = ranks.first();
  task.loss = [whole = task.loss, sharing](const TrainStep& step) {
    Ranks& all = sharing->ranks;
    const auto n = static_cast<int64_t>(step.samples.size()), count = static_cast<int64_t>(all.size());
    if (n < count)
      throw_error<OptionError>("a batch of {} samples cannot be shared by {} processes; take larger batches", n, count);
    const int64_t begin = n * all.rank() / count, end = n * (all.rank() + 1) / count;
    TrainStep share = step;
    share.samples = step.samples.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    const torch::Tensor own = whole(share) * (static_cast<double>(end - begin) / static_cast<double>(n));
    double total = own.item<double>();
    all.sum(std::span(&total, 1));
    return own + (total - own).detach();  // the whole batch's value, this share's gradient
  };
  task.after_backward = [before = task.after_backward, sharing] {
    if (before) before();
    sharing->sums.finish();
  };
  if (task.validate)
    task.validate = [own = task.validate, sharing] {
      double score = own();
      sharing->ranks.broadcast(std::as_writable_bytes(std::span(&score, 1)));
      return score;
    };
  task.after_resume = [before = task.after_resume, sharing](int64_t global_step) {
    if (before) before(global_step);
    int64_t first = global_step;
    sharing->ranks.broadcast(std::as_writable_bytes(std::span(&first, 1)));
    int64_t others = first != global_step;
    sharing->ranks.sum(std::span(&others, 1));
    if (others > 0)
      throw_error<FileError>(
          "{} of {} processes found another checkpoint than the first one; the output must be in a folder that all see", others,
          sharing->ranks.size());
  };
  return task;
}

}  // namespace lighten
