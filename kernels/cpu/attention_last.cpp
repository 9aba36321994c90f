#include "kernels/attention_last.h"

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/softmax.h"

namespace switchyard::kernels {
namespace {

template <class T>
void attend(const AttentionLast<T>& a, int64_t head) {
  using A = Acc<T>;
  const AttentionShape& s = a.shape;
  const int64_t d = s.head_dim, row = s.row();
  const T* query = a.qkv + (s.seq - 1) * row + head * d;
  const T* keys = a.qkv + (s.heads + head / (s.heads / s.kv_heads)) * d;
  const T* values = keys + s.kv_heads * d;
  thread_local Scratch<A> scratch;
  A* const weights = scratch.reserve(s.seq + d);
  A* const out = weights + s.seq;
  for (int64_t j = 0; j < s.seq; ++j) weights[j] = A(s.scale) * dot(query, keys + j * row, d);
  softmax_row(weights, weights, s.seq);
  std::fill_n(out, d, A(0));
  for (int64_t j = 0; j < s.seq; ++j) {
    const A weight = weights[j];
    const T* value = values + j * row;
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) out[c] += weight * static_cast<A>(value[c]);
  }
  T* o = a.o + head * d;
#pragma omp simd
  for (int64_t c = 0; c < d; ++c) store(o[c], out[c]);
}

}  // namespace

template <class T>
void run(Cpu, const AttentionLast<T>& a) {
  for_rows(a.shape.heads, a.shape.seq * a.shape.head_dim, [=](int64_t head) { attend(a, head); });
}

template void run(Cpu, const AttentionLast<float>&);
template void run(Cpu, const AttentionLast<BF16>&);
template void run(Cpu, const AttentionLast<double>&);

}  // namespace switchyard::kernels
