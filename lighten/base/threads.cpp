#include "lighten/base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "lighten/base/progress.h"

namespace lighten {
namespace {
constexpr int kThreadsPerProcessor = 4;
constexpr int kSpins = 2000;  // about 20-50 us of pause instructions before a worker sleeps
thread_local bool inside_loop = false;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}
}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex loop_mutex;  // one loop at a time

  // The current loop. `epoch` is bumped under `mutex` when a loop starts; workers that see a new epoch join it.
  std::mutex mutex;
  std::condition_variable wake, finished;
  std::atomic<uint64_t> epoch{0};
  std::atomic<bool> stop{false};
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t n = 0, grain = 1;
  std::atomic<int64_t> next{0};
  int active = 0;  // workers inside the loop, guarded by mutex
  std::atomic<int> active_hint{0};
  bool open = false;  // the loop may be joined, guarded by mutex
  std::exception_ptr failure;

  void work() {
    inside_loop = true;
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) break;
      try {
        (*body)(begin, std::min(begin + grain, n));
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    }
    inside_loop = false;
  }

  void serve() {
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < kSpins && epoch.load(std::memory_order_acquire) == seen && !stop; ++i) pause();
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stop || epoch.load() != seen; });
        if (stop) return;
        seen = epoch.load();
        if (!open) continue;
        ++active;
        active_hint.store(active, std::memory_order_relaxed);
      }
      work();
      {
        const std::lock_guard lock(mutex);
        --active;
        active_hint.store(active, std::memory_order_release);
        if (active == 0) finished.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  threads = usable_threads(threads);
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get()] { s->serve(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (inside_loop || state_->workers.empty() || n <= grain) {
    for (int64_t begin = 0; begin < n; begin += grain) body(begin, std::min(begin + grain, n));
    return;
  }
  State& s = *state_;
  const std::lock_guard one_loop(s.loop_mutex);
  {
    const std::lock_guard lock(s.mutex);
    s.body = &body;
    s.n = n;
    s.grain = grain;
    s.next.store(0, std::memory_order_relaxed);
    s.failure = nullptr;
    s.open = true;
    s.epoch.fetch_add(1, std::memory_order_release);
  }
  s.wake.notify_all();
  s.work();
  std::unique_lock lock(s.mutex);
  s.open = false;  // late workers stay out; those inside finish the piece they hold
  if (s.active > 0) {
    lock.unlock();
    for (int i = 0; i < kSpins && s.active_hint.load(std::memory_order_acquire) > 0; ++i) pause();
    lock.lock();
    s.finished.wait(lock, [&] { return s.active == 0; });
  }
  if (s.failure) std::rethrow_exception(std::exchange(s.failure, nullptr));
}

int usable_threads(int asked) {
  const int processors = available_processors(), most = kThreadsPerProcessor * processors;
  if (asked <= 0) return processors;
  if (asked <= most) return asked;
  static std::once_flag warned;
  std::call_once(warned, [&] {
    warn(fmt::format("{} threads were asked for, but there are {} processors; working with {}", asked, processors, most));
  });
  return most;
}

int available_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace lighten
