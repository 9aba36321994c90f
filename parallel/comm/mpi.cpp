// The world under an MPI launcher: messages are Isend and Irecv, polled with Test. MPI's own collectives are
// not used where a rank could be missing: they have no deadline.
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "parallel/comm/backends.h"
#include "parallel/comm/peer_communicator.h"

namespace switchyard {
namespace {

// Leaving MPI talks to the launcher, which may be on its way out.
constexpr double kPatience = 1.5;  // seconds
constexpr int kPollsBeforeYield = 64;
constexpr int kPollsPerClock = 64;

// MPI is one per process, and so is this.
struct {
  bool entered = false;  // by us
  double timeout_seconds = 0;
} g_mpi;

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(Fault::kPeer, call, ": ", text);
}

bool mpi_is_on() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

// Polls until the request is done (true) or the deadline has passed.
bool poll(MPI_Request& request, Transport::Time deadline) {
  for (int polls = 1;; ++polls) {
    int done = 0;
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) return true;
    if (polls < kPollsBeforeYield) continue;
    std::this_thread::yield();
    if (polls % kPollsPerClock == 0 && std::chrono::steady_clock::now() > deadline) return false;
  }
}

class MpiTransport final : public Transport {
 public:
  // Takes over the communicator.
  explicit MpiTransport(MPI_Comm comm) : comm_(comm) { MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN); }
  ~MpiTransport() override {
    // After a failure a peer may never free its own.
    if (!broken_ && mpi_is_on()) MPI_Comm_free(&comm_);
  }

  Request send(const void* data, int64_t bytes, int peer, int tag) override {
    MPI_Request request;
    check(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &request), "MPI_Isend");
    return requests_.add(request);
  }
  Request recv(void* data, int64_t bytes, int peer, int tag) override {
    MPI_Request request;
    check(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &request), "MPI_Irecv");
    return requests_.add(request);
  }
  bool wait(Request request, Time deadline) override {
    if (!poll(requests_[request], deadline)) return false;
    requests_.remove(request);
    return true;
  }
  // MPI may still read or write the memory of a message under way: the process is
  // expected to end (abort_world).
  void cancel(Request request) noexcept override {
    broken_ = true;
    if (requests_[request] != MPI_REQUEST_NULL) {
      MPI_Cancel(&requests_[request]);
      MPI_Request_free(&requests_[request]);
    }
    requests_.remove(request);
  }
  std::unique_ptr<Transport> subgroup(std::span<const int> members) override {
    int rank = 0;
    MPI_Comm_rank(comm_, &rank);
    const auto key = std::find(members.begin(), members.end(), rank) - members.begin();
    MPI_Comm sub;
    check(
        MPI_Comm_split(comm_, *std::min_element(members.begin(), members.end()), static_cast<int>(key), &sub),
        "MPI_Comm_split");
    return std::make_unique<MpiTransport>(sub);
  }
  // The launcher ends the others when this process ends by abort_world().
  void abort(const std::string&) noexcept override { broken_ = true; }

 private:
  MPI_Comm comm_;
  bool broken_ = false;
  RequestSlots<MPI_Request> requests_;
};

void enter() {
  if (mpi_is_on()) return;
  // Twice as fast between two ranks of a node as Open MPI's default, from 8 KiB to 4 MiB.
  setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  g_mpi.entered = true;
}

std::atomic<bool> g_left = false;  // MPI_Finalize has returned

// Ends the process with this code if it is still in MPI when patience is over.
void start_watchdog(int exit_code, double seconds) noexcept {
  try {
    std::thread([=] {
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      if (!g_left) _exit(exit_code);
    }).detach();
  } catch (const std::system_error&) {
    _exit(exit_code);
  }
}

// All ranks come to the end before one leaves: a launcher kills the job when a process
// is gone without MPI_Finalize.
void wait_for_all() {
  MPI_Request request;
  check(MPI_Ibarrier(MPI_COMM_WORLD, &request), "MPI_Ibarrier");
  poll(request,
       std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                              std::chrono::duration<double>(g_mpi.timeout_seconds)));
}

}  // namespace

Group make_mpi_world(const LaunchInfo& launch, const CommOptions& options) {
  enter();
  g_mpi.timeout_seconds = options.timeout_seconds;
  int size = 0, rank = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (size != launch.world_size) {
    finalize_mpi(static_cast<int>(Fault::kUsage), kPatience);
    fail(Fault::kUsage, launch.launcher, " started ", launch.world_size, " processes, this one as rank ",
         launch.rank, ", but MPI sees ", size,
         ": start the program with the launcher of the MPI that it was built with (",
         "mpirun of Open MPI, or srun --mpi=pmix)");
  }
  MPI_Comm comm;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  std::vector<int> all(size);
  std::iota(all.begin(), all.end(), 0);
  return std::make_shared<PeerCommunicator>(rank, std::move(all), "world",
                                            std::make_unique<MpiTransport>(comm), options);
}

void finalize_mpi(int exit_code, double patience_seconds) noexcept {
  if (!g_mpi.entered || !mpi_is_on()) return;
  std::fflush(nullptr);
  try {
    wait_for_all();
  } catch (const Error&) {
    // A peer is lost: what is left to do is to end.
  }
  start_watchdog(exit_code, patience_seconds);
  MPI_Finalize();
  g_left = true;
}

void abort_mpi(int exit_code) noexcept {
  if (!mpi_is_on()) return;
  start_watchdog(exit_code, kPatience);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
}

}  // namespace switchyard
