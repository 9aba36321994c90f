// Panels: the order in which the innermost loop of a product reads its operands, and that loop.
//
// An element of a panel is a float (or a double), or a Pair: two bf16 values that follow each other along the
// sum, which the processor's bf16 instruction multiplies at once. A sum of k values has steps<E>(k) elements;
// where k is odd the last pair ends with 0.
//
// A panel of B holds kNr columns, one step after the other: b[l * kNr + c]. A panel of A holds kMr rows:
// a[l * kMr + r]. Rows and columns that do not exist are zeros, so that every tile of C is whole. kMr rows of
// A may also be read in place, which pays where they are used a few times only.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/cpu/unaligned.h"
#include "kernels/dtype.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace switchyard::kernels {

// A tile of C is kept in registers: kMr rows of two vectors. With AVX2's 16 registers that is 12, and two of
// B and one of A. Of AVX-512's 32, 16 are enough to keep AMD's multipliers busy: 8 rows are as fast in cached
// memory as 14, and faster outside of it. Intel's (of those with AMX) are 7 % faster with 14 (measured).
#ifdef __AMX_TILE__
inline constexpr int64_t kWidth = 16, kMr = 14;
#elif defined(__AVX512F__)
inline constexpr int64_t kWidth = 16, kMr = 8;
#else
inline constexpr int64_t kWidth = 8, kMr = 6;
#endif
inline constexpr int64_t kNr = 2 * kWidth;
// A long sum is taken in parts of so many steps.
inline constexpr int64_t kKc = 512;

inline constexpr int64_t whole_panels(int64_t size, int64_t panel) {
  return (size + panel - 1) / panel * panel;
}

// A distance between rows of at least `cols` elements, for scratch memory, at which the rows do not compete
// for the same sets of the cache: an odd number or twice an odd number of cache lines of float32.
inline constexpr int64_t padded_stride(int64_t cols) {
  const int64_t lines = (cols + 15) / 16;
  return 16 * (lines % 4 == 0 ? lines + 1 : lines);
}

struct Pair {
  BF16 first, second;
};

#ifdef __AVX512BF16__
inline constexpr bool kHasPairs = true;  // or else they are slower than bf16 widened to float32
#else
inline constexpr bool kHasPairs = false;
#endif

// What a panel of T holds on this processor.
template <class T>
using PanelElement = std::conditional_t<kHasPairs && std::is_same_v<T, BF16>, Pair, float>;

template <class E>
inline constexpr int64_t kPerStep = std::is_same_v<E, Pair> ? 2 : 1;
// Whether values of T that follow each other are E as they are: not bf16 that has to be widened.
template <class E, class T>
inline constexpr bool kIsAsStored = sizeof(E) == kPerStep<E> * sizeof(T);
template <class E>
constexpr int64_t steps(int64_t k) {
  return (k + kPerStep<E> - 1) / kPerStep<E>;
}

using Vector = float __attribute__((vector_size(kWidth * 4)));
SWITCHYARD_UNALIGNED(VectorInMemory, float, kWidth * 4, 4);

// sum += a b, a step of a tile's sums; b of floats or pairs. By reference, because a processor without AVX
// has no way to pass such vectors.
[[gnu::always_inline]] inline void multiply_add(Vector& sum, float a, const Vector& b) { sum += a * b; }
[[gnu::always_inline]] inline void multiply_add(Vector& sum, Pair a, const Vector& b) {
#ifdef __AVX512BF16__
  const auto twice = reinterpret_cast<__m512bh>(_mm512_set1_epi32(std::bit_cast<int32_t>(a)));
  sum = reinterpret_cast<Vector>(_mm512_dpbf16_ps(sum, twice, reinterpret_cast<__m512bh>(b)));
#else
  using Words = uint32_t __attribute__((vector_size(kWidth * 4)));
  const Words bits = reinterpret_cast<Words>(b);
  sum += static_cast<float>(a.first) * reinterpret_cast<Vector>(bits << 16) +
         static_cast<float>(a.second) * reinterpret_cast<Vector>(bits & 0xffff0000u);
#endif
}

