#include "kernels/matmul.h"

#include <omp.h>

#include <algorithm>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/matrix_gemm.h"
#include "kernels/cpu/packed_gemm.h"

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

// How C is cut into blocks: one or more a thread. Which block an element lies in does not change its
// bits (kernels/cpu/packed_gemm.h).
struct Cut {
  int64_t rows, cols;  // of a block
};

Cut cut_for_threads(int64_t m, int64_t n) {
  constexpr int64_t kWorthAThread = 64 * 64;  // elements of C
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  Cut cut{m, n};
  const auto blocks = [&] { return ((m + cut.rows - 1) / cut.rows) * ((n + cut.cols - 1) / cut.cols); };
  while (blocks() < threads && cut.rows * cut.cols > kWorthAThread) {
    int64_t& longer = cut.rows >= cut.cols ? cut.rows : cut.cols;
    longer = (longer + 1) / 2;
  }
  return cut;
}

// C[i.., j..] (+)= its rows of op(A) times its columns of op(B)
template <class T, class C>
Matmul<T, C> block_of(Matmul<T, C> p, Cut cut, int64_t i, int64_t j) {
  p.a += p.transpose_a ? i : i * p.lda;
  p.b += p.transpose_b ? j * p.ldb : j;
  p.c += i * p.ldc + j;
  p.m = std::min(cut.rows, p.m - i);
  p.n = std::min(cut.cols, p.n - j);
  return p;
}

template <class T, class C>
void multiply(const Matmul<T, C>& p) {
  if constexpr (std::is_same_v<T, BF16>)
    if (has_matrix_gemm()) return matrix_gemm(p);
  packed_gemm<PanelElement<T>>(p);
}

template <class T, class C>
void packed_matmul(const Matmul<T, C>& p) {
  const Cut cut = cut_for_threads(p.m, p.n);
#pragma omp parallel for collapse(2) schedule(dynamic) if (cut.rows < p.m || cut.cols < p.n)
  for (int64_t i = 0; i < p.m; i += cut.rows)
    for (int64_t j = 0; j < p.n; j += cut.cols) multiply(block_of(p, cut, i, j));
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
  Matmul<T, C> p = with_strides(args);
  p.stream = p.stream || leaves_the_cache<C>(p.m * p.n);
  if (p.k == 0) {
    if (!p.accumulate) clear(p);
    return;
  }
  if constexpr (std::is_same_v<T, double>)
    rows_in_parallel(p);
  else if (has_packed_gemm<T>())
    packed_matmul(p);
  else
    gemm(p);
}

template void run(Cpu, const Matmul<float, float>&);
template void run(Cpu, const Matmul<BF16, BF16>&);
template void run(Cpu, const Matmul<BF16, float>&);
template void run(Cpu, const Matmul<double, double>&);

}  // namespace switchyard::kernels
