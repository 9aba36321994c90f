#include "kernels/cpu/packed_gemm.h"

#include <bit>
#include <utility>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// A panel of B (kKc x kNr elements) comes through the first-level cache, a block of A (kMc x kKc)
// stays in the second, a block of B (kKc x kNc) in the third. Measured with 512 KiB of
// second-level cache (AVX2) and 1 MiB.
constexpr int64_t kKc = 512, kMc = (kWidth == 16 ? 256 : 96) / kMr * kMr;
constexpr int64_t kNc = 64 * kNr;

// Where tiles of a float32 result go.
struct FloatResult {
  float* c;
  int64_t ldc;
  Into into;

  FloatResult from(int64_t i) const { return {c + i * ldc, ldc, into}; }

  // The tile at (i, j), of which rows x cols exist; a ragged one goes through a whole tile of its own.
  template <class A, class B, class Fetch = FetchNothing>
  void tile_at(int64_t i, int64_t j, int64_t rows, int64_t cols, int64_t steps, A a, B b,
               Fetch fetch = {}) const {
    float* to = c + i * ldc + j;
    if (rows >= kMr && cols >= kNr) return tile(steps, a, b, to, ldc, into, fetch);
    alignas(64) float whole[kMr * kNr];
    tile(steps, a, b, whole, kNr, Into::kReplace, fetch);
    for (int64_t r = 0; r < std::min(kMr, rows); ++r)
      for (int64_t q = 0; q < std::min(kNr, cols); ++q)
        to[r * ldc + q] = into == Into::kAdd ? to[r * ldc + q] + whole[r * kNr + q] : whole[r * kNr + q];
  }
};

// Where tiles of a bf16 result go: sums of all but the last kKc products wait in `partial`, of whole tiles.
struct RoundedResult {
  BF16* c;
  int64_t ldc;
  bool add;
  float* partial;
  int64_t ld_partial;
  bool first, last;   // of the parts of the sum
  int64_t begin = 0;  // row of C that is row 0 here

  RoundedResult from(int64_t i) const { return {c, ldc, add, partial, ld_partial, first, last, begin + i}; }

  template <class A, class B, class Fetch = FetchNothing>
  void tile_at(int64_t i, int64_t j, int64_t rows, int64_t cols, int64_t steps, A a, B b,
               Fetch fetch = {}) const {
    const int64_t row = begin + i;
    if (!last) {
      const Into into = first ? Into::kReplace : Into::kAdd;
      return tile(steps, a, b, partial + row * ld_partial + j, ld_partial, into, fetch);
    }
    alignas(64) float sum[kMr * kNr];
    tile(steps, a, b, sum, kNr, Into::kReplace, fetch);
    if (!first) store_rows(sum, kNr, partial + row * ld_partial + j, ld_partial, kMr, kNr, 1.0f, true);
    store_rows(c + row * ldc + j, ldc, sum, kNr, std::min(kMr, rows), std::min(kNr, cols), 1.0f, add);
  }
};

// The lines of a [rows, cols] block that is wanted next, handed out tile by tile.
class Ahead {
 public:
  Ahead() = default;  // nothing is wanted
  template <class T>
  Ahead(const T* block, int64_t ld, int64_t rows, int64_t cols)
      : lines_{reinterpret_cast<const char*>(block), ld * static_cast<int64_t>(sizeof(T)), 0, 0, 0} {
    if (ld == cols) cols *= std::exchange(rows, 1);  // one long row
    const int64_t lines = (cols * static_cast<int64_t>(sizeof(T)) + 63) / 64;
    lines_.log2_lines = std::bit_width(static_cast<uint64_t>(lines - 1));
    lines_.last = ((rows - 1) << lines_.log2_lines) + lines - 1;
  }

  // For a tile of so many steps. When all is fetched: a line that is in the cache.
  FetchLines next(int64_t steps) {
    if (lines_.first > lines_.last) return {reinterpret_cast<const char*>(this), 0, 0, 0, 0};
    const FetchLines now = lines_;
    lines_.first += steps;
    return now;
  }

 private:
  FetchLines lines_{nullptr, 0, 0, 0, -1};
};

// A tile for every panel of a [m, steps] and b [n, steps]. Short sums move more of C than of anything else:
// then C is walked row by row.
template <class E, class Result>
void multiply_panels(int64_t m, int64_t n, int64_t steps, const E* a, const E* b, const Result& result) {
  constexpr int64_t kSmallB = 32 * 1024;  // elements: a quarter of a small second-level cache
  const auto at = [&](int64_t i, int64_t j) {
    result.tile_at(i, j, m - i, n - j, steps, APanel<E>{a + i * steps}, BPanel<E>{b + j * steps});
  };
  if (n * steps <= kSmallB) {
    for (int64_t i = 0; i < m; i += kMr)
      for (int64_t j = 0; j < n; j += kNr) at(i, j);
  } else {
    for (int64_t j = 0; j < n; j += kNr)
      for (int64_t i = 0; i < m; i += kMr) at(i, j);
  }
}

