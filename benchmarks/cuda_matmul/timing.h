#pragma once

#include "kernels/exec.h"

namespace switchyard::bench {

// Prints milliseconds, TFLOP/s and the share of the ceiling (cuBLAS's 8192^3 bf16 product, measured first).
void time_all(Cuda exec);

}  // namespace switchyard::bench
