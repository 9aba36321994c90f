// The step between the fused query/key/value projection and attention, in one pass: per-head RMSNorm of
// queries and keys (optional), then rotary position embedding of their first `rotary_dim` components.
//
// A row of `x` is one token:  heads query heads | kv_heads key heads | kv_heads value heads, head_dim each.
// Values are copied, where the result has memory of its own. Row t stands at position t % seq.
//   norm:    n = x * rstd * w     (w of the queries or of the keys; skipped if w is null)
//   rotate:  (a, b) = (n[j], n[j + rotary_dim/2]) -> (a cos - b sin, b cos + a sin)
//            angle = position * theta^(-2j/rotary_dim)
// `cos` and `sin` are tables [seq, rotary_dim/2] in Acc<T>.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

inline constexpr int64_t kMaxHeadDim = 1024;  // a head stands on the stack (CPU) or in registers (CUDA)

template <class T>
struct NormRopeForward {
  T* y;               // [tokens, (heads + 2 kv_heads) * head_dim]; may be x where there is no norm
  Acc<T>* rstd;       // [tokens, heads + kv_heads]; null if there is no norm
  const T* x;         // as y
  const T* q_weight;  // [head_dim] or null: no norm
  const T* k_weight;  // [head_dim] or null
  const Acc<T>* cos;
  const Acc<T>* sin;
  int64_t tokens, seq;
  int64_t heads, kv_heads, head_dim, rotary_dim;
  Acc<T> eps;
};

template <class T>
struct NormRopeBackward {
  static constexpr int64_t kBlocks = 512;  // of tokens, for dq_weight and dk_weight
  T* dx;                                   // [tokens, (heads + 2 kv_heads) * head_dim]; may be dy
  Acc<T>* dq_weight;                       // [head_dim], added to; null if there is no norm
  Acc<T>* dk_weight;
  const T* dy;
  const T* x;  // the forward's input; null if there is no norm
  const T* q_weight;
  const T* k_weight;
  const Acc<T>* rstd;
  const Acc<T>* cos;
  const Acc<T>* sin;
  Acc<T>* workspace;  // kBlocks * 2 * head_dim elements, in an order of the backend's own
  int64_t tokens, seq;
  int64_t heads, kv_heads, head_dim, rotary_dim;
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const NormRopeForward<T>&);
template <class T>
void run(Cuda, const NormRopeForward<T>&);
template <class T>
void run(Cpu, const NormRopeBackward<T>&);
template <class T>
void run(Cuda, const NormRopeBackward<T>&);

}  // namespace switchyard::kernels
