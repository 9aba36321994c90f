// Sums (or maxima, minima) of several arrays of one type, element by element, in the order of the arrays.
#pragma once

#include <span>

#include "parallel/comm/communicator.h"

namespace switchyard {

// out[i] = ((sources[0][i] op sources[1][i]) op ...) for i < count. bf16 is summed in float32 and rounded
// once at the end. A source may be `out` itself. Error{kInternal} for types without arithmetic (kU8).
void reduce_arrays(void* out, std::span<const void* const> sources, int64_t count, DType dtype, ReduceOp op);

}  // namespace switchyard