// Element (i, l) of kMr rows of A.
template <class E>
struct APanel {
  const E* data;
  E at(int64_t i, int64_t l) const { return data[l * kMr + i]; }
};

template <class F>
struct AInPlace {
  const F* data;
  int64_t row, step;  // from a row to the next, and from l to the next
  F at(int64_t i, int64_t l) const { return data[i * row + l * step]; }
};

// kNr pairs of two rows.
[[gnu::always_inline]] inline void load_pairs(const BF16* first, const BF16* second, Vector& b0, Vector& b1) {
#ifdef __AVX512BF16__
  using Halves = uint16_t __attribute__((vector_size(64)));
  const auto pairs_from = [](int begin) {
    Halves half{};
    for (int i = 0; i < 16; ++i) half[2 * i] = begin + i, half[2 * i + 1] = 32 + begin + i;
    return reinterpret_cast<__m512i>(half);
  };
  const __m512i x = _mm512_loadu_si512(first), y = _mm512_loadu_si512(second);
  b0 = reinterpret_cast<Vector>(_mm512_permutex2var_epi16(x, pairs_from(0), y));
  b1 = reinterpret_cast<Vector>(_mm512_permutex2var_epi16(x, pairs_from(16), y));
#else
  Pair pairs[kNr];
  for (int64_t i = 0; i < kNr; ++i) pairs[i] = {first[i], second[i]};
  std::memcpy(&b0, pairs, sizeof(b0));
  std::memcpy(&b1, pairs + kWidth, sizeof(b1));
#endif
}

// Step l of kNr columns of B.
template <class E>
struct BPanel {
  const E* data;
  [[gnu::always_inline]] void load(int64_t l, Vector& b0, Vector& b1) const {
    const auto* columns = reinterpret_cast<const VectorInMemory*>(data + l * kNr);
    b0 = columns[0], b1 = columns[1];
  }
};

// The same where they lie: in rows of B, ld apart. A step of bf16 is two rows.
template <class T>
struct BInPlace {
  const T* data;
  int64_t ld;
  [[gnu::always_inline]] void load(int64_t l, Vector& b0, Vector& b1) const {
    if constexpr (std::is_same_v<T, float>)
      BPanel<float>{data + l * ld}.load(0, b0, b1);
    else
      load_pairs(data + 2 * l * ld, data + (2 * l + 1) * ld, b0, b1);
  }
};

// What a tile fetches at step l, while it computes, for tiles to come: memory then delivers while the
// multipliers work. Inlined by force, because GCC drops calls of a function that does nothing but fetch.
struct FetchNothing {
  [[gnu::always_inline]] void operator()(int64_t) const {}
};

// A line every 2^log2_steps steps into the second-level cache: lines first, first + 1, ..., last of rows of
// 2^log2_lines lines that lie row_bytes apart.
struct FetchLines {
  const char* data;
  int64_t row_bytes;
  int log2_lines, log2_steps;
  int64_t first, last;
  [[gnu::always_inline]] void operator()(int64_t l) const {
    constexpr int kIntoSecondLevel = 2;
    const int64_t line = std::min(first + (l >> log2_steps), last), row = line >> log2_lines;
    __builtin_prefetch(data + row * row_bytes + (line - (row << log2_lines)) * 64, 0, kIntoSecondLevel);
  }
};

// kMr elements a step into the first-level cache, of the kMr rows, ld apart, that a tile reads next in place.
template <class E>
struct FetchRows {
  const E* data;
  uint64_t ld;
  [[gnu::always_inline]] void operator()(uint64_t l) const {
    __builtin_prefetch(data + l % kMr * ld + l / kMr * kMr);
  }
};

// How a tile's sums reach C. kStreamed: past the cache, for what is not read soon; c and ldc are multiples of
// a vector, and whoever hands C on calls finish_streaming() first.
enum class Into { kReplace, kAdd, kStreamed };

