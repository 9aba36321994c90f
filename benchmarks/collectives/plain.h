// MPI's own collectives, to compare with; linked where MPI is.
#pragma once

#include <cstdint>

namespace switchyard {

bool plain_is_there();  // MPI is initialised
void plain_all_reduce(float* data, int64_t count);
// `count` elements a peer, by MPI_Alltoallv.
void plain_all_to_all(const float* send, float* recv, int64_t count);

}  // namespace switchyard
