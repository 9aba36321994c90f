// The world of a run of mpi_tests. A test runs on all its ranks, whatever their number is (1 to 4 in CTest).
#pragma once

#include "parallel/comm/communicator.h"

namespace switchyard {

const Group& mpi_world();

}  // namespace switchyard
