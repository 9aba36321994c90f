#include "kernels/attention.h"

#include "kernels/cuda/attention_mma_backward.cuh"
#include "kernels/cuda/attention_mma_forward.cuh"
#include "kernels/cuda/attention_simt.cuh"
#include "kernels/cuda/attention_wgmma_backward.cuh"
#include "kernels/cuda/attention_wgmma_forward.cuh"
#include "kernels/cuda/handles.h"

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

// Rows are copied in pieces of 16 bytes.
bool fits_tensor_cores(const AttentionShape& s, const void* a, const void* b) {
  const auto address = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b);
  return (s.head_dim == 64 || s.head_dim == 128) && address % 16 == 0 && s.seq < (1 << 30);
}

// A tensor map has no empty dimension; a grid has at most 65535 blocks along z.
bool fits_wgmma(Cuda exec, const AttentionShape& s) {
  return exec.handles && exec.handles->runs_wgmma() && s.batch > 0 && s.seq > 0 && s.seq < 65535 * 64;
}

bool run_on_tensor_cores(Cuda exec, const AttentionForward<BF16>& p) {
  if (!fits_tensor_cores(p.shape, p.qkv, p.o)) return false;
  if (fits_wgmma(exec, p.shape)) {
    if (p.shape.head_dim == 64) {
      hopper::launch_attention<64>(p, exec.stream);
    } else {
      hopper::launch_attention<128>(p, exec.stream);
    }
    return true;
  }
  if (p.shape.head_dim == 64) {
    flash::launch_forward<2, 64>(p, exec.stream);
  } else {
    flash::launch_forward<1, 128>(p, exec.stream);
  }
  return true;
}

bool run_on_tensor_cores(Cuda exec, const AttentionBackward<BF16>& p, const float* delta) {
  if (!fits_tensor_cores(p.shape, p.qkv, p.d_o) || !fits_tensor_cores(p.shape, p.dqkv, nullptr)) return false;
  if (fits_wgmma(exec, p.shape)) {
    if (p.shape.head_dim == 64) {
      hopper::launch_attention<64>(p, delta, exec.stream);
    } else {
      hopper::launch_attention<128>(p, delta, exec.stream);
    }
    return true;
  }
  if (p.shape.head_dim == 64) {
    flash::launch_backward<64>(p, delta, exec.stream);
  } else {
    flash::launch_backward<128>(p, delta, exec.stream);
  }
  return true;
}

}  // namespace

template <class T>
int64_t attention_workspace_bytes(Cuda, const AttentionShape& s) {
  return s.batch * s.heads * s.seq * static_cast<int64_t>(sizeof(Acc<T>));
}

template <class T>
void run(Cuda exec, const AttentionForward<T>& p) {
  check_shape(p.shape);
  if constexpr (std::is_same_v<T, BF16>) {
    if (run_on_tensor_cores(exec, p)) return;
  }
  with_parts(p.shape.head_dim, [&](auto parts) { simt::launch_forward<parts.value>(p, exec.stream); });
}

template <class T>
void run(Cuda exec, const AttentionBackward<T>& p) {
  check_shape(p.shape);
  auto* delta = static_cast<Acc<T>*>(p.workspace);
  simt::launch_delta(delta, p, exec.stream);
  if constexpr (std::is_same_v<T, BF16>) {
    if (run_on_tensor_cores(exec, p, delta)) return;
  }
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
