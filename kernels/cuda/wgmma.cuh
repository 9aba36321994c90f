// Hopper's own instructions (sm_90a): the copy engine (TMA), mbarriers, and wgmma.
#pragma once

#include <cuda.h>  // CUtensorMap; nothing of the driver is linked

#include "kernels/cuda/mma.cuh"

// Kernels are compiled for every architecture of the build, and no other than sm_90a has these instructions:
// there a kernel that uses them is empty, and CudaHandles::has_wgmma keeps it from being launched.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SWITCHYARD_HOPPER 1
#else
#define SWITCHYARD_HOPPER 0
#endif

namespace switchyard::kernels::hopper {

__device__ inline void init_barrier(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
}
// Makes initialised barriers visible to the copy engine.
__device__ inline void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Makes ordinary writes to shared memory visible to the copy engine and to wgmma.
__device__ inline void fence_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ inline void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ inline void arrive_expecting(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
// Until the phase of this parity is complete.
__device__ inline void wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again_%=;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// One box of a three-dimensional tensor, innermost coordinate first; outside the tensor lie zeros.
__device__ inline void copy_box(void* shared, const CUtensorMap* map, uint64_t* barrier, int x, int y,
                                int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5}], "
      "[%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Where wgmma finds an operand in 128-byte swizzled shared memory. `leading`: bytes from one 64-element block
// of m or n to the next (used where the reduction is not contiguous); eight rows of 128 bytes always follow
// each other.
__device__ inline uint64_t describe(const void* shared, int leading) {
  constexpr uint64_t kSwizzle128 = 1, kEightRows = 1024;
  return (shared_address(shared) & 0x3ffff) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
         kEightRows >> 4 << 32 | kSwizzle128 << 62;
}

__device__ inline void fence_accumulators() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from reading accumulators before the wait in front of this: it does not know that the
// products write them late.
template <int kBlocks>
__device__ void hold(float (&c)[kBlocks][4]) {
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(c[j][i])::"memory");
  }
}

// 2^x, zero where the result is denormal.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <int kRegisters>
__device__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Warps of `threads` threads meet at barrier `id` (1 to 15; 0 is __syncthreads).
__device__ inline void meet(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#define SWITCHYARD_FOUR(r) "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
// Of a product that starts a sum: what ordinary instructions left in the registers must not seem to go into
// it, or the compiler makes it wait for those under way.
#define SWITCHYARD_NEW_FOUR(r) "=f"(r[0]), "=f"(r[1]), "=f"(r[2]), "=f"(r[3])

// C[64, 256] += (without `add`: =) A[64, 16] B[16, 256] by a warpgroup. Warp w holds rows 16 w .. 16 w +
// 15, as mma.cuh's multiply_add has it; c[j] are columns 8 j .. 8 j + 7. kTranspose: the operand lies with
// its m (n) contiguous.
template <bool kTransposeA, bool kTransposeB>
__device__ void multiply_add(float (&c)[32][4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %132, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, add, 1, 1, %130, %131;\n}"
      : SWITCHYARD_FOUR(c[0]), SWITCHYARD_FOUR(c[1]), SWITCHYARD_FOUR(c[2]), SWITCHYARD_FOUR(c[3]),
        SWITCHYARD_FOUR(c[4]), SWITCHYARD_FOUR(c[5]), SWITCHYARD_FOUR(c[6]), SWITCHYARD_FOUR(c[7]),
        SWITCHYARD_FOUR(c[8]), SWITCHYARD_FOUR(c[9]), SWITCHYARD_FOUR(c[10]), SWITCHYARD_FOUR(c[11]),
        SWITCHYARD_FOUR(c[12]), SWITCHYARD_FOUR(c[13]), SWITCHYARD_FOUR(c[14]), SWITCHYARD_FOUR(c[15]),
        SWITCHYARD_FOUR(c[16]), SWITCHYARD_FOUR(c[17]), SWITCHYARD_FOUR(c[18]), SWITCHYARD_FOUR(c[19]),
        SWITCHYARD_FOUR(c[20]), SWITCHYARD_FOUR(c[21]), SWITCHYARD_FOUR(c[22]), SWITCHYARD_FOUR(c[23]),
        SWITCHYARD_FOUR(c[24]), SWITCHYARD_FOUR(c[25]), SWITCHYARD_FOUR(c[26]), SWITCHYARD_FOUR(c[27]),
        SWITCHYARD_FOUR(c[28]), SWITCHYARD_FOUR(c[29]), SWITCHYARD_FOUR(c[30]), SWITCHYARD_FOUR(c[31])
      : "l"(a), "l"(b), "n"(kTransposeA ? 1 : 0), "n"(kTransposeB ? 1 : 0), "r"(static_cast<int>(add)));
}

