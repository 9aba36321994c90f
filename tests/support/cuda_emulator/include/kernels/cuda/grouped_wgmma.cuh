// Stands before kernels/cuda/grouped_wgmma.cuh on the include path. wgmma and TMA are not emulated: the
// emulated device is an sm_80 (matmul.cpp, runtime.cpp), which never gets here, but for the test of parts.
#pragma once

#include "kernels/cuda/group_tiles.cuh"
#include "kernels/cuda/row_cuts.cuh"

namespace switchyard::kernels::hopper {

// Loops in place of the tensor cores: the parts of a weight gradient as the blocks take them.
inline __global__ void parts_kernel(GroupedProblem<BF16, float> p) {
  const RowCuts cuts(p.m, p.n, p.rows, static_cast<int>(gridDim.x));
  for (int i = 0; i < cuts.most_pieces(); ++i) {
    const GroupTile t = cuts.piece(static_cast<int>(blockIdx.x), i);
    for (int64_t e = threadIdx.x; e < RowCuts::kPartElements && t.rows > 0; e += blockDim.x) {
      const int64_t m = t.m0 + e / kTileN, n = t.n0 + e % kTileN;
      float sum = 0;
      for (int64_t row = t.begin; row < t.begin + t.rows && m < p.m && n < p.n; ++row)
        sum += static_cast<float>(p.a[row * p.m + m]) * static_cast<float>(p.b[row * p.n + n]);
      p.c[t.group * RowCuts::kPartElements + e] = sum;
    }
  }
}

template <Form kForm, Ending kEnding = Ending::kStore, class C>
void launch(const GroupedProblem<BF16, C>& p, int multiprocessors, CUstream_st* stream) {
  if constexpr (kEnding == Ending::kPart) {
    launch_kernel(parts_kernel, dim3(multiprocessors), dim3(32), 0, stream, p);
  } else {
    CHECK(false, "wgmma needs a GPU");
  }
}

}  // namespace switchyard::kernels::hopper
