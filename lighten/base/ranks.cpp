#include "lighten/base/ranks.h"

#include <algorithm>
#include <array>
#include <limits>

#include "lighten/base/error.h"

#if defined(LIGHTEN_MPI)
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#endif

namespace lighten {
namespace {

bool started = false;

#if defined(LIGHTEN_MPI)
constexpr size_t kLargestMessage = 1 << 30;  // MPI counts in int
MPI_Comm begun = MPI_COMM_NULL;              // of the sums that are begun, so that they are ordered among themselves alone

void check(int code, const char* doing) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw_error<Error>("MPI could not {}: {}", doing, std::string(text.data(), static_cast<size_t>(length)));
}

template <typename T>
void sum_all(std::span<T> values, MPI_Datatype type) {
  for (size_t begin = 0; begin < values.size(); begin += kLargestMessage) {
    const auto count = static_cast<int>(std::min(kLargestMessage, values.size() - begin));
    check(MPI_Allreduce(MPI_IN_PLACE, values.data() + begin, count, type, MPI_SUM, MPI_COMM_WORLD), "sum over ranks");
  }
}
#endif

}  // namespace

Ranks::Ranks() {
  if (launched_processes() == 1) return;
#if defined(LIGHTEN_MPI)
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "start");
  started = true;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  check(MPI_Comm_dup(MPI_COMM_WORLD, &begun), "make a second communicator");  // takes over the error handler
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "tell the rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "tell the number of ranks");
#else
  throw Error(
      "this program was started by an MPI launcher but built without MPI; install libopenmpi-dev and build it again, or start "
      "it "
      "without mpirun");
#endif
}

Ranks& Ranks::world() {
  static Ranks ranks;
  return ranks;
}

#if defined(LIGHTEN_MPI)
void Ranks::sum(std::span<float> values) {
  if (size_ > 1) sum_all(values, MPI_FLOAT);
}
void Ranks::sum(std::span<double> values) {
  if (size_ > 1) sum_all(values, MPI_DOUBLE);
}
void Ranks::sum(std::span<int64_t> values) {
  if (size_ > 1) sum_all(values, MPI_INT64_T);
}

Ranks::Sum Ranks::start_sum(std::span<float> values) {
  Sum sum;
  if (size_ == 1 || values.empty()) return sum;
  if (values.size() > kLargestMessage) throw_error<Error>("a bucket of {} values is too large for one sum", values.size());
  auto request = std::make_shared<MPI_Request>(MPI_REQUEST_NULL);
  check(MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM, begun, request.get()),
        "begin a sum over ranks");
  sum.request_ = request;
  return sum;
}

void Ranks::Sum::wait() {
  if (!request_) return;
  check(MPI_Wait(static_cast<MPI_Request*>(request_.get()), MPI_STATUS_IGNORE), "sum over ranks");
  request_.reset();
}

void Ranks::Sum::progress() {
  if (!request_) return;
  int done = 0;
  check(MPI_Test(static_cast<MPI_Request*>(request_.get()), &done, MPI_STATUS_IGNORE), "sum over ranks");
}

void Ranks::broadcast(std::span<std::byte> bytes, int from) {
  for (size_t begin = 0; size_ > 1 && begin < bytes.size(); begin += kLargestMessage) {
    const auto count = static_cast<int>(std::min(kLargestMessage, bytes.size() - begin));
    check(MPI_Bcast(bytes.data() + begin, count, MPI_BYTE, from, MPI_COMM_WORLD), "send to all ranks");
  }
}

std::vector<std::vector<std::byte>> Ranks::gather(std::span<const std::byte> bytes) {
  if (size_ == 1) return {{bytes.begin(), bytes.end()}};
  std::vector<int64_t> sizes(static_cast<size_t>(size_), 0);
  sizes[static_cast<size_t>(rank_)] = static_cast<int64_t>(bytes.size());
  sum(std::span(sizes));
  std::vector<std::vector<std::byte>> all;
  const auto pieces = [](std::byte* data, size_t size, auto move) {
    for (size_t begin = 0; begin < size; begin += kLargestMessage)
      move(data + begin, static_cast<int>(std::min(kLargestMessage, size - begin)));
  };
  if (!first()) {
    pieces(const_cast<std::byte*>(bytes.data()), bytes.size(), [&](std::byte* data, int count) {
      check(MPI_Send(data, count, MPI_BYTE, 0, 0, MPI_COMM_WORLD), "send to the first rank");
    });
    return all;
  }
  for (int from = 0; from < size_; ++from) {
    std::vector<std::byte>& one = all.emplace_back(static_cast<size_t>(sizes[static_cast<size_t>(from)]));
    if (from == 0)
      std::copy(bytes.begin(), bytes.end(), one.begin());
    else
      pieces(one.data(), one.size(), [&](std::byte* data, int count) {
        check(MPI_Recv(data, count, MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "receive from another rank");
      });
  }
  return all;
}

void Ranks::barrier() {
  if (size_ > 1) check(MPI_Barrier(MPI_COMM_WORLD), "wait for all ranks");
}

void finish_ranks(int exit_code) {
  if (!started) return;
  started = false;
  if (exit_code != 0)
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  else
    MPI_Finalize();
}
#else
void Ranks::sum(std::span<float>) {}
void Ranks::sum(std::span<double>) {}
void Ranks::sum(std::span<int64_t>) {}
Ranks::Sum Ranks::start_sum(std::span<float>) { return {}; }
void Ranks::Sum::wait() {}
void Ranks::Sum::progress() {}
void Ranks::broadcast(std::span<std::byte>, int) {}
std::vector<std::vector<std::byte>> Ranks::gather(std::span<const std::byte> bytes) { return {{bytes.begin(), bytes.end()}}; }
void Ranks::barrier() {}
void finish_ranks(int) { (void)started; }
#endif

}  // namespace lighten
