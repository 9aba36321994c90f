// Finds the processes of this job and joins them to one world group.
#pragma once

#include <chrono>
#include <functional>

#include "parallel/comm/communicator.h"

namespace switchyard {

// How a long message between two ranks of one machine travels under MPI: as a message, through memory that
// both share, or read by its receiver from the sender's memory. kFastest: all ranks measure both at first.
enum class NodeCopies : uint8_t { kFastest, kMessages, kReads };

struct CommOptions {
  double timeout_seconds = 300;  // the deadline of every wait
  // Longer messages travel in pieces: counts of MPI are 31 bits. Tests lower it.
  int64_t max_message_bytes = int64_t{1} << 30;
  NodeCopies node_copies = NodeCopies::kFastest;
};

// What the launcher's environment says, before anything is initialised (Open MPI,
// Slurm, PMI, torchrun names).
struct LaunchInfo {
  int world_size = 1, rank = 0;
  int local_size = 1, local_rank = 0;
  std::string launcher;  // "none", "mpirun", "srun", ...
};
LaunchInfo launch_info();

// A group of one: every collective is the identity.
Group make_self();

// World of this process: self without a launcher; MPI under one. Error{kUsage} if the launcher says more than
// one process and MPI says one, or the program was built without MPI. Initialises MPI (THREAD_MULTIPLE is not
// needed: one thread at a time calls).
Group make_world(const CommOptions&);

// NCCL twin of an existing host group with the same ranks and order; Error{kUsage} if built without NCCL.
Group make_nccl(const Group& host, const CommOptions&);

// Waits for all ranks to come here, then leaves MPI if make_world entered it. When the launcher is going away
// (SIGTERM to mpirun) leaving MPI may never return: after `patience_seconds` the process then ends here, with
// this exit code and without running destructors. So this is the last thing that a program does; a rank that
// failed calls abort_world instead. After a SIGTERM pass 0.4: mpirun sends SIGKILL a second after it.
void finalize_world(int exit_code = 0, double patience_seconds = 1.5) noexcept;
// Ends all processes of the job at once with this exit code. Prints nothing itself.
[[noreturn]] void abort_world(int exit_code) noexcept;

// Runs body(group) on `ranks` threads, each a rank of one in-memory world. The first failure releases the
// others and is rethrown here. For tests, benchmarks, and several ranks on one GPU.
void run_ranks(int ranks, const std::function<void(Group)>& body, const CommOptions& = {});

}  // namespace switchyard
