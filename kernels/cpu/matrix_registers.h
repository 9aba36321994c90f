// The matrix registers of Intel's AMX, which multiply bf16 at eight times the rate of vectors, and a plain
// twin that does the same sums anywhere, so that what is built on them is tested anywhere.
//
// Four registers hold a block of C, kBlock x kBlock float32; a step adds the products of kBlock rows of A and
// kBlock columns of B over kStep pairs. As the processor does it: the first values of the pairs are summed,
// and the second ones, with fused multiplications in ascending order; then both sums are added to C. Denormal
// numbers are zeros.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "kernels/cpu/panels.h"

namespace switchyard::kernels {

inline constexpr int64_t kBlock = 32;
inline constexpr int64_t kStep = 16;  // pairs

struct PlainRegisters {
  float c[kBlock][kBlock];

  void clear() { std::memset(c, 0, sizeof c); }
  void load(const float* from, int64_t ld) {
    for (int64_t i = 0; i < kBlock; ++i) std::memcpy(c[i], from + i * ld, sizeof c[i]);
  }
  void store(float* to, int64_t ld) const {
    for (int64_t i = 0; i < kBlock; ++i) std::memcpy(to + i * ld, c[i], sizeof c[i]);
  }
  // a[i * lda + l], b[l * ldb + j], of pairs
  void multiply(const Pair* a, int64_t lda, const Pair* b, int64_t ldb) {
    for (int64_t i = 0; i < kBlock; ++i)
      for (int64_t j = 0; j < kBlock; ++j) {
        float first = 0, second = 0;
        for (int64_t l = 0; l < kStep; ++l) {
          const Pair x = a[i * lda + l], y = b[l * ldb + j];
          first = std::fma(static_cast<float>(x.first), static_cast<float>(y.first), first);
          second = std::fma(static_cast<float>(x.second), static_cast<float>(y.second), second);
        }
        c[i][j] += first + second;
      }
  }
};

#ifdef __AMX_BF16__

// Of the calling thread, from construction to destruction: one at a time.
class MatrixRegisters {
 public:
  // The kernel hands the registers' memory to a process that asks for it. False: it will not.
  static bool available() {
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return granted;
  }

  MatrixRegisters() {
    alignas(64) static constexpr Layout kAllWhole;
    _tile_loadconfig(&kAllWhole);
  }
  ~MatrixRegisters() { _tile_release(); }
  MatrixRegisters(const MatrixRegisters&) = delete;
  MatrixRegisters& operator=(const MatrixRegisters&) = delete;

  void clear() {
    finish_stores();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  void load(const float* from, int64_t ld) {
    finish_stores();
    const int64_t bytes = ld * 4;
    _tile_loadd(0, from, bytes);
    _tile_loadd(1, from + kHalf, bytes);
    _tile_loadd(2, from + kHalf * ld, bytes);
    _tile_loadd(3, from + kHalf * ld + kHalf, bytes);
  }
  void store(float* to, int64_t ld) const {
    const int64_t bytes = ld * 4;
    _tile_stored(0, to, bytes);
    _tile_stored(1, to + kHalf, bytes);
    _tile_stored(2, to + kHalf * ld, bytes);
    _tile_stored(3, to + kHalf * ld + kHalf, bytes);
    finish_stores();
  }
  void multiply(const Pair* a, int64_t lda, const Pair* b, int64_t ldb) {
    _tile_stream_loadd(4, a, lda * 4);
    _tile_loadd(6, b, ldb * 4);
    _tile_loadd(7, b + kHalf, ldb * 4);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(5, a + kHalf * lda, lda * 4);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }

 private:
  // GCC does not know that loads of registers read memory.
  static void finish_stores() { asm volatile("" ::: "memory"); }

  static constexpr int64_t kHalf = kBlock / 2;
  struct Layout {  // of the eight registers: 16 rows of 64 bytes each
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
};

inline bool has_matrix_registers() { return MatrixRegisters::available(); }
#else
using MatrixRegisters = PlainRegisters;
inline bool has_matrix_registers() { return false; }
#endif

}  // namespace switchyard::kernels
