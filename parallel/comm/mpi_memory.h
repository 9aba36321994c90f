// Ranks of one machine read each other's memory (Linux: process_vm_readv): a message is then copied once, by
// its receiver, instead of into memory that both share and out of it.
#pragma once

#include <cstdint>

namespace switchyard {

// A process, and where in its memory a value is by which another knows that it reads there.
struct ProcessMemory {
  int64_t pid;
  uint64_t address, value;
};

// This process; lets others read it where the kernel asks for that.
ProcessMemory own_memory();
// Whether this process can read there: both are on one machine, and the kernel permits it.
bool is_readable(const ProcessMemory& memory);
// Throws Error{kPeer} where that process is gone.
void read_memory(const ProcessMemory& memory, uint64_t address, void* to, int64_t bytes);

}  // namespace switchyard
