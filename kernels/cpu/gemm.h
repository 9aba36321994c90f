// The one door to oneDNN: single matrix products, with every stride filled in and no size zero.
//
// A product uses the OpenMP threads of the calling thread, or only the calling thread inside a parallel
// region. Any number of threads may call at the same time.
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// C (+)= op(A) op(B) in float32, where kernels/cpu/packed_gemm.h is not for the processor. Costs no set-up,
// whatever the shape.
void gemm(const Matmul<float, float>&);

// Whether the processor multiplies bf16 (AVX512_BF16 or AMX), for which this program may not be compiled:
// then only oneDNN uses it.
bool has_bf16_unit();

// C (+)= op(A) op(B) in bf16 with float32 sums; needs the unit. The first product of a shape costs 0.3 ms, so
// callers keep the number of different shapes small. A row's bits may depend on the other rows.
void gemm(const Matmul<BF16, float>&);
void gemm(const Matmul<BF16, BF16>&);

// C (+)= op(A) op(B) in double by plain loops on the calling thread. Sums run over k in ascending order.
void gemm(const Matmul<double, double>&);

}  // namespace switchyard::kernels
