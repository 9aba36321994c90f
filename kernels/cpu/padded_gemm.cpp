#include "kernels/cpu/padded_gemm.h"

#include <algorithm>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kPad = 32;

// x [rows, cols] with rows of zeros up to a multiple of kPad
const BF16* padded(Scratch<BF16>& scratch, const BF16* x, int64_t ld, int64_t rows, int64_t cols) {
  const int64_t all = round_up(rows, kPad);
  BF16* copy = scratch.reserve(all * cols);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(x + r * ld, cols, copy + r * cols);
  std::fill_n(copy + rows * cols, (all - rows) * cols, BF16());
  return copy;
}

}  // namespace

void gemm_of_padded_rows(Matmul<BF16, BF16> p) {
  thread_local Scratch<BF16> x_scratch, y_scratch;
  const int64_t rows = p.m;
  if (rows % kPad == 0) return gemm(p);
  BF16* const y = p.c;
  p.a = padded(x_scratch, p.a, p.lda, rows, p.k);
  p.m = round_up(rows, kPad);
  p.c = y_scratch.reserve(p.m * p.n);
  gemm(p);
  std::copy_n(p.c, rows * p.n, y);
}

void gemm_of_padded_depth(Matmul<BF16, float> p) {
  constexpr int64_t kDepth = 1024;
  thread_local Scratch<BF16> dy_scratch, x_scratch;
  int64_t left = p.k;
  for (; left >= kDepth; left -= kDepth, p.a += kDepth * p.lda, p.b += kDepth * p.ldb, p.accumulate = true) {
    p.k = kDepth;
    gemm(p);
  }
  if (left == 0) return;
  p.k = round_up(left, kPad);
  if (left % kPad != 0) {
    p.a = padded(dy_scratch, p.a, p.lda, left, p.m);
    p.b = padded(x_scratch, p.b, p.ldb, left, p.n);
    p.lda = p.m;
    p.ldb = p.n;
  }
  gemm(p);
}

}  // namespace switchyard::kernels
