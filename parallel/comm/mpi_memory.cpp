#include "parallel/comm/mpi_memory.h"

#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "kernels/check.h"

namespace switchyard {
namespace {

// Bytes read: fewer than asked for where the memory ends, -1 with errno.
int64_t try_to_read(const ProcessMemory& memory, uint64_t address, void* to, int64_t bytes) {
  const auto length = static_cast<size_t>(bytes);
  const iovec here{to, length}, there{reinterpret_cast<void*>(address), length};
  return process_vm_readv(static_cast<pid_t>(memory.pid), &here, 1, &there, 1, 0);
}

}  // namespace

ProcessMemory own_memory() {
  static const uint64_t value = std::random_device()() * uint64_t{0x100000001} ^ std::random_device()();
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);  // fails where Yama is not: then nobody needs it
  return {getpid(), reinterpret_cast<uint64_t>(&value), value};
}

bool is_readable(const ProcessMemory& memory) {
  uint64_t value = 0;
  return try_to_read(memory, memory.address, &value, sizeof(value)) == sizeof(value) && value == memory.value;
}

void read_memory(const ProcessMemory& memory, uint64_t address, void* to, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const int64_t n = try_to_read(memory, address + static_cast<uint64_t>(done),
                                  static_cast<char*>(to) + done, bytes - done);
    if (n <= 0)
      fail(Fault::kPeer, "process ", memory.pid,
           " cannot be read: ", n < 0 ? std::strerror(errno) : "nothing is there");
    done += n;
  }
}

}  // namespace switchyard