// C[64, 64] = or += (kAdd) A[64, 16] B[16, 64], both contiguous along the reduction.
template <bool kAdd>
__device__ void multiply_rows(float (&c)[8][4], uint64_t a, uint64_t b) {
#define SWITCHYARD_PRODUCT                                                            \
  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "            \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
  "%32, %33, add, 1, 1, 0, 0;\n}"
  if constexpr (kAdd) {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n" SWITCHYARD_PRODUCT
                 : SWITCHYARD_FOUR(c[0]), SWITCHYARD_FOUR(c[1]), SWITCHYARD_FOUR(c[2]), SWITCHYARD_FOUR(c[3]),
                   SWITCHYARD_FOUR(c[4]), SWITCHYARD_FOUR(c[5]), SWITCHYARD_FOUR(c[6]), SWITCHYARD_FOUR(c[7])
                 : "l"(a), "l"(b));
  } else {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 0;\n" SWITCHYARD_PRODUCT
                 : SWITCHYARD_NEW_FOUR(c[0]), SWITCHYARD_NEW_FOUR(c[1]), SWITCHYARD_NEW_FOUR(c[2]),
                   SWITCHYARD_NEW_FOUR(c[3]), SWITCHYARD_NEW_FOUR(c[4]), SWITCHYARD_NEW_FOUR(c[5]),
                   SWITCHYARD_NEW_FOUR(c[6]), SWITCHYARD_NEW_FOUR(c[7])
                 : "l"(a), "l"(b));
  }
#undef SWITCHYARD_PRODUCT
}

// C[64, 128] = or += (kAdd) A[64, 16] B[16, 128], both contiguous along the reduction.
template <bool kAdd>
__device__ void multiply_rows(float (&c)[16][4], uint64_t a, uint64_t b) {
#define SWITCHYARD_PRODUCT                                                            \
  "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "            \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
  "%64, %65, add, 1, 1, 0, 0;\n}"
  if constexpr (kAdd) {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n" SWITCHYARD_PRODUCT
                 : SWITCHYARD_FOUR(c[0]), SWITCHYARD_FOUR(c[1]), SWITCHYARD_FOUR(c[2]), SWITCHYARD_FOUR(c[3]),
                   SWITCHYARD_FOUR(c[4]), SWITCHYARD_FOUR(c[5]), SWITCHYARD_FOUR(c[6]), SWITCHYARD_FOUR(c[7]),
                   SWITCHYARD_FOUR(c[8]), SWITCHYARD_FOUR(c[9]), SWITCHYARD_FOUR(c[10]),
                   SWITCHYARD_FOUR(c[11]), SWITCHYARD_FOUR(c[12]), SWITCHYARD_FOUR(c[13]),
                   SWITCHYARD_FOUR(c[14]), SWITCHYARD_FOUR(c[15])
                 : "l"(a), "l"(b));
  } else {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 0;\n" SWITCHYARD_PRODUCT
                 : SWITCHYARD_NEW_FOUR(c[0]), SWITCHYARD_NEW_FOUR(c[1]), SWITCHYARD_NEW_FOUR(c[2]),
                   SWITCHYARD_NEW_FOUR(c[3]), SWITCHYARD_NEW_FOUR(c[4]), SWITCHYARD_NEW_FOUR(c[5]),
                   SWITCHYARD_NEW_FOUR(c[6]), SWITCHYARD_NEW_FOUR(c[7]), SWITCHYARD_NEW_FOUR(c[8]),
                   SWITCHYARD_NEW_FOUR(c[9]), SWITCHYARD_NEW_FOUR(c[10]), SWITCHYARD_NEW_FOUR(c[11]),
                   SWITCHYARD_NEW_FOUR(c[12]), SWITCHYARD_NEW_FOUR(c[13]), SWITCHYARD_NEW_FOUR(c[14]),
                   SWITCHYARD_NEW_FOUR(c[15])
                 : "l"(a), "l"(b));
  }