// The parts of the sum, kKc steps each, for columns [first, first + n) of C, where A is one block and B (the
// weights of an expert with a few hundred rows, say) is read once, from memory: a group of panels is packed,
// and while it is multiplied the next group comes into the second-level cache, of which it fills a quarter.
template <class E, class T, class C, class ResultOf>
void multiply_passing(const Matmul<T, C>& p, int64_t first, int64_t n, const ResultOf& result_of) {
  constexpr int64_t kDepth = kKc * kPerStep<E>;
  constexpr int64_t kGroup = 4 * kNr;  // of 1, 2, 4 and 8 panels the fastest
  thread_local Scratch<E> a_scratch, b_scratch;
  E* const a = a_scratch.reserve(kMc * kKc);
  E* const b = b_scratch.reserve(kGroup * kKc);
  // Where the panels of columns j on and steps l on are in B, or in the matrix after it.
  const auto group_of = [&](const T* matrix, int64_t j, int64_t l) {
    return p.transpose_b ? matrix + (first + j) * p.ldb + l : matrix + l * p.ldb + first + j;
  };
  const auto group_ahead = [&](int64_t j, int64_t l) {
    const bool is_last = j >= n && l + kDepth >= p.k;
    if (j >= n) j = 0, l = is_last ? 0 : l + kDepth;
    const T* matrix = is_last ? p.next_b : p.b;
    if (matrix == nullptr) return Ahead();
    const int64_t cols = std::min(kGroup, n - j), k = std::min(kDepth, p.k - l);
    return Ahead(group_of(matrix, j, l), p.ldb, p.transpose_b ? cols : k, p.transpose_b ? k : cols);
  };
  for (int64_t l = 0; l < p.k; l += kDepth) {
    const int64_t k = std::min(kDepth, p.k - l), part = steps<E>(k);
    pack<kMr>(a, p.a + l, p.lda, p.m, k, true);
    const auto result = result_of(l == 0, l + k == p.k);
    for (int64_t j = 0; j < n; j += kGroup) {
      const int64_t cols = std::min(kGroup, n - j);
      pack<kNr>(b, group_of(p.b, j, l), p.ldb, cols, k, p.transpose_b);
      Ahead ahead = group_ahead(j + kGroup, l);
      for (int64_t i = 0; i < p.m; i += kMr)
        for (int64_t c = 0; c < cols; c += kNr)
          result.tile_at(i, j + c, p.m - i, cols - c, part, APanel<E>{a + i * part}, BPanel<E>{b + c * part},
                         ahead.next(part));
    }
  }
}

// The same for any A and B.
template <class E, class T, class C, class ResultOf>
void multiply_columns(const Matmul<T, C>& p, int64_t j, int64_t n, const ResultOf& result_of) {
  if (p.m <= kMc && !p.transpose_a) return multiply_passing<E>(p, j, n, result_of);
  constexpr int64_t kDepth = kKc * kPerStep<E>;
  thread_local Scratch<E> a_scratch, b_scratch;
  E* const a = a_scratch.reserve(kMc * kKc);
  E* const b = b_scratch.reserve(whole_panels(n, kNr) * kKc);
  for (int64_t l = 0; l < p.k; l += kDepth) {
    const int64_t k = std::min(kDepth, p.k - l);
    pack<kNr>(b, p.transpose_b ? p.b + j * p.ldb + l : p.b + l * p.ldb + j, p.ldb, n, k, p.transpose_b);
    const auto result = result_of(l == 0, l + k == p.k);
    for (int64_t i = 0; i < p.m; i += kMc) {
      const int64_t m = std::min(kMc, p.m - i);
      pack<kMr>(a, p.transpose_a ? p.a + l * p.lda + i : p.a + i * p.lda + l, p.lda, m, k, !p.transpose_a);
      multiply_panels(m, n, steps<E>(k), a, b, result.from(i));
    }
  }
}

