#include "kernels/cpu/matrix_gemm.h"

#include "kernels/cpu/convert.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/matrix_panels.h"
#include "kernels/cpu/matrix_registers.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// A panel of B (kDepth x kBlock) stays in the first-level cache while the panels of a block of A (kMc x
// kDepth) pass from the second, where a block of B (kDepth x kNc) stays, too. Measured with 48 KiB and 2 MiB.
constexpr int64_t kDepth = 512, kMc = 256, kNc = 1024;

// Past the cache: `rows` rows of a block. to and ld are multiples of a line.
void stream_block(float* to, int64_t ld, const float* block, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t q = 0; q < kBlock; q += kWidth)
      stream(to + r * ld + q, *reinterpret_cast<const Vector*>(block + r * kBlock + q));
}
void stream_block(BF16* to, int64_t ld, const float* block, int64_t rows) {
  static_assert(kBlock * sizeof(BF16) == 64);
  alignas(64) BF16 line[kBlock];
  for (int64_t r = 0; r < rows; ++r) {
    store_rows(line, kBlock, block + r * kBlock, kBlock, 1, kBlock);
    for (int64_t q = 0; q < kBlock; q += 2 * kWidth) {
      Vector bits;
      std::memcpy(&bits, line + q, sizeof bits);
      stream(reinterpret_cast<float*>(to + r * ld + q), bits);
    }
  }
}

// Whether it can be: whole blocks fill whole lines.
template <class C>
bool streams(const Matmul<BF16, C>& p) {
  constexpr int64_t kLine = 64 / sizeof(C);
  return kHasStreaming && p.stream && !p.accumulate && reinterpret_cast<uintptr_t>(p.c) % 64 == 0 &&
         p.ldc % kLine == 0;
}

// Where blocks of a float32 result go.
struct FloatResult {
  float* c;
  int64_t ldc;
  bool add, stream;

  FloatResult from(int64_t i) const { return {c + i * ldc, ldc, add, stream}; }

  // The block at (i, j), of which rows x cols exist; a ragged one goes through a whole one.
  template <class Registers, class Multiply>
  void block_at(Registers& registers, int64_t i, int64_t j, int64_t rows, int64_t cols,
                const Multiply& multiply) const {
    float* to = c + i * ldc + j;
    if (rows >= kBlock && cols >= kBlock && !stream) {
      begin(registers, to, ldc);
      multiply();
      return registers.store(to, ldc);
    }
    rows = std::min(rows, kBlock), cols = std::min(cols, kBlock);
    alignas(64) float whole[kBlock * kBlock];
    if (add) std::fill_n(whole, kBlock * kBlock, 0.0f), load_rows(whole, kBlock, to, ldc, rows, cols);
    begin(registers, whole, kBlock);
    multiply();
    registers.store(whole, kBlock);
    if (stream && cols == kBlock) return stream_block(to, ldc, whole, rows);
    store_rows(to, ldc, whole, kBlock, rows, cols);
  }

 private:
  template <class Registers>
  void begin(Registers& registers, const float* at, int64_t ld) const {
    if (add)
      registers.load(at, ld);
    else
      registers.clear();
  }
};

// Where blocks of a bf16 result go: sums of all but the last part wait in `partial`, of whole blocks.
struct RoundedResult {
  BF16* c;
  int64_t ldc;
  bool add, stream;
  float* partial;
  int64_t ld_partial;
  bool first, last;   // of the parts of the sum
  int64_t begin = 0;  // row of C that is row 0 here

  RoundedResult from(int64_t i) const {
    return {c, ldc, add, stream, partial, ld_partial, first, last, begin + i};
  }

  template <class Registers, class Multiply>
  void block_at(Registers& registers, int64_t i, int64_t j, int64_t rows, int64_t cols,
                const Multiply& multiply) const {
    const int64_t row = begin + i;
    float* const waiting = partial + row * ld_partial + j;
    if (first)
      registers.clear();
    else
      registers.load(waiting, ld_partial);
    multiply();
    if (!last) return registers.store(waiting, ld_partial);
    alignas(64) float sum[kBlock * kBlock];
    registers.store(sum, kBlock);
    BF16* const to = c + row * ldc + j;
    rows = std::min(rows, kBlock), cols = std::min(cols, kBlock);
    if (stream && cols == kBlock) return stream_block(to, ldc, sum, rows);
    store_rows(to, ldc, sum, kBlock, rows, cols, 1.0f, add);
  }
};

