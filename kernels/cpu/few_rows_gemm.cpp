#include "kernels/cpu/few_rows_gemm.h"

#include "kernels/cpu/convert.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// The part of the sum from l on, of so many steps, for all of C. Every kNr x kMr block of it goes to
// store(i, j, block, how many of its rows, and of its columns).
template <class E, class T, class Store>
void multiply_part(const Matmul<T, T>& p, int64_t l, int64_t steps, const Store& store) {
  thread_local Scratch<E> x_scratch, last_scratch;
  E* const x = x_scratch.reserve(whole_panels(p.m, kNr) * kKc);
  E* const last = last_scratch.reserve(kMr * kKc);
  alignas(64) float columns[kMr * kNr], rows[kNr * kMr];
  const int64_t ld = p.ldb / kPerStep<E>, k = std::min(steps * kPerStep<E>, p.k - l);
  pack<kNr>(x, p.a + l, p.lda, p.m, k, true);
  for (int64_t j = 0; j < p.n; j += kMr) {
    const auto* b = reinterpret_cast<const E*>(p.b + j * p.ldb + l);
    const AInPlace<E> in_place{b, ld, 1};
    const int64_t cols = std::min(kMr, p.n - j);
    if (cols < kMr) pack<kMr>(last, p.b + j * p.ldb + l, p.ldb, cols, k, true);
    for (int64_t i = 0; i < p.m; i += kNr) {
      const BPanel<E> panel{x + i * steps};
      if (cols < kMr)
        tile(steps, APanel<E>{last}, panel, columns, kNr, Into::kReplace);
      else if (i == 0 && j + 2 * kMr <= p.n)
        tile(steps, in_place, panel, columns, kNr, Into::kReplace,
             FetchRows<E>{b + kMr * ld, static_cast<uint64_t>(ld)});
      else
        tile(steps, in_place, panel, columns, kNr, Into::kReplace);
      pack<kMr>(rows, columns, kNr, kMr, kNr, true);
      store(i, j, rows, std::min(kNr, p.m - i), cols);
    }
  }
}

}  // namespace

template <class E, class T>
bool has_few_rows(const Matmul<T, T>& p) {
  const bool few = p.m <= 32 || (p.m <= 128 && 8 * whole_panels(p.m, kNr) <= 9 * p.m);
  return few && p.transpose_b && !p.transpose_a && p.k % kPerStep<E> == 0 && p.ldb % kPerStep<E> == 0;
}

template <class E, class T>
void few_rows_gemm(const Matmul<T, T>& p) {
  thread_local Scratch<float> scratch;
  const int64_t steps = p.k / kPerStep<E>;
  // Sums of several parts wait until they are rounded once.
  const bool wait = std::is_same_v<T, BF16> && steps > kKc;
  float* const waiting = wait ? scratch.reserve(p.m * p.n) : nullptr;
  for (int64_t l = 0; l < steps; l += kKc)
    multiply_part<E>(p, l * kPerStep<E>, std::min(kKc, steps - l),
                     [&](int64_t i, int64_t j, const float* sums, int64_t rows, int64_t cols) {
                       if (wait)
                         store_rows(waiting + i * p.n + j, p.n, sums, kMr, rows, cols, 1.0f, l > 0);
                       else
                         store_rows(p.c + i * p.ldc + j, p.ldc, sums, kMr, rows, cols, 1.0f,
                                    p.accumulate || l > 0);
                     });
  if (wait) store_rows(p.c, p.ldc, waiting, p.n, p.m, p.n, 1.0f, p.accumulate);
}

template bool has_few_rows<float>(const Matmul<float, float>&);
template bool has_few_rows<Pair>(const Matmul<BF16, BF16>&);
template void few_rows_gemm<float>(const Matmul<float, float>&);
template void few_rows_gemm<Pair>(const Matmul<BF16, BF16>&);

}  // namespace switchyard::kernels
