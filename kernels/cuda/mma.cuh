// The tensor cores' warp-wide instructions (sm_80 and later), one function each.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/dtype.h"
#include "kernels/f16.h"

namespace switchyard::kernels {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory without waiting; zeros if !valid (then nothing is read).
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending of this thread's committed groups are under way.
template <int kPending>
__device__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices; lane 8 i + r gives the address of row r of matrix i. Lane l receives of each the
// elements (l / 4, 2 (l % 4) + {0, 1}), of the transposed matrix if kTranspose.
template <bool kTranspose>
__device__ void load_matrices(uint32_t (&r)[4], const void* row) {
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

// C[16, 8] += A[16, 16] B[16, 8]. Lane l holds of C rows l/4 (c0, c1) and l/4 + 8 (c2, c3), columns
// 2 (l % 4) + {0, 1}.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to bf16 or float16, `low` in the lower half.
template <class T = BF16>
__device__ uint32_t pack(float low, float high) {
  uint32_t both;
  if constexpr (std::is_same_v<T, F16>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    both = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return both;
}

}  // namespace switchyard::kernels