// A block for every panel of a [m, length] and b [n, length].
template <class Registers, class Result>
void multiply_panels(Registers& registers, int64_t m, int64_t n, int64_t length, const Pair* a, const Pair* b,
                     const Result& result) {
  for (int64_t j = 0; j < n; j += kBlock)
    for (int64_t i = 0; i < m; i += kBlock)
      result.block_at(registers, i, j, m - i, n - j, [&] {
        const Pair *rows = a + i * length, *columns = b + j * length;
        for (int64_t l = 0; l < length; l += kStep)
          registers.multiply(rows + l * kBlock, kStep, columns + l * kBlock, kBlock);
      });
}

// Columns [j, j + n) of C.
template <class Registers, class C, class ResultOf>
void multiply_columns(Registers& registers, const Matmul<BF16, C>& p, int64_t j, int64_t n,
                      const ResultOf& result_of) {
  thread_local Scratch<Pair> a_scratch, b_scratch;
  Pair* const a = a_scratch.reserve(kMc * kDepth / 2);
  Pair* const b = b_scratch.reserve(whole_panels(n, kBlock) * kDepth / 2);
  for (int64_t l = 0; l < p.k; l += kDepth) {
    const int64_t k = std::min(kDepth, p.k - l), length = round_up(steps<Pair>(k), kStep);
    pack<kBlock>(b, p.transpose_b ? p.b + j * p.ldb + l : p.b + l * p.ldb + j, p.ldb, n, k, p.transpose_b,
                 length);
    const auto result = result_of(l == 0, l + k == p.k);
    for (int64_t i = 0; i < p.m; i += kMc) {
      const int64_t m = std::min(kMc, p.m - i);
      pack_matrix_rows(a, p.transpose_a ? p.a + l * p.lda + i : p.a + i * p.lda + l, p.lda, m, k,
                       !p.transpose_a);
      multiply_panels(registers, m, n, length, a, b, result.from(i));
    }
  }
}

template <class Registers>
void multiply(Registers& registers, const Matmul<BF16, float>& p) {
  const bool past_cache = streams(p);
  for (int64_t j = 0; j < p.n; j += kNc)
    multiply_columns(registers, p, j, std::min(kNc, p.n - j), [&](bool first, bool last) {
      const bool add = p.accumulate || !first;
      return FloatResult{p.c + j, p.ldc, add, past_cache && last && !add};
    });
  if (past_cache) finish_streaming();
}

// In bands of rows whose waiting sums stay in the cache.
template <class Registers>
void multiply(Registers& registers, const Matmul<BF16, BF16>& p) {
  thread_local Scratch<float> scratch;
  const bool one_part = p.k <= kDepth, past_cache = streams(p);
  const int64_t band = one_part ? p.m : std::min(p.m, 2 * kMc),
                ld = whole_panels(std::min(p.n, kNc), kBlock) + kWidth;
  float* const partial = one_part ? nullptr : scratch.reserve(whole_panels(band, kBlock) * ld);
  for (int64_t i = 0; i < p.m; i += band) {
    Matmul<BF16, BF16> rows = p;
    rows.a += p.transpose_a ? i : i * p.lda;
    rows.c += i * p.ldc;
    rows.m = std::min(band, p.m - i);
    for (int64_t j = 0; j < p.n; j += kNc)
      multiply_columns(registers, rows, j, std::min(kNc, p.n - j), [&](bool first, bool last) {
        return RoundedResult{rows.c + j, p.ldc, p.accumulate, past_cache, partial, ld, first, last};
      });
  }
  if (past_cache) finish_streaming();
}

}  // namespace

bool has_matrix_gemm() { return has_matrix_registers(); }

template <class Registers, class C>
void matrix_gemm(const Matmul<BF16, C>& p) {
  Registers registers;
  multiply(registers, p);
}

template <class C>
void matrix_gemm(const Matmul<BF16, C>& p) {
  matrix_gemm<MatrixRegisters>(p);
}

template void matrix_gemm(const Matmul<BF16, float>&);
template void matrix_gemm(const Matmul<BF16, BF16>&);
template void matrix_gemm<PlainRegisters>(const Matmul<BF16, float>&);
template void matrix_gemm<PlainRegisters>(const Matmul<BF16, BF16>&);

}  // namespace switchyard::kernels
