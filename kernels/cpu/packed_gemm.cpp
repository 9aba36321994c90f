#include "kernels/cpu/packed_gemm.h"

#include "kernels/cpu/ahead.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/few_rows_gemm.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// A group of B's panels (kGroup elements) stays in the second-level cache; the panels of A that it meets,
// kRows rows of them, lie in the third, packed a chunk of kChunk rows at a time. Measured with 1 MiB of
// second-level cache.
constexpr int64_t kGroup = 32 * 1024;
constexpr int64_t kChunk = 8 * kMr, kRows = 1024 / kChunk * kChunk;
constexpr int64_t kRowsInPlace = 128, kSecondLevelLines = (1 << 20) / 64;
constexpr int64_t kNc = 64 * kNr;  // columns of a bf16 result whose sums wait together

// Where tiles of a float32 result go, and the squares of kMr rows at a time, lane by lane (null: nowhere).
struct FloatResult {
  float* c;
  int64_t ldc;
  Into into;
  Vector* squares = nullptr;

  FloatResult from(int64_t i) const { return {c + i * ldc, ldc, into, squares_of(i)}; }
  Vector* squares_of(int64_t i) const { return squares == nullptr ? nullptr : squares + i / kMr; }

  // The tile at (i, j), of which rows x cols exist; a ragged one goes through a whole tile of its own.
  template <class A, class B, class Fetch = FetchNothing>
  void tile_at(int64_t i, int64_t j, int64_t rows, int64_t cols, int64_t steps, A a, B b,
               Fetch fetch = {}) const {
    float* to = c + i * ldc + j;
    if (rows >= kMr && cols >= kNr) return tile(steps, a, b, to, ldc, into, fetch, squares_of(i));
    alignas(64) float whole[kMr * kNr];
    tile(steps, a, b, whole, kNr, Into::kReplace, fetch);
    for (int64_t r = 0; r < std::min(kMr, rows); ++r)
      for (int64_t q = 0; q < std::min(kNr, cols); ++q) {
        float& x = to[r * ldc + q];
        x = into == Into::kAdd ? x + whole[r * kNr + q] : whole[r * kNr + q];
        if (squares != nullptr) (*squares_of(i))[q % kWidth] += x * x;
      }
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

// An update of B [n, k] (none: no update) that runs ahead of the product; B's element 0 is at `position`.
struct UpdateOfB {
  UpdateAhead* ahead = nullptr;
  int64_t position = 0;

  void require(int64_t elements) const {
    if (ahead != nullptr) ahead->require(position + elements);
  }
};

// The blocks of a product: chunks of A's rows from i on, groups of B's columns from j on (of n, the first
// being column `first` of B), and parts of the sum from l on.
template <class E, class T, class C>
struct Blocks {
  static constexpr int64_t kDepth = kKc * kPerStep<E>;
  const Matmul<T, C>& p;
  int64_t first, n;
  UpdateOfB update;
  int64_t group = kGroup / std::min(kKc, steps<E>(p.k)) / kNr * kNr;  // columns

  int64_t depth(int64_t l) const { return std::min(kDepth, p.k - l); }
  int64_t cols(int64_t j) const { return std::min(group, n - j); }
  int64_t rows(int64_t i) const { return std::min(kChunk, p.m - i); }
  const T* in_a(const T* matrix, int64_t i, int64_t l) const {
    return p.transpose_a ? matrix + l * p.lda + i : matrix + i * p.lda + l;
  }
  const T* in_b(const T* matrix, int64_t j, int64_t l) const {
    return p.transpose_b ? matrix + (first + j) * p.ldb + l : matrix + l * p.ldb + first + j;
  }

  void pack_a(E* to, int64_t i, int64_t l) const {
    pack<kMr>(to, in_a(p.a, i, l), p.lda, rows(i), depth(l), !p.transpose_a);
  }
  void pack_b(E* to, int64_t j, int64_t l) const {
    pack<kNr>(to, in_b(p.b, j, l), p.ldb, cols(j), depth(l), p.transpose_b);
  }
  // The same blocks of a matrix (null: there is none), to be fetched over so many steps.
  Ahead a_ahead(const T* matrix, int64_t i, int64_t l, int64_t steps) const {
    if (matrix == nullptr) return {};
    return {in_a(matrix, i, l), p.lda, p.transpose_a ? depth(l) : rows(i), p.transpose_a ? rows(i) : depth(l),
            steps};
  }
  Ahead b_ahead(const T* matrix, int64_t j, int64_t l, int64_t steps) const {
    if (matrix == nullptr) return {};
    return {in_b(matrix, j, l), p.ldb, p.transpose_b ? cols(j) : depth(l), p.transpose_b ? depth(l) : cols(j),
            steps};
  }

  // Whether a group of B is read where it is: packing it takes as long as the products of some 24 rows of A.
  // Whole tiles, lines, and steps only; and its rows must not all compete for the same sets of the cache.
  bool is_in_place(int64_t j) const {
    constexpr int64_t kLine = 64 / sizeof(T);
    const bool few = kIsAsStored<E, T> && !p.transpose_b && p.m <= kRowsInPlace;
    const bool whole = p.ldb % kLine == 0 && p.k % kPerStep<E> == 0 && cols(j) % kNr == 0;
    const int64_t row = p.ldb / kLine, power_of_two_in_row = row & -row;
    return few && whole && depth(0) * power_of_two_in_row <= kSecondLevelLines;
  }

  // Of the tiles of `rows` rows of A and group j.
  int64_t steps_of(int64_t rows, int64_t j, int64_t l) const {
    return whole_panels(rows, kMr) / kMr * (whole_panels(cols(j), kNr) / kNr) * steps<E>(depth(l));
  }

  // Where a part of the sum for kRows rows begins, and the one after it.
  struct Begin {
    const T *a, *b;
    int64_t i, l;
  };
  Begin after(int64_t i, int64_t l) const {
    if (l + kDepth < p.k) return {p.a, p.b, i, l + kDepth};
    if (i + kRows < p.m) return {p.a, p.b, i + kRows, 0};
    return {p.next_a, p.next_b, 0, 0};
  }

  // What is fetched while m rows from i on meet group j: the next group, or what comes after this part.
  struct Following {
    Ahead a, b;
  };
  Following following(int64_t i, int64_t m, int64_t j, int64_t l) const {
    const int64_t steps = steps_of(m, j, l);
    if (j + group < n) return {{}, b_ahead(p.b, j + group, l, steps)};
    const Begin next = after(i, l);
    return {a_ahead(next.a, next.i, next.l, steps), b_ahead(next.b, 0, next.l, steps)};
  }
};

// Columns of B as tiles read them.
template <class E>
struct PackedColumns {
  const E* data;
  int64_t steps;
  BPanel<E> at(int64_t j) const { return {data + j * steps}; }
};
template <class T>
struct ColumnsInPlace {
  const T* data;
  int64_t ld;
  BInPlace<T> at(int64_t j) const { return {data + j, ld}; }
};

// The tiles of a chunk of A and a group of B. What comes next is fetched meanwhile, A's before B's; short
// sums have no time for that.
template <class E, class Columns, class Result>
void multiply_chunk(int64_t rows, int64_t cols, int64_t steps, const E* a, const Columns& b,
                    const Result& result, int64_t first_col, Ahead& a_ahead, Ahead& b_ahead,
                    UpdateAhead* update) {
  constexpr int64_t kShort = 64;
  const auto fetch = [&] {
    if (!a_ahead.is_fetched()) return a_ahead.next(steps);
    return update != nullptr && !update->is_done() ? update->next(steps) : b_ahead.next(steps);
  };
  for (int64_t i = 0; i < rows; i += kMr)
    for (int64_t j = 0; j < cols; j += kNr) {
      const APanel<E> rows_of_a{a + i * steps};
      if (steps < kShort)
        result.tile_at(i, first_col + j, rows - i, cols - j, steps, rows_of_a, b.at(j));
      else
        result.tile_at(i, first_col + j, rows - i, cols - j, steps, rows_of_a, b.at(j), fetch());
      if (update != nullptr && !update->is_done()) update->tile_done();
    }
}

// Rows [i, i + m) of C, the part of the sum from l on. A is packed while the first group of B is multiplied.
template <class E, class T, class C, class Result>
void multiply_part(const Blocks<E, T, C>& blocks, int64_t i, int64_t m, int64_t l, const Result& result) {
  thread_local Scratch<E> a_scratch, b_scratch;
  const int64_t part = steps<E>(blocks.depth(l));
  E* const a = a_scratch.reserve(whole_panels(m, kMr) * part);
  E* const b = b_scratch.reserve(kGroup);
  for (int64_t j = 0; j < blocks.n; j += blocks.group) {
    blocks.update.require((blocks.first + j + blocks.cols(j)) * blocks.p.ldb);
    const bool in_place = blocks.is_in_place(j);
    if (!in_place) blocks.pack_b(b, j, l);
    auto next = blocks.following(i, m, j, l);
    for (int64_t r = 0; r < m; r += kChunk) {
      if (j == 0) {
        blocks.pack_a(a + r * part, i + r, l);
        if (r + kChunk < m)
          next.a = blocks.a_ahead(blocks.p.a, i + r + kChunk, l, blocks.steps_of(kChunk, j, l));
      }
      const auto multiply = [&](const auto& columns) {
        multiply_chunk(std::min(kChunk, m - r), blocks.cols(j), part, a + r * part, columns,
                       result.from(i + r), j, next.a, next.b, blocks.update.ahead);
      };
      if (in_place)
        multiply(ColumnsInPlace<T>{blocks.in_b(blocks.p.b, j, l), blocks.p.ldb});
      else
        multiply(PackedColumns<E>{b, part});
    }
  }
}

// Columns [first, first + n) of C.
template <class E, class T, class C, class ResultOf>
void multiply_columns(const Matmul<T, C>& p, int64_t first, int64_t n, const UpdateOfB& update,
                      const ResultOf& result_of) {
  const Blocks<E, T, C> blocks{p, first, n, update};
  for (int64_t i = 0; i < p.m; i += kRows)
    for (int64_t l = 0; l < p.k; l += blocks.kDepth)
      multiply_part(blocks, i, std::min(kRows, p.m - i), l, result_of(l == 0, l + blocks.kDepth >= p.k));
}

template <class E, class T>
void multiply(const Matmul<T, float>& p, const UpdateOfB& update, Vector* squares = nullptr) {
  const bool streams =
      kHasStreaming && p.stream && reinterpret_cast<uintptr_t>(p.c) % 64 == 0 && p.ldc % kWidth == 0;
  multiply_columns<E>(p, 0, p.n, update, [&](bool first, bool last) {
    const Into once = streams && last ? Into::kStreamed : Into::kReplace;
    return FloatResult{p.c, p.ldc, p.accumulate || !first ? Into::kAdd : once, last ? squares : nullptr};
  });
  if (streams) finish_streaming();
}

// In bands of rows whose waiting sums stay in the cache.
template <class E>
void multiply(const Matmul<BF16, BF16>& p, const UpdateOfB& update) {
  thread_local Scratch<float> scratch;
  const bool one_part = steps<E>(p.k) <= kKc;
  const int64_t band = one_part ? p.m : std::min(p.m, kRows), ld = whole_panels(std::min(p.n, kNc), kNr);
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
      multiply_columns<E>(rows, j, std::min(kNc, p.n - j), update, result);
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
  if constexpr (kIsAsStored<E, T> && std::is_same_v<T, C>)
    if (has_few_rows<E>(p)) return few_rows_gemm<E>(p);
  if constexpr (std::is_same_v<C, float>)
    multiply<E, T>(p, UpdateOfB());
  else
    multiply<E>(p, UpdateOfB());
}

template <class E, class T>
void packed_gemm(const Matmul<T, T>& p, UpdateAhead& ahead, int64_t position) {
  const UpdateOfB update{&ahead, position};
  if constexpr (kIsAsStored<E, T>)
    if (has_few_rows<E>(p)) {
      update.require(p.n * p.ldb);
      return few_rows_gemm<E>(p);
    }
  ahead.set_pace(p.m, std::min(kKc, steps<E>(p.k)));
  if constexpr (std::is_same_v<T, float>)
    multiply<E, T>(p, update);
  else
    multiply<E>(p, update);
}

template <class E, class T>
void packed_gemm(const Matmul<T, float>& p, float* squares) {
  thread_local Scratch<Vector> scratch;
  const int64_t panels = square_sum_count(p.m);
  Vector* const lanes = scratch.reserve(panels);
  std::fill_n(lanes, panels, Vector{});
  multiply<E, T>(p, UpdateOfB(), lanes);
  for (int64_t i = 0; i < panels; ++i) {
    squares[i] = 0;
    for (int64_t q = 0; q < kWidth; ++q) squares[i] += lanes[i][q];
  }
}

template void packed_gemm<float>(const Matmul<float, float>&);
template void packed_gemm<float>(const Matmul<BF16, float>&);
template void packed_gemm<float>(const Matmul<BF16, BF16>&);
template void packed_gemm<Pair>(const Matmul<BF16, float>&);
template void packed_gemm<Pair>(const Matmul<BF16, BF16>&);
template void packed_gemm<float>(const Matmul<float, float>&, UpdateAhead&, int64_t);
template void packed_gemm<float>(const Matmul<BF16, BF16>&, UpdateAhead&, int64_t);
template void packed_gemm<Pair>(const Matmul<BF16, BF16>&, UpdateAhead&, int64_t);
template void packed_gemm<float>(const Matmul<float, float>&, float*);
template void packed_gemm<float>(const Matmul<BF16, float>&, float*);
template void packed_gemm<Pair>(const Matmul<BF16, float>&, float*);

}  // namespace switchyard::kernels
