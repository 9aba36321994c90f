// The matrix product for processors that multiply matrices of bf16 (kernels/cpu/matrix_registers.h). As in
// kernels/cpu/packed_gemm.h an element's bits depend on its row of op(A), its column of op(B) and k alone, which oneDNN's
// do not promise, and no object is made for a shape.
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// Whether this processor has the registers and the program is compiled for them.
bool has_matrix_gemm();

// C (+)= op(A) op(B), summed in float32 and rounded once, every stride filled in, no size zero, on the calling
// thread. Any cut of C into blocks gives the same bits. Registers: MatrixRegisters, where has_matrix_gemm(); or
// PlainRegisters, for tests.
template <class Registers, class C>
void matrix_gemm(const Matmul<BF16, C>&);

template <class C>
void matrix_gemm(const Matmul<BF16, C>&);

}  // namespace switchyard::kernels
