// FlashAttention's forward pass: a block owns kRows queries of one head and walks the keys in steps of 64,
// the next step's keys and values under way while this one is computed. Softmax runs in powers of two.
#pragma once

#include "kernels/cuda/attention_mma.cuh"

namespace switchyard::kernels::flash {

// The running maximum and sum of a warp's rows; lane l holds those of rows l/4 and l/4 + 8 of each fragment.
template <int kFrags>
struct Softmax {
  float largest[kFrags][2], sum[kFrags][2];

  __device__ Softmax() {
    for (int f = 0; f < kFrags; ++f) {
      largest[f][0] = largest[f][1] = -INFINITY;
      sum[f][0] = sum[f][1] = 0;
    }
  }

  // Scores become weights exp2(scale * (s - largest)); what o holds so far is scaled to the new maximum.
  template <int kDim>
  __device__ void update(Rows<kFrags, kColumns>& s, Rows<kFrags, kDim>& o, float scale) {
#pragma unroll
    for (int f = 0; f < kFrags; ++f) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float next = largest[f][half];
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j)
          next = fmaxf(next, fmaxf(s[f][j][2 * half], s[f][j][2 * half + 1]));
        next = row_max(next);
        const float base = next == -INFINITY ? 0 : next * scale;  // no key seen yet
        const float shrink = exp2f(largest[f][half] * scale - base);
        float added = 0;
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            s[f][j][i] = exp2f(s[f][j][i] * scale - base);
            added += s[f][j][i];
          }
        }
        largest[f][half] = next;
        sum[f][half] = sum[f][half] * shrink + added;
#pragma unroll
        for (int j = 0; j < kDim / 8; ++j) {
          o[f][j][2 * half] *= shrink;
          o[f][j][2 * half + 1] *= shrink;
        }
      }
    }
  }
};

template <int kFrags>
__device__ void mask_keys(Rows<kFrags, kColumns>& s, int query0, int key0, int seq, const int32_t* document) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int f = 0; f < kFrags; ++f) {
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = query0 + 16 * f + i / 2 * 8 + lane / 4, key = key0 + 8 * j + lane % 4 * 2 + i % 2;
        if (!visible(query, key, seq, document)) s[f][j][i] = -INFINITY;
      }
    }
  }
}

// o /= sum and lse = log of the sum of exponentials.
template <int kFrags, int kDim>
__device__ void finish(Rows<kFrags, kDim>& o, float* lse, const Softmax<kFrags>& softmax, int row0, int seq,
                       float scale) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int f = 0; f < kFrags; ++f) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(softmax.sum[f][half]);
      const int row = row0 + 16 * f + 8 * half + lane / 4;
      if (lane % 4 == 0 && row < seq) lse[row] = softmax.largest[f][half] * scale + logf(sum);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        o[f][j][2 * half] /= sum;
        o[f][j][2 * half + 1] /= sum;
      }
    }
  }
}

template <int kFrags, int kDim>
constexpr size_t kForwardShared = tile_bytes(16 * kFrags * kWarps + 4 * kColumns, kDim);

template <int kFrags, int kDim>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(AttentionForward<BF16> p) {
  constexpr int kRows = 16 * kFrags * kWarps;
  const AttentionShape& shape = p.shape;
  const int seq = static_cast<int>(shape.seq);
  const int64_t head = blockIdx.y, first = blockIdx.z * shape.seq,
                kv_head = head / (shape.heads / shape.kv_heads);
  const int block0 = (gridDim.x - 1 - blockIdx.x) * kRows;  // the longest rows first
  const BF16* base = p.qkv + first * shape.row();
  const Strand queries{base + head * kDim, shape.row()},
      keys{base + (shape.heads + kv_head) * kDim, shape.row()};
  const Strand values{keys.x + shape.kv_heads * kDim, shape.row()};
  const int32_t* document = p.document ? p.document + first : nullptr;

  unsigned char* shared = dynamic_shared();
  const Tile<kDim> q = tile_at<kRows, kDim>(shared);
  const Stages<kDim> k = stages_at<kDim>(shared);
  const Stages<kDim> v = stages_at<kDim>(shared);
  const int steps = (min(block0 + kRows, seq) + kColumns - 1) / kColumns;
  const auto copy = [&](int step) {
    copy_rows<kColumns, kDim>(k[step], keys, step * kColumns, seq);
    copy_rows<kColumns, kDim>(v[step], values, step * kColumns, seq);
    commit_copies();
  };
  copy_rows<kRows, kDim>(q, queries, block0, seq);
  copy(0);

  const int m = threadIdx.x / 32 * 16 * kFrags, row0 = block0 + m;
  Rows<kFrags, kDim> o = {};
  Softmax<kFrags> softmax;
  for (int step = 0; step < steps; ++step) {
    wait_copies<0>();
    __syncthreads();  // this step has arrived for all, and all are done with the one before
    if (step + 1 < steps) copy(step + 1);
    const int key0 = step * kColumns;
    if (key0 > row0 + 16 * kFrags - 1) continue;  // this warp's rows end before these keys
    Rows<kFrags, kColumns> s = {};
    multiply_rows<kFrags, kDim>(s, q, m, k[step]);
    if (document || key0 + kColumns - 1 > row0) mask_keys<kFrags>(s, row0, key0, seq, document);
    softmax.template update<kDim>(s, o, shape.scale * kLog2E);
    multiply_weights<kFrags, kDim>(o, s, v[step]);
  }
  finish<kFrags, kDim>(o, p.lse + (blockIdx.z * shape.heads + head) * shape.seq, softmax, row0, seq,
                       shape.scale);
  store_rows<kFrags, kDim>(p.o + (first * shape.heads + head) * kDim, shape.heads * kDim, o, row0, seq, 1);
}

template <int kFrags, int kDim>
void launch_forward(const AttentionForward<BF16>& p, cudaStream_t stream) {
  constexpr int kRows = 16 * kFrags * kWarps;
  const dim3 grid((p.shape.seq + kRows - 1) / kRows, p.shape.heads, p.shape.batch);
  launch_kernel(forward_kernel<kFrags, kDim>, grid, dim3(kThreads), kForwardShared<kFrags, kDim>, stream, p);
}

}  // namespace switchyard::kernels::flash
