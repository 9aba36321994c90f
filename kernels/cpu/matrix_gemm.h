// The matrix product for processors that multiply matrices of bf16 (kernels/cpu/matrix_registers.h). As in
// kernels/cpu/packed_gemm.h an element's bits depend on its row of op(A), its column of op(B) and k alone,
// which oneDNN's do not promise, and no object is made for a shape.
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// Whether this processor has the registers and the program is compiled for them.
bool has_matrix_gemm();

// C (+)= op(A) op(B), summed in float32 and rounded once, every stride filled in, no size zero, on the
// calling thread. Any cut of C into blocks gives the same bits. Registers: MatrixRegisters, where
// has_matrix_gemm(); or PlainRegisters, for tests.
template <class Registers, class C>
void matrix_gemm(const Matmul<BF16, C>&);

template <class C>
void matrix_gemm(const Matmul<BF16, C>&);

// Whether a result of so many elements is stored past the caches, because nothing of it would be left there
// when it is read: 2 MiB of bf16. The products that fill it are a third faster in a step then, because memory
// does not bring first what is overwritten; what reads it takes a little longer (measured). Only
// matrix_gemm() does so with bf16.
template <class C>
constexpr bool leaves_the_cache(int64_t elements) {
  return std::is_same_v<C, BF16> && elements >= int64_t{1} << 20;
}

}  // namespace switchyard::kernels
