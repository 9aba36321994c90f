// Plain products by the kernel of the grouped ones.
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// Runs the product if Hopper's kernel fits it and is the faster one beside cuBLAS; returns whether it did.
bool run_as_one_group(Cuda exec, const Matmul<BF16, BF16>& p);

// A weight gradient whose rows are cut so that it keeps all multiprocessors busy (row_cuts.cuh), if Hopper's
// kernel fits it; returns whether it did. Takes the handles' workspace. Timed beside cuBLAS by
// bench_cuda_matmul; no op calls it before it has been seen to be the faster one.
bool run_in_parts(Cuda exec, const Matmul<BF16, float>& p);

}  // namespace switchyard::kernels
