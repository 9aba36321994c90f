// The world under an MPI launcher: messages are Isend and Irecv, polled with Test. MPI's own collectives are
// not used where a rank could be missing: they have no deadline.
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <thread>

#include "parallel/comm/backends.h"
#include "parallel/comm/mpi_memory.h"
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

// Another rank, as one whose memory may be read.
struct Neighbour {
  ProcessMemory memory;
  bool is_read = false, reads = false;  // by this rank; this rank's
};

// A message of kReadBytes or more between ranks of one machine may be read by its receiver from the sender's
// memory: where it lies is sent, and that it is read is answered. Answers say nothing else: a rank waits for
// what it receives from a peer in the order in which it is sent.
class MpiTransport final : public Transport {
 public:
  // Takes over the communicator. `neighbours`: all of its ranks, or none.
  explicit MpiTransport(MPI_Comm comm, std::vector<Neighbour> neighbours = {})
      : comm_(comm), neighbours_(std::move(neighbours)) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }
  ~MpiTransport() override {
    // After a failure a peer may never free its own.
    if (!broken_ && mpi_is_on()) MPI_Comm_free(&comm_);
  }

  Request send(const void* data, int64_t bytes, int peer, int tag) override {
    const bool read = bytes >= kReadBytes && !neighbours_.empty() && neighbours_[peer].reads;
    const Request slot = messages_.add({});
    Message& m = messages_[slot];
    if (!read) {
      check(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &m.request), "MPI_Isend");
      return slot;
    }
    m.address = reinterpret_cast<uint64_t>(data);
    start_sending(&m.address, sizeof(m.address), peer, tag + kAddressTag);
    check(MPI_Irecv(nullptr, 0, MPI_BYTE, peer, tag + kAnswerTag, comm_, &m.request), "MPI_Irecv");
    return slot;
  }
  Request recv(void* data, int64_t bytes, int peer, int tag) override {
    const bool read = bytes >= kReadBytes && !neighbours_.empty() && neighbours_[peer].is_read;
    const Request slot = messages_.add({});
    Message& m = messages_[slot];
    if (!read) {
      check(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &m.request), "MPI_Irecv");
      return slot;
    }
    m.to_read = data;
    m.bytes = bytes;
    m.peer = peer;
    m.tag = tag;
    check(MPI_Irecv(&m.address, sizeof(m.address), MPI_BYTE, peer, tag + kAddressTag, comm_, &m.request),
          "MPI_Irecv");
    return slot;
  }
  bool wait(Request request, Time deadline) override {
    Message& m = messages_[request];
    if (!poll(m.request, deadline)) return false;
    if (m.to_read != nullptr) {
      read_memory(neighbours_[m.peer].memory, m.address, m.to_read, m.bytes);
      start_sending(nullptr, 0, m.peer, m.tag + kAnswerTag);
    }
    messages_.remove(request);
    return true;
  }
  // MPI may still read or write the memory of a message under way: the process is
  // expected to end (abort_world).
  void cancel(Request request) noexcept override {
    broken_ = true;
    MPI_Request& pending = messages_[request].request;
    if (pending != MPI_REQUEST_NULL) {
      MPI_Cancel(&pending);
      MPI_Request_free(&pending);
    }
    messages_.remove(request);
  }
  std::unique_ptr<Transport> subgroup(std::span<const int> members) override {
    int rank = 0;
    MPI_Comm_rank(comm_, &rank);
    const auto key = std::find(members.begin(), members.end(), rank) - members.begin();
    MPI_Comm sub;
    check(
        MPI_Comm_split(comm_, *std::min_element(members.begin(), members.end()), static_cast<int>(key), &sub),
        "MPI_Comm_split");
    std::vector<Neighbour> neighbours;
    if (!neighbours_.empty())
      for (const int member : members) neighbours.push_back(neighbours_[member]);
    return std::make_unique<MpiTransport>(sub, std::move(neighbours));
  }
  // The launcher ends the others when this process ends by abort_world().
  void abort(const std::string&) noexcept override { broken_ = true; }

 private:
  // Below, a message costs less time than a system call.
  static constexpr int64_t kReadBytes = 64 << 10;
  static constexpr int kAddressTag = 1 << 13, kAnswerTag = 1 << 14;  // beside the message's own

  struct Message {
    MPI_Request request = MPI_REQUEST_NULL;  // of the message, of its address (recv) or of the answer (send)
    uint64_t address = 0;                    // where it lies, if it is read
    void* to_read = nullptr;                 // where to, if this rank is to read it
    int64_t bytes = 0;
    int peer = 0, tag = 0;
  };

  // A few bytes that nobody waits for here. They stay where they are until the peer has them.
  void start_sending(const void* data, int bytes, int peer, int tag) {
    MPI_Request request;
    check(MPI_Isend(data, bytes, MPI_BYTE, peer, tag, comm_, &request), "MPI_Isend");
    check(MPI_Request_free(&request), "MPI_Request_free");
  }

  MPI_Comm comm_;
  std::vector<Neighbour> neighbours_;
  bool broken_ = false;
  RequestSlots<Message> messages_;
};

