// Causal grouped-query attention without the T x T matrix in memory: FlashAttention (Dao, arXiv 2307.08691):
// scores tile by tile with a running maximum and sum; the backward pass recomputes the tiles from `lse`.
//
//   o[i] = sum_j softmax_j(scale * q[i].k[j]) v[j]   over j <= i of the same sequence (and document)
//   lse[i] = log sum_j exp(scale * q[i].k[j])
// Query head a reads key/value head a / (heads / kv_heads).
// q, k, v lie in one packed row per token, as NormRopeForward writes it:
//   heads query heads | kv_heads key heads | kv_heads value heads, head_dim each.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

inline constexpr int64_t kMaxCudaHeadDim = 256;  // the CPU has no limit of its own

struct AttentionShape {
  int64_t batch, seq;  // tokens = batch * seq, sequence after sequence
  int64_t heads, kv_heads, head_dim;
  float scale;  // 1 / sqrt(head_dim)
  constexpr int64_t row() const { return (heads + 2 * kv_heads) * head_dim; }
};

template <class T>
struct AttentionForward {
  T* o;                     // [tokens, heads * head_dim]
  Acc<T>* lse;              // [batch, heads, seq]
  const T* qkv;             // [tokens, row()]
  const int32_t* document;  // [tokens] or null; a token attends only to tokens of its own document number
  AttentionShape shape;
};

template <class T>
struct AttentionBackward {
  T* dqkv;       // [tokens, row()], every element is written
  const T* d_o;  // [tokens, heads * head_dim]
  const T* o;
  const T* qkv;
  const Acc<T>* lse;
  const int32_t* document;  // [tokens] or null
  void* workspace;          // attention_workspace_bytes(on, shape), 64-byte aligned
  AttentionShape shape;
};

// Bytes of AttentionBackward::workspace (row sums of dO*O, accumulators in Acc<T>). Grows linearly with
// tokens; none on a CPU.
template <class T>
int64_t attention_workspace_bytes(Cpu, const AttentionShape&);
template <class T>
int64_t attention_workspace_bytes(Cuda, const AttentionShape&);

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const AttentionForward<T>&);
template <class T>
void run(Cuda, const AttentionForward<T>&);
template <class T>
void run(Cpu, const AttentionBackward<T>&);
template <class T>
void run(Cuda, const AttentionBackward<T>&);

}  // namespace switchyard::kernels
