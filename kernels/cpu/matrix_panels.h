// The first operand of matrix registers (kernels/cpu/matrix_registers.h): panels of kBlock rows, in which
// kStep pairs of a row follow each other: panel[(l / kStep * kBlock + r) * kStep + l % kStep].
#pragma once

#include "kernels/cpu/matrix_registers.h"

namespace switchyard::kernels {

// Panels of op(X) [size, k], one after the other, of whole steps; what does not exist is zeros.
// `along`: x[r, l]; else x[l, r].
void pack_matrix_rows(Pair* panels, const BF16* x, int64_t ld, int64_t size, int64_t k, bool along);

// to[i, j] = from[j * ld + i] for kBlock rows and columns
void transpose_block(float* to, const float* from, int64_t ld);

}  // namespace switchyard::kernels