// C^T = B^T A^T, for a few rows of A: B's rows (weights, say) are then read in place, once, while tiles are
// computed. Packing them first takes as long as the products of 24 rows. The same sums in the same order, so
// the same bits.
void multiply_few_rows(const Matmul<float, float>& p) {
  thread_local Scratch<float> x_scratch, last_scratch;
  float* const x = x_scratch.reserve(whole_panels(p.m, kNr) * kKc);
  float* const last = last_scratch.reserve(kMr * kKc);
  alignas(64) float columns[kMr * kNr], rows[kNr * kMr];
  for (int64_t l = 0; l < p.k; l += kKc) {
    const int64_t k = std::min(kKc, p.k - l);
    const bool add = p.accumulate || l > 0;
    pack<kNr>(x, p.a + l, p.lda, p.m, k, true);
    for (int64_t j = 0; j < p.n; j += kMr) {
      const float* b = p.b + j * p.ldb + l;
      const int64_t cols = std::min(kMr, p.n - j);
      if (cols < kMr) pack<kMr>(last, b, p.ldb, cols, k, true);
      for (int64_t i = 0; i < p.m; i += kNr) {
        const BPanel<float> panel{x + i * k};
        if (cols < kMr)
          tile(k, APanel<float>{last}, panel, columns, kNr, Into::kReplace);
        else if (k == p.ldb && i == 0)
          tile(k, AInPlace<float>{b, p.ldb, 1}, panel, columns, kNr, Into::kReplace, FetchRows{b + kMr * k});
        else
          tile(k, AInPlace<float>{b, p.ldb, 1}, panel, columns, kNr, Into::kReplace);
        pack<kMr>(rows, columns, kNr, kMr, kNr, true);
        store_rows(p.c + i * p.ldc + j, p.ldc, rows, kMr, std::min(kNr, p.m - i), cols, 1.0f, add);
      }
    }
  }
}

// Where that is faster (measured). Pairs are packed in half the time that floats are.
bool has_few_rows(const Matmul<float, float>& p) {
  const bool few = p.m <= 32 || (p.m <= 128 && 8 * whole_panels(p.m, kNr) <= 9 * p.m);
  return few && p.transpose_b && !p.transpose_a;
}

template <class E, class T>
void multiply(const Matmul<T, float>& p) {
  const bool streams =
      kHasStreaming && p.stream && reinterpret_cast<uintptr_t>(p.c) % 64 == 0 && p.ldc % kWidth == 0;
  for (int64_t j = 0; j < p.n; j += kNc) {
    const auto result = [&](bool first, bool last) {
      const Into once = streams && last ? Into::kStreamed : Into::kReplace;
      return FloatResult{p.c + j, p.ldc, p.accumulate || !first ? Into::kAdd : once};
    };
    multiply_columns<E>(p, j, std::min(kNc, p.n - j), result);
  }
  if (streams) finish_streaming();
}

// In bands of rows whose waiting sums stay in the cache.
template <class E>
void multiply(const Matmul<BF16, BF16>& p) {
  thread_local Scratch<float> scratch;
  const bool one_part = steps<E>(p.k) <= kKc;
  const int64_t band = one_part ? p.m : std::min(p.m, 4 * kMc), ld = whole_panels(std::min(p.n, kNc), kNr);
  float* const partial = one_part ? nullptr : scratch.reserve(whole_panels(band, kMr) * ld);
  for (int64_t i = 0; i < p.m; i += band) {
    Matmul<BF16, BF16> rows = p;
    rows.a += p.transpose_a ? i : i * p.lda;
    rows.c += i * p.ldc;
    rows.m = std::min(band, p.m - i);
    for (int64_t j = 0; j < p.n; j += kNc) {
      const auto result = [&](bool first, bool last) {
        return RoundedResult{rows.c + j, p.ldc, p.accumulate, partial, ld, first, last};
      };
      multiply_columns<E>(rows, j, std::min(kNc, p.n - j), result);
    }
  }
}

}  // namespace

template <>
bool has_packed_gemm<float>() {
#if defined(__AVX2__) && defined(__FMA__)
  return true;
#else
  return false;
#endif
}

template <>
bool has_packed_gemm<BF16>() {
  return kHasPairs || !has_bf16_unit();
}

template <class E, class T, class C>
void packed_gemm(const Matmul<T, C>& p) {
  if constexpr (std::is_same_v<T, float>)
    if (has_few_rows(p)) return multiply_few_rows(p);
  multiply<E>(p);
}

template void packed_gemm<float>(const Matmul<float, float>&);
template void packed_gemm<float>(const Matmul<BF16, float>&);
template void packed_gemm<float>(const Matmul<BF16, BF16>&);
template void packed_gemm<Pair>(const Matmul<BF16, float>&);
template void packed_gemm<Pair>(const Matmul<BF16, BF16>&);

}  // namespace switchyard::kernels
