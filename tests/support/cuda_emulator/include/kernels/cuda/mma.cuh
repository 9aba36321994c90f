// Stands before kernels/cuda/mma.cuh on the include path: the tensor cores' instructions, as exchanges
// between lanes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <array>
#include <cstring>

#include "kernels/cuda/launch.cuh"
#include "kernels/dtype.h"
#include "kernels/f16.h"

namespace switchyard::kernels {

inline void copy_async(void* shared, const void* global, bool valid) {
  cuda_emulator::copy_async(shared, valid ? global : nullptr);
}
inline void commit_copies() { cuda_emulator::commit_copies(); }
template <int kPending>
void wait_copies() {
  cuda_emulator::wait_copies(kPending);
}

template <bool kTranspose>
void load_matrices(uint32_t (&r)[4], const void* row) {
  const uint64_t* rows = cuda_emulator::exchange(~0u, reinterpret_cast<uintptr_t>(row));
  const int lane = cuda_emulator::lane(), major = lane / 4, minor = lane % 4 * 2;
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) {
      const int at_row = kTranspose ? minor + j : major, at_column = kTranspose ? major : minor + j;
      pair[j] = reinterpret_cast<const uint16_t*>(static_cast<uintptr_t>(rows[8 * i + at_row]))[at_column];
    }
    r[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
}

inline std::array<uint64_t, 32> exchange_pair(uint32_t low, uint32_t high) {
  const uint64_t* values = cuda_emulator::exchange(~0u, low | static_cast<uint64_t>(high) << 32);
  std::array<uint64_t, 32> copy;
  std::copy_n(values, 32, copy.begin());
  return copy;
}

// The bf16 number `i` (0..3) of four.
inline float bf16_of(uint64_t four, int i) {
  BF16 value;
  value.bits = static_cast<uint16_t>(four >> (16 * i));
  return static_cast<float>(value);
}

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto left = exchange_pair(a[0], a[2]);   // rows 0..7: k below 8, then from 8
  const auto right = exchange_pair(a[1], a[3]);  // rows 8..15
  const auto b = exchange_pair(b0, b1);
  const int lane = cuda_emulator::lane(), row = lane / 4, column = lane % 4 * 2;
  for (int i = 0; i < 4; ++i) {
    const auto& rows = i < 2 ? left : right;
    for (int k = 0; k < 16; ++k) {
      const int from = k % 8 / 2, part = k / 8 * 2 + k % 2;
      c[i] += bf16_of(rows[4 * row + from], part) * bf16_of(b[4 * (column + i % 2) + from], part);
    }
  }
}

template <class T = BF16>
uint32_t pack(float low, float high) {
  return T(low).bits | static_cast<uint32_t>(T(high).bits) << 16;
}

}  // namespace switchyard::kernels