// Who can read whose memory.
std::vector<Neighbour> find_neighbours(MPI_Comm comm, int size) {
  std::vector<ProcessMemory> memories(size);
  const ProcessMemory own = own_memory();
  check(MPI_Allgather(&own, sizeof(own), MPI_BYTE, memories.data(), sizeof(own), MPI_BYTE, comm),
        "MPI_Allgather");
  std::vector<char> is_read(size), reads(size);
  for (int r = 0; r < size; ++r) is_read[r] = is_readable(memories[r]);
  check(MPI_Alltoall(is_read.data(), 1, MPI_CHAR, reads.data(), 1, MPI_CHAR, comm), "MPI_Alltoall");
  std::vector<Neighbour> neighbours(size);
  for (int r = 0; r < size; ++r) neighbours[r] = {memories[r], is_read[r] != 0, reads[r] != 0};
  return neighbours;
}

// A ring of all ranks, each of which passes 1 MB to the next.
class Ring {
 public:
  Ring(MPI_Comm comm, int rank, int size) : comm_(comm), rank_(rank), size_(size) {}

  // Seconds until this rank has what the one before it wrote just now.
  double pass(MpiTransport& transport) {
    for (char& byte : out_) ++byte;
    check(MPI_Barrier(comm_), "MPI_Barrier");
    const auto begin = std::chrono::steady_clock::now();
    const auto bytes = std::ssize(out_);
    const auto received = transport.recv(in_.data(), bytes, (rank_ + size_ - 1) % size_, 0);
    const auto sent = transport.send(out_.data(), bytes, (rank_ + 1) % size_, 0);
    for (const auto request : {received, sent}) transport.wait(request, Transport::Time::max());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

 private:
  MPI_Comm comm_;
  int rank_, size_;
  std::vector<char> out_ = std::vector<char>(1 << 20), in_ = out_;
};

// Whether reads are to be preferred: that differs from machine to machine (docs/collectives.md). The two in
// turn, many times, because other processes that start meanwhile may have the cores. Large data, which this
// cannot tell, is better read.
bool reads_are_faster(MpiTransport& reads, MpiTransport& messages, MPI_Comm comm, int rank, int size) {
  constexpr int kTimes = 12;
  constexpr double kInFavour = 1.25;
  constexpr double kNever = std::numeric_limits<double>::infinity();
  Ring ring(comm, rank, size);
  double own[2] = {kNever, kNever}, all[2];  // best times, by reads and by messages
  for (int i = 0; i < kTimes; ++i) {
    own[0] = std::min(own[0], ring.pass(reads));
    own[1] = std::min(own[1], ring.pass(messages));
  }
  check(MPI_Allreduce(own, all, 2, MPI_DOUBLE, MPI_SUM, comm), "MPI_Allreduce");
  return all[0] < kInFavour * all[1];
}

std::unique_ptr<MpiTransport> make_transport(MPI_Comm comm, int rank, int size, NodeCopies copies) {
  MPI_Comm same;
  check(MPI_Comm_dup(comm, &same), "MPI_Comm_dup");
  auto messages = std::make_unique<MpiTransport>(comm);
  auto reads = std::make_unique<MpiTransport>(same, find_neighbours(same, size));
  const bool read = copies == NodeCopies::kFastest ? reads_are_faster(*reads, *messages, same, rank, size)
                                                   : copies == NodeCopies::kReads;
  return read ? std::move(reads) : std::move(messages);
}

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
                                            make_transport(comm, rank, size, options.node_copies), options);
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
