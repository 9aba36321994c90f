// Plain products by the kernel of the grouped ones.
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// Runs the product if Hopper's kernel fits it and is the faster one beside cuBLAS; returns whether it did.
bool run_as_one_group(Cuda exec, const Matmul<BF16, BF16>& p);

}  // namespace switchyard::kernels
