#include "kernels/cpu/few_rows_gemm.h"

#include "kernels/cpu/convert.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// Elements of A, packed, that tiles read again and again: they have to stay in the second-level cache.
constexpr int64_t kPacked = 128 * 1024;

// f(first step, steps) of every part of a sum.
template <class F>
void each_part(int64_t steps, const F& f) {
  for (int64_t l = 0; l < steps; l += kKc) f(l, std::min(kKc, steps - l));
}

// Panels of `rows` rows of x, part after part.
template <int64_t kPanel, class E, class T>
void pack_parts(E* to, const T* x, int64_t ld, int64_t rows, int64_t k) {
  each_part(steps<E>(k), [&](int64_t l, int64_t part) {
    pack<kPanel>(to + whole_panels(rows, kPanel) * l, x + l * kPerStep<E>, ld, rows, part * kPerStep<E>,
                 true);
  });
}

}  // namespace

template <class E, class T>
bool has_few_rows(const Matmul<T, T>& p) {
  const bool few = p.m <= 32 || (p.m <= 128 && 8 * whole_panels(p.m, kNr) <= 9 * p.m);
  const bool whole_steps = p.k % kPerStep<E> == 0 && p.ldb % kPerStep<E> == 0;
  const bool fits = whole_panels(p.m, kNr) * steps<E>(p.k) <= kPacked;
  return few && fits && whole_steps && p.transpose_b && !p.transpose_a && !p.accumulate;
}

template <class E, class T>
void few_rows_gemm(const Matmul<T, T>& p) {
  thread_local Scratch<E> x_scratch, last_scratch;
  const int64_t m = whole_panels(p.m, kNr), depth = steps<E>(p.k), ld = p.ldb / kPerStep<E>;
  E* const x = x_scratch.reserve(m * depth);
  pack_parts<kNr>(x, p.a, p.lda, p.m, p.k);
  alignas(64) float columns[kMr * kNr], rows[kNr * kMr];
  for (int64_t j = 0; j < p.n; j += kMr) {
    const auto* const b = reinterpret_cast<const E*>(p.b + j * p.ldb);
    const int64_t cols = std::min(kMr, p.n - j);
    E* const last = cols < kMr ? last_scratch.reserve(kMr * depth) : nullptr;
    if (last != nullptr) pack_parts<kMr>(last, p.b + j * p.ldb, p.ldb, cols, p.k);
    for (int64_t i = 0; i < p.m; i += kNr) {
      each_part(depth, [&](int64_t l, int64_t part) {
        const Into into = l == 0 ? Into::kReplace : Into::kAdd;
        const BPanel<E> panel{x + m * l + i * part};
        if (last != nullptr)
          tile(part, APanel<E>{last + kMr * l}, panel, columns, kNr, into);
        else if (i == 0 && j + 2 * kMr <= p.n)
          tile(part, AInPlace<E>{b + l, ld, 1}, panel, columns, kNr, into,
               FetchRows<E>{b + l + kMr * ld, static_cast<uint64_t>(ld)});
        else
          tile(part, AInPlace<E>{b + l, ld, 1}, panel, columns, kNr, into);
      });
      pack<kMr>(rows, columns, kNr, kMr, kNr, true);
      store_rows(p.c + i * p.ldc + j, p.ldc, rows, kMr, std::min(kNr, p.m - i), cols, 1.0f);
    }
  }
}

template bool has_few_rows<float>(const Matmul<float, float>&);
template bool has_few_rows<Pair>(const Matmul<BF16, BF16>&);
template void few_rows_gemm<float>(const Matmul<float, float>&);
template void few_rows_gemm<Pair>(const Matmul<BF16, BF16>&);

}  // namespace switchyard::kernels
