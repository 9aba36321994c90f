#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

template <class T, class C>
Matmul<T, C> with_strides(Matmul<T, C> p) {
  if (p.lda == 0) p.lda = p.transpose_a ? p.m : p.k;
  if (p.ldb == 0) p.ldb = p.transpose_b ? p.k : p.n;
  if (p.ldc == 0) p.ldc = p.n;
  return p;
}

template <class T, class C>
void clear(const Matmul<T, C>& p) {
  for (int64_t i = 0; i < p.m; ++i) std::fill_n(p.c + i * p.ldc, p.n, C(0));
}

// A block of C is computed from float32 copies of blocks of A and B, so that bf16 costs little more than
// float32. The blocks are fixed: the same bits for every number of threads.
constexpr int64_t kBlockM = 256;
constexpr int64_t kBlockN = 512;
constexpr int64_t kBlockK = 512;

// The float32 copy of x[row .. row+rows, col .. col+cols], or of the same block of x^T, stored as x is.
const float* widened(Scratch<float>& scratch, const BF16* x, int64_t ld, bool transposed, int64_t row,
                     int64_t col, int64_t rows, int64_t cols) {
  if (transposed) {
    std::swap(row, col);
    std::swap(rows, cols);
  }
  const int64_t copy_ld = padded_stride(cols);
  float* copy = scratch.reserve(rows * copy_ld);
  load_rows(copy, copy_ld, x + row * ld + col, ld, rows, cols);
  return copy;
}

template <class C>
void widened_block(const Matmul<BF16, C>& p, int64_t i, int64_t j) {
  thread_local Scratch<float> a_scratch, b_scratch, c_scratch;
  const int64_t m = std::min(kBlockM, p.m - i), n = std::min(kBlockN, p.n - j);
  C* target = p.c + i * p.ldc + j;
  float* c = nullptr;
  if constexpr (std::is_same_v<C, float>)
    c = target;
  else
    c = c_scratch.reserve(m * n);
  const int64_t ldc = std::is_same_v<C, float> ? p.ldc : n;
  const bool add_first = std::is_same_v<C, float> && p.accumulate;
  for (int64_t l = 0; l < p.k; l += kBlockK) {
    const int64_t k = std::min(kBlockK, p.k - l);
    gemm(Matmul<float, float>{.c = c,
                              .a = widened(a_scratch, p.a, p.lda, p.transpose_a, i, l, m, k),
                              .b = widened(b_scratch, p.b, p.ldb, p.transpose_b, l, j, k, n),
                              .m = m,
                              .n = n,
                              .k = k,
                              .transpose_a = p.transpose_a,
                              .transpose_b = p.transpose_b,
                              .accumulate = l > 0 || add_first,
                              .lda = padded_stride(p.transpose_a ? m : k),
                              .ldb = padded_stride(p.transpose_b ? k : n),
                              .ldc = ldc});
  }
  if constexpr (!std::is_same_v<C, float>) store_rows(target, p.ldc, c, n, m, n, 1.0f, p.accumulate);
}

template <class C>
void widened_matmul(const Matmul<BF16, C>& p) {
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t i = 0; i < p.m; i += kBlockM)
    for (int64_t j = 0; j < p.n; j += kBlockN) widened_block(p, i, j);
}

void rows_in_parallel(const Matmul<double, double>& p) {
  constexpr int64_t kRows = 16;
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < p.m; i += kRows) {
    Matmul<double, double> part = p;
    part.m = std::min(kRows, p.m - i);
    part.a += p.transpose_a ? i : i * p.lda;
    part.c += i * p.ldc;
    gemm(part);
  }
}

}  // namespace

template <class T, class C>
void run(Cpu, const Matmul<T, C>& args) {
  if (args.m == 0 || args.n == 0) return;
  const Matmul<T, C> p = with_strides(args);
  if (p.k == 0) {
    if (!p.accumulate) clear(p);
    return;
  }
  if constexpr (std::is_same_v<T, double>)
    rows_in_parallel(p);
  else if constexpr (std::is_same_v<T, float>)
    gemm(p);
  else if (has_bf16_gemm())
    gemm(p);
  else
    widened_matmul(p);
}

template void run(Cpu, const Matmul<float, float>&);
template void run(Cpu, const Matmul<BF16, BF16>&);
template void run(Cpu, const Matmul<BF16, float>&);
template void run(Cpu, const Matmul<double, double>&);

}  // namespace switchyard::kernels
