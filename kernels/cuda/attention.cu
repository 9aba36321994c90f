#include "kernels/attention.h"

#include "kernels/cuda/attention_simt.cuh"

namespace switchyard::kernels {

namespace {

void check_shape(const AttentionShape& s) {
  CHECK(s.kv_heads > 0 && s.heads % s.kv_heads == 0, s.heads, " heads, ", s.kv_heads, " kv heads");
  CHECK(s.head_dim > 0 && s.head_dim <= simt::kMaxHeadDim, "head_dim ", s.head_dim);
  CHECK(s.heads < 65536 && s.batch < 65536, s.heads, " heads, batch ", s.batch);  // grid dimensions y and z
}

// Calls f with the number of 32-component parts of a head as a compile-time constant.
template <class F>
void with_parts(int64_t head_dim, F&& f) {
  if (head_dim <= 32) return f(std::integral_constant<int, 1>());
  if (head_dim <= 64) return f(std::integral_constant<int, 2>());
  if (head_dim <= 128) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 8>());
}

}  // namespace

template <class T>
int64_t attention_workspace_bytes(Cuda, const AttentionShape& s) {
  return s.batch * s.heads * s.seq * static_cast<int64_t>(sizeof(Acc<T>));
}

template <class T>
void run(Cuda exec, const AttentionForward<T>& p) {
  check_shape(p.shape);
  with_parts(p.shape.head_dim, [&](auto parts) { simt::launch_forward<parts.value>(p, exec.stream); });
}

template <class T>
void run(Cuda exec, const AttentionBackward<T>& p) {
  check_shape(p.shape);
  auto* delta = static_cast<Acc<T>*>(p.workspace);
  simt::launch_delta(delta, p, exec.stream);
  with_parts(p.shape.head_dim,
             [&](auto parts) { simt::launch_backward<parts.value>(p, delta, exec.stream); });
}

template int64_t attention_workspace_bytes<float>(Cuda, const AttentionShape&);
template int64_t attention_workspace_bytes<BF16>(Cuda, const AttentionShape&);
template int64_t attention_workspace_bytes<double>(Cuda, const AttentionShape&);
template void run(Cuda, const AttentionForward<float>&);
template void run(Cuda, const AttentionForward<BF16>&);
template void run(Cuda, const AttentionForward<double>&);
template void run(Cuda, const AttentionBackward<float>&);
template void run(Cuda, const AttentionBackward<BF16>&);
template void run(Cuda, const AttentionBackward<double>&);

}  // namespace switchyard::kernels
