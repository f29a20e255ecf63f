// The one thread pool of the torch-free parts.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace lighten {

/// Fixed set of workers that wait for the next loop: they spin for a few microseconds, then sleep. The calling thread works
/// too. Work is claimed in small pieces, so a core that is lost to another program costs its share and not a stall. One loop at
/// a time: parallel_for from two threads at once is serialised; a nested call runs in the calling thread.
class ThreadPool {
 public:
  /// usable_threads(threads) workers in all, the caller included.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  /// Calls body(begin, end) over [0, n) in pieces of at most `grain` items, each item exactly once; returns when all are done.
  /// The first exception that a piece throws is rethrown here, after all pieces have ended.
  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Number of processors this process may use.
int available_processors();
/// How many threads to work with when `asked` are asked for: 0 = as many as the processor runs at once (the affinity mask is
/// respected); at most four times that, with one warning, because more of them mostly wait for each other.
int usable_threads(int asked);

}  // namespace lighten
