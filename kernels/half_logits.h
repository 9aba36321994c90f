// The output head's logits on a GPU: float16 between their product and their softmax, and then bf16 gradients
// in the same memory. Half the traffic of float32 logits; float16 has three bits more than bf16, so that a
// probability is as exact as the bf16 gradient that it becomes. Logits beyond 65504 count as infinite.
#pragma once

#include "kernels/dtype.h"
#include "kernels/f16.h"

namespace switchyard::kernels {

// Elements from one row of logits to the next: rows begin at multiples of 16 bytes.
constexpr int64_t half_logits_stride(int64_t vocab) { return (vocab + 7) / 8 * 8; }

// z[r, c] = sum over k of h[r, k] w[c, k]. Columns vocab .. stride - 1 hold anything.
struct HalfLogits {
  F16* z;         // [rows, half_logits_stride(vocab)]
  const BF16* h;  // [rows, hidden]
  const BF16* w;  // [vocab, hidden]
  int64_t rows, vocab, hidden;
};

// CrossEntropy (cross_entropy.h) of such logits.
struct HalfCrossEntropy {
  float* loss;            // [rows]
  BF16* dlogits;          // [rows, half_logits_stride(vocab)] or null; may be the memory of logits
  const F16* logits;      // [rows, half_logits_stride(vocab)]
  const int32_t* target;  // [rows], -1 or 0 <= target < vocab
  int64_t rows, vocab;
  float scale;
};

void run(Cuda, const HalfLogits&);
void run(Cuda, const HalfCrossEntropy&);

}  // namespace switchyard::kernels
