// C = A B^T as C^T = B A^T, for a few rows of A: those of B (weights, say) are then read where they are,
// once, while tiles are computed. Packing them first takes as long as the products of 24 rows. The same sums
// in the same order as kernels/cpu/packed_gemm.h, so the same bits.
#pragma once

#include "kernels/cpu/panels.h"
#include "kernels/matmul.h"

namespace switchyard::kernels {

// Whether it is to be used: where it is faster (measured), with whole steps of elements E that can be read in
// place (kernels/cpu/panels.h).
template <class E, class T>
bool has_few_rows(const Matmul<T, T>&);

// On the calling thread, every stride filled in, no size zero.
template <class E, class T>
void few_rows_gemm(const Matmul<T, T>&);

}  // namespace switchyard::kernels