#undef SWITCHYARD_PRODUCT
}

// C[64, 64] = or += (kAdd) A B, A[64, 16] in registers as multiply_add has it, B[16, 64]
// contiguous along the reduction.
template <bool kAdd>
__device__ void multiply_kept(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b) {
#define SWITCHYARD_PRODUCT                                                            \
  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "            \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
  "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n}"
  if constexpr (kAdd) {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n" SWITCHYARD_PRODUCT
                 : SWITCHYARD_FOUR(c[0]), SWITCHYARD_FOUR(c[1]), SWITCHYARD_FOUR(c[2]), SWITCHYARD_FOUR(c[3]),
                   SWITCHYARD_FOUR(c[4]), SWITCHYARD_FOUR(c[5]), SWITCHYARD_FOUR(c[6]), SWITCHYARD_FOUR(c[7])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 1, 0;\n" SWITCHYARD_PRODUCT
                 : SWITCHYARD_NEW_FOUR(c[0]), SWITCHYARD_NEW_FOUR(c[1]), SWITCHYARD_NEW_FOUR(c[2]),
                   SWITCHYARD_NEW_FOUR(c[3]), SWITCHYARD_NEW_FOUR(c[4]), SWITCHYARD_NEW_FOUR(c[5]),
                   SWITCHYARD_NEW_FOUR(c[6]), SWITCHYARD_NEW_FOUR(c[7])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
#undef SWITCHYARD_PRODUCT
}

// C[64, 64] += A B, A[64, 16] in registers as multiply_add has it, B[16, 64] with its n contiguous.
__device__ inline void multiply_columns(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, add, 1, 1, 1;\n}"
      : SWITCHYARD_FOUR(c[0]), SWITCHYARD_FOUR(c[1]), SWITCHYARD_FOUR(c[2]), SWITCHYARD_FOUR(c[3]),
        SWITCHYARD_FOUR(c[4]), SWITCHYARD_FOUR(c[5]), SWITCHYARD_FOUR(c[6]), SWITCHYARD_FOUR(c[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// C[64, 128] += A B, A[64, 16] in registers as multiply_add has it, B[16, 128] with its n contiguous.
__device__ inline void multiply_columns(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.u32 add, 1, 1;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}"
      : SWITCHYARD_FOUR(c[0]), SWITCHYARD_FOUR(c[1]), SWITCHYARD_FOUR(c[2]), SWITCHYARD_FOUR(c[3]),
        SWITCHYARD_FOUR(c[4]), SWITCHYARD_FOUR(c[5]), SWITCHYARD_FOUR(c[6]), SWITCHYARD_FOUR(c[7]),
        SWITCHYARD_FOUR(c[8]), SWITCHYARD_FOUR(c[9]), SWITCHYARD_FOUR(c[10]), SWITCHYARD_FOUR(c[11]),
        SWITCHYARD_FOUR(c[12]), SWITCHYARD_FOUR(c[13]), SWITCHYARD_FOUR(c[14]), SWITCHYARD_FOUR(c[15])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef SWITCHYARD_FOUR
#undef SWITCHYARD_NEW_FOUR

}  // namespace switchyard::kernels::hopper
