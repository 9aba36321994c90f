// Our own matrix product for AVX2 and AVX-512: both operands are packed into panels (kernels/cpu/panels.h)
// that the innermost loop reads front to back, so layout (transposed or not, any leading dimension) costs
// little. bf16 is multiplied in pairs where the processor has an instruction for that (AVX512_BF16), and else
// widened to float32 while it is packed.
//
// Why not oneDNN's here: a row of its result may have other bits when the product has other rows, and then a
// token's expert gives other bits on another layout of ranks, where more or fewer tokens meet it. Here an
// element's bits depend on its row of op(A), its column of op(B) and k alone. It also needs no object per
// shape, of which experts with ragged counts of rows have many, and it is as fast on large products and
// faster on experts' (docs/performance.md).
//
// The scheme is Goto and van de Geijn's, "Anatomy of High-Performance Matrix Multiplication" (2008).
#pragma once

#include "kernels/cpu/panels.h"
#include "kernels/cpu/update_ahead.h"
#include "kernels/matmul.h"

namespace switchyard::kernels {

// Whether products of T (float or BF16) are to be ours (bf16's are kernels/cpu/matrix_gemm.h's where the
// processor has matrix registers): not float's on a processor without the instructions that this one is
// written for, nor bf16's on one with instructions that the program is not compiled for. oneDNN is faster
// there.
template <class T>
bool has_packed_gemm();

// C (+)= op(A) op(B), summed in float32 and rounded once, every stride filled in, no size zero, on the
// calling thread, by panels of E. Any cut of C into blocks gives the same bits.
template <class E, class T, class C>
void packed_gemm(const Matmul<T, C>&);

// The same with a B [n, k] (transpose_b), dense, whose element 0 is at `position` of an update: B is brought
// up to date before it is read, and what products will read after it while tiles are computed.
template <class E, class T>
void packed_gemm(const Matmul<T, T>&, UpdateAhead& update, int64_t position);

// Also gives the sums of the squares in C as it is then, kMr rows each: square_sum_count(m) of them. Their
// bits depend on those rows alone.
inline constexpr int64_t square_sum_count(int64_t rows) { return whole_panels(rows, kMr) / kMr; }
template <class E, class T>
void packed_gemm(const Matmul<T, float>&, float* squares);

}  // namespace switchyard::kernels