#ifdef __AVX512F__
inline constexpr bool kHasStreaming = true;  // with AVX2's vectors, half a line, it is slower (measured)
[[gnu::always_inline]] inline void stream(float* to, const Vector& x) {
  _mm512_stream_ps(to, reinterpret_cast<__m512>(x));
}
inline void finish_streaming() { _mm_sfence(); }
#else
inline constexpr bool kHasStreaming = false;
inline void stream(float* to, const Vector& x) { *reinterpret_cast<VectorInMemory*>(to) = x; }
inline void finish_streaming() {}
#endif

// c[kMr, kNr] = a b, or c += a b. *squares (null: not wanted) += the squares of what c is then, lane by lane.
template <class A, class B, class Fetch = FetchNothing>
[[gnu::always_inline]] inline void tile(int64_t steps, A a, B b, float* c, int64_t ldc, Into into,
                                        Fetch fetch = {}, Vector* squares = nullptr) {
  Vector sum[kMr][2];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMr; ++i) {
    sum[i][0] = sum[i][1] = Vector{};
    if (into == Into::kStreamed) continue;
    __builtin_prefetch(c + i * ldc, 1);
    __builtin_prefetch(c + i * ldc + kWidth, 1);
  }
  for (int64_t l = 0; l < steps; ++l) {
    Vector b0, b1;
    b.load(l, b0, b1);
    fetch(l);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i) {
      const auto x = a.at(i, l);
      multiply_add(sum[i][0], x, b0);
      multiply_add(sum[i][1], x, b1);
    }
  }
  if (into == Into::kAdd) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i) {
      const auto* row = reinterpret_cast<const VectorInMemory*>(c + i * ldc);
      sum[i][0] += row[0];
      sum[i][1] += row[1];
    }
  }
  if (squares != nullptr) {
    Vector total[2] = {*squares, Vector{}};
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i) {
      total[0] += sum[i][0] * sum[i][0];
      total[1] += sum[i][1] * sum[i][1];
    }
    *squares = total[0] + total[1];
  }
  if (kHasStreaming && into == Into::kStreamed) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i) {
      stream(c + i * ldc, sum[i][0]);
      stream(c + i * ldc + kWidth, sum[i][1]);
    }
    return;
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMr; ++i) {
    auto* row = reinterpret_cast<VectorInMemory*>(c + i * ldc);
    row[0] = sum[i][0];
    row[1] = sum[i][1];
  }
}

// The same in double, for gradient checks.
template <class A>
void tile(int64_t steps, A a, BPanel<double> b, double* c, int64_t ldc, Into into) {
  double sum[kMr][kNr] = {};
  for (int64_t l = 0; l < steps; ++l)
    for (int64_t i = 0; i < kMr; ++i)
      for (int64_t j = 0; j < kNr; ++j) sum[i][j] += a.at(i, l) * b.data[l * kNr + j];
  for (int64_t i = 0; i < kMr; ++i)
    for (int64_t j = 0; j < kNr; ++j)
      c[i * ldc + j] = into == Into::kAdd ? c[i * ldc + j] + sum[i][j] : sum[i][j];
}

// Panels of kPanel rows of op(X) [size, k], one after the other; bf16 widened where panels are of float.
// `along`: x[r, l]; else x[l, r]. A panel has `length` steps, of which those after the last of the sum are
// zeros. Instantiated for kMr and kNr: float of float, float of BF16, Pair of BF16; for kNr: double of
// double; and for 32: Pair of BF16.
template <int64_t kPanel, class E, class T>
void pack(E* panels, const T* x, int64_t ld, int64_t size, int64_t k, bool along, int64_t length);
template <int64_t kPanel, class E, class T>
void pack(E* panels, const T* x, int64_t ld, int64_t size, int64_t k, bool along) {
  pack<kPanel>(panels, x, ld, size, k, along, steps<E>(k));
}

}  // namespace switchyard::kernels
