#include "trainer/job/process_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace switchyard {
namespace {

// "Name:  123 kB" in a file of /proc; 0 where there is no such line.
int64_t proc_bytes(const char* path, const std::string& name) {
  std::ifstream in(path);
  for (std::string word; in >> word;) {
    if (word == name) {
      int64_t kib = 0;
      in >> kib;
      return kib << 10;
    }
  }
  return 0;
}

}  // namespace

int64_t resident_bytes() { return proc_bytes("/proc/self/status", "VmRSS:"); }
int64_t peak_resident_bytes() { return proc_bytes("/proc/self/status", "VmHWM:"); }

int64_t available_bytes() {
  int64_t bytes = proc_bytes("/proc/meminfo", "MemAvailable:");
  if (bytes == 0) bytes = std::numeric_limits<int64_t>::max();
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream in(path); in >> limit) bytes = std::min(bytes, limit);  // "max" is no number
  }
  return bytes;
}

int64_t address_space_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(limit.rlim_cur);
}

}  // namespace switchyard
