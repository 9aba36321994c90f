// The optional backends as make.cpp sees them. Which file defines them (mpi.cpp or
// no_mpi.cpp) is CMake's choice.
#pragma once

#include "parallel/comm/make.h"

namespace switchyard {

// The launcher started more than one process.
Group make_mpi_world(const LaunchInfo& launch, const CommOptions& options);
void finalize_mpi(int exit_code, double patience_seconds) noexcept;
// Returns only if this process is not in MPI.
void abort_mpi(int exit_code) noexcept;

}  // namespace switchyard
