#include "parallel/comm/make.h"

#include <cstdio>
#include <cstdlib>

#include "parallel/comm/backends.h"

namespace switchyard {

Group make_world(const CommOptions& options) {
  const LaunchInfo launch = launch_info();
  return launch.world_size == 1 ? make_self() : make_mpi_world(launch, options);
}

void finalize_world(int exit_code, double patience_seconds) noexcept {
  finalize_mpi(exit_code, patience_seconds);
}

void abort_world(int exit_code) noexcept {
  std::fflush(nullptr);
  abort_mpi(exit_code);
  std::_Exit(exit_code);
}

}  // namespace switchyard
