// Several processes that work on one thing under mpirun or srun: sums, broadcasts, gathering. Alone, every call does nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace lighten {

/// The processes of this run. MPI is set up by the first call of world(), and only under a launcher (one of the variables that
/// mpirun and srun set tells more than one process); otherwise there is one rank and MPI is never touched. Calls are
/// collective: all ranks make them in the same order, from the thread that called world() first.
class Ranks {
 public:
  /// Throws Error under a launcher if this program was built without MPI.
  static Ranks& world();
  int rank() const { return rank_; }
  int size() const { return size_; }
  bool first() const { return rank_ == 0; }

  /// Every rank gets the sum of all ranks' values, in place. The order of summation is fixed for a number of ranks.
  void sum(std::span<float> values);
  void sum(std::span<double> values);
  void sum(std::span<int64_t> values);
  /// The same, begun: values must not be touched before wait(), which must be called in the order of starting. Sums that were
  /// begun are ordered among themselves alone: the calls above may come in between, at other places on other ranks.
  class Sum {
   public:
    Sum() = default;
    void wait();
    /// Lets the sum go on without waiting: many libraries only work on it when they are called.
    void progress();

   private:
    friend class Ranks;
    std::shared_ptr<void> request_;
  };
  Sum start_sum(std::span<float> values);
  /// All ranks get what rank `from` has; sizes are equal.
  void broadcast(std::span<std::byte> bytes, int from = 0);
  /// On the first rank: what every rank gave, in order of rank; elsewhere nothing.
  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> bytes);
  void barrier();

 private:
  Ranks();
  int rank_ = 0, size_ = 1;
};

/// How many processes the launcher says there are; 1 without one.
int launched_processes();
/// To be called at the end of main: a success waits for the other ranks; a failure ends them all at once (base/launched.h says
/// which of them tells it, and when). Does nothing without MPI.
void finish_ranks(int exit_code);

}  // namespace lighten
