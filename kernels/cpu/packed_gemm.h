// Our own float32 matrix product for AVX2 and AVX-512: both operands are packed into panels
// (kernels/cpu/panels.h) that the innermost loop reads front to back, so layout (transposed or not, any
// leading dimension) and storage (float32 or bf16, widened on the way) cost the same.
//
// Why not oneDNN's here: a row of its result may have other bits when the product has other rows, and then a
// token's expert gives other bits on another layout of ranks, where more or fewer tokens meet it. Here an
// element's bits depend on its row of op(A), its column of op(B) and k alone. And on AVX2 oneDNN packs large
// results only: for experts' row counts and weight gradients its other kernels reach two thirds of this rate.
//
// The scheme is Goto and van de Geijn's, "Anatomy of High-Performance Matrix Multiplication" (2008).
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// Whether the processor has the instructions that it is written for; else oneDNN's products are faster.
bool has_packed_gemm();

// C (+)= op(A) op(B), summed in float32 and rounded once, every stride filled in, no size zero, on the
// calling thread. Any cut of C into blocks gives the same bits.
template <class T, class C>
void packed_gemm(const Matmul<T, C>&);

}  // namespace switchyard::kernels
