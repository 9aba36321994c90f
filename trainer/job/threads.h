// How many threads a rank computes with.
#pragma once

#include <cstdint>

namespace switchyard {

// `threads` where it is positive, else OMP_NUM_THREADS where it is set, else the node's cores divided among
// its ranks.
void choose_threads(int64_t threads, int local_size);

}  // namespace switchyard
