#include "parallel/comm/backends.h"

namespace switchyard {

Group make_mpi_world(const LaunchInfo& launch, const CommOptions&) {
  fail(Fault::kUsage, launch.launcher, " started ", launch.world_size,
       " processes, but this program was built without MPI: install Open MPI (libopenmpi-dev) and build "
       "again with "
       "-DSWITCHYARD_MPI=ON");
}

void finalize_mpi(int, double) noexcept {}
void abort_mpi(int) noexcept {}

}  // namespace switchyard
