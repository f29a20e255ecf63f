#include "lighten/base/launched.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <initializer_list>
#include <thread>

#include "lighten/base/progress.h"
#include "lighten/base/ranks.h"

namespace lighten {
namespace {

constexpr int kInterrupted = 130;  // exit code
constexpr auto kTimeToWrite = std::chrono::milliseconds(5000), kTimeToTell = std::chrono::milliseconds(1500),
               kTimeOfARank = std::chrono::milliseconds(200), kPause = std::chrono::milliseconds(20);
constexpr int kMostWaitedFor = 10;  // ranks

/// Of the first variable that is set.
int number_in(std::initializer_list<const char*> variables, int otherwise) {
  for (const char* name : variables)
    if (const char* text = std::getenv(name); text != nullptr && *text != '\0') return std::atoi(text);
  return otherwise;
}

}  // namespace

int launched_processes() {
  return std::max(1, number_in({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS"}, 1));
}

int launched_rank() {
  if (launched_processes() == 1) return 0;
  return std::max(0, number_in({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "MPI_LOCALRANKID", "SLURM_PROCID"}, 0));
}

bool tells_error(int exit_code) {
  const int rank = launched_rank();
  if (rank == 0) return true;
  const bool stopped = interrupt_requested();
  const auto wait = exit_code == kInterrupted ? kTimeToWrite : kTimeToTell + std::min(rank, kMostWaitedFor) * kTimeOfARank;
  const auto end = std::chrono::steady_clock::now() + wait;
  while (std::chrono::steady_clock::now() < end) {
    if (!stopped && interrupt_requested()) return false;  // the launcher ends what is left
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

}  // namespace lighten
