#pragma once

#include "kernels/exec.h"

namespace switchyard::bench {

// Compares every form of the products and of attention with loops in double on the host; prints a line each
// and returns the number of failures.
int check_products(Cuda exec, unsigned seed);
int check_attention(Cuda exec, unsigned seed);

}  // namespace switchyard::bench
