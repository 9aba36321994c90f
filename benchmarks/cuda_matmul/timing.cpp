#include "benchmarks/cuda_matmul/timing.h"

#include <cublas_v2.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>

#include "benchmarks/cuda_matmul/device.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/cuda/handles.h"
#include "kernels/cuda/one_group.h"
#include "kernels/gate_up.h"
#include "kernels/grouped_matmul.h"
#include "kernels/half_logits.h"
#include "kernels/matmul.h"
#include "kernels/swiglu.h"

namespace switchyard::bench {

namespace {

using kernels::AttentionShape;

// Random bf16 on the device without drawing every element on the host.
struct RandomArray : DeviceArray<BF16> {
  explicit RandomArray(int64_t n) : DeviceArray<BF16>(n) {
    constexpr int64_t kPeriod = 1'000'003;
    std::mt19937 generator(7);
    const auto block = random_vector<BF16>(std::min(n, kPeriod), generator);
    for (int64_t at = 0; at < n; at += kPeriod) {
      const size_t bytes = std::min(kPeriod, n - at) * sizeof(BF16);
      CUDA_CHECK(cudaMemcpy(data() + at, block.data(), bytes, cudaMemcpyHostToDevice));
    }
  }
};

class Clock {
 public:
  explicit Clock(cudaStream_t stream) : stream_(stream) {
    CUDA_CHECK(cudaEventCreate(&begin_));
    CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~Clock() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  // Median milliseconds of one call, after a warm-up.
  double median(const std::function<void()>& work) {
    constexpr int kRepeats = 15;
    work();
    work();
    std::vector<float> times(kRepeats);
    for (float& t : times) {
      CUDA_CHECK(cudaEventRecord(begin_, stream_));
      work();
      CUDA_CHECK(cudaEventRecord(end_, stream_));
      CUDA_CHECK(cudaEventSynchronize(end_));
      CUDA_CHECK(cudaEventElapsedTime(&t, begin_, end_));
    }
    std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
    return times[kRepeats / 2];
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Bench {
  Cuda exec;
  Clock clock;
  double ceiling = 0;  // TFLOP/s

  void line(const std::string& name, double flops, const std::function<void()>& work) {
    const double ms = clock.median(work), tflops = flops / ms * 1e-9;
    std::printf("%-64s %9.4f ms %7.1f TFLOP/s %5.1f %%\n", name.c_str(), ms, tflops, 100 * tflops / ceiling);
  }
};

void time_ceilings(Bench& bench) {
  constexpr int64_t kBytes = 1 << 30, kSize = 8192;
  DeviceArray<uint8_t> from(kBytes), to(kBytes);
  const double copy = bench.clock.median([&] {
    CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, bench.exec.stream));
  });
  std::printf("copy of 1 GiB: %.3f ms, %.2f TB/s read and written\n", copy, 2 * kBytes / copy * 1e-9);
  RandomArray a(kSize * kSize), b(kSize * kSize);
  DeviceArray<BF16> c(kSize * kSize);
  const auto product = [&] {
    run(bench.exec, kernels::Matmul<BF16>{c.data(), a.data(), b.data(), kSize, kSize, kSize, false, true});
  };
  bench.ceiling = 2.0 * kSize * kSize * kSize / bench.clock.median(product) * 1e-9;
  bench.line("matmul 8192^3 bf16: the ceiling", 2.0 * kSize * kSize * kSize, product);
}

// Rows per group: all alike, or falling as 1 / rank; the sum is groups * rows either way.
std::vector<int64_t> offsets_of(int64_t groups, int64_t rows, bool zipf) {
  double harmonic = 0;
  for (int64_t g = 0; g < groups; ++g) harmonic += 1.0 / (g + 1);
  std::vector<int64_t> offsets{0};
  double exact = 0;
  for (int64_t g = 0; g < groups; ++g) {
    exact += zipf ? groups * rows / harmonic / (g + 1) : rows;
    offsets.push_back(std::min<int64_t>(groups * rows, std::llround(exact)));
  }
  offsets.back() = groups * rows;
  return offsets;
}

// cublasGemmGroupedBatchedEx, sizes known to the host; column-major, so the product is y^T = W x^T.
class CublasGrouped {
 public:
  CublasGrouped(BF16* y, const BF16* x, const BF16* w, const std::vector<int64_t>& offsets, int n, int k)
      : groups_(static_cast<int>(offsets.size()) - 1),
        n_(groups_, n),
        k_(groups_, k),
        one_each_(groups_, 1),
        alpha_(groups_, 1.0f),
        beta_(groups_, 0.0f),
        transposed_(groups_, CUBLAS_OP_T),
        plain_(groups_, CUBLAS_OP_N) {
    std::vector<const void*> a, b;
    std::vector<void*> c;
    for (int g = 0; g < groups_; ++g) {
      m_.push_back(static_cast<int>(offsets[g + 1] - offsets[g]));
      a.push_back(w + static_cast<int64_t>(g) * n * k);
      b.push_back(x + offsets[g] * k);
      c.push_back(y + offsets[g] * n);
    }
    a_ = std::make_unique<DeviceArray<const void*>>(a);
    b_ = std::make_unique<DeviceArray<const void*>>(b);
    c_ = std::make_unique<DeviceArray<void*>>(c);
  }
  void run(cublasHandle_t handle) {
    CUDA_CHECK(cublasGemmGroupedBatchedEx(
        handle, transposed_.data(), plain_.data(), n_.data(), m_.data(), k_.data(), alpha_.data(), a_->data(),
        CUDA_R_16BF, k_.data(), b_->data(), CUDA_R_16BF, k_.data(), beta_.data(), c_->data(), CUDA_R_16BF,
        n_.data(), groups_, one_each_.data(), CUBLAS_COMPUTE_32F));
  }

 private:
  int groups_;
  std::vector<int> m_, n_, k_, one_each_;
  std::vector<float> alpha_, beta_;
  std::vector<cublasOperation_t> transposed_, plain_;
  std::unique_ptr<DeviceArray<const void*>> a_, b_;
  std::unique_ptr<DeviceArray<void*>> c_;
};

void time_grouped(Bench& bench, int64_t groups, int64_t rows, int64_t n, int64_t k, bool zipf) {
  const auto offsets = offsets_of(groups, rows, zipf);
  const int64_t total = groups * rows;
  RandomArray x(total * k), w(groups * n * k), dy(total * n);
  DeviceArray<BF16> y(total * n), dx(total * k);
  DeviceArray<float> dw(groups * n * k);
  DeviceArray<int64_t> device_offsets(offsets);
  const Cuda exec = bench.exec;
  const double flops = 2.0 * total * n * k;
  const std::string name = concat(groups, " x ", rows, zipf ? " zipf" : " even", " k ", k, " -> n ", n);
  const bool allow_wgmma = exec.handles->allow_wgmma;
  for (const bool wgmma : {false, true}) {
    exec.handles->allow_wgmma = wgmma;
    bench.line(name + (wgmma ? ": wgmma " : ": mma.sync ") + "forward", flops, [&] {
      run(exec, kernels::GroupedMatmul<BF16>{y.data(), x.data(), w.data(), device_offsets.data(), groups,
                                             total, n, k, true});
    });
    bench.line(name + (wgmma ? ": wgmma " : ": mma.sync ") + "data", flops, [&] {
      run(exec, kernels::GroupedMatmul<BF16>{dx.data(), dy.data(), w.data(), device_offsets.data(), groups,
                                             total, k, n, false});
    });
    bench.line(name + (wgmma ? ": wgmma " : ": mma.sync ") + "weight =", flops, [&] {
      run(exec, kernels::GroupedMatmulWeight<BF16>{dw.data(), dy.data(), x.data(), device_offsets.data(),
                                                   groups, total, n, k, false});
    });
    bench.line(name + (wgmma ? ": wgmma " : ": mma.sync ") + "weight +=", flops, [&] {
      run(exec, kernels::GroupedMatmulWeight<BF16>{dw.data(), dy.data(), x.data(), device_offsets.data(),
                                                   groups, total, n, k, true});
    });
  }
  exec.handles->allow_wgmma = allow_wgmma;
  bench.line(name + ": loop of cuBLAS forward", flops, [&] {
    for (int64_t g = 0; g < groups; ++g) {
      run(exec, kernels::Matmul<BF16>{y.data() + offsets[g] * n, x.data() + offsets[g] * k,
                                      w.data() + g * n * k, offsets[g + 1] - offsets[g], n, k, false, true});
    }
  });
  bench.line(name + ": loop of cuBLAS weight +=", flops, [&] {
    for (int64_t g = 0; g < groups; ++g) {
      run(exec, kernels::Matmul<BF16, float>{dw.data() + g * n * k, dy.data() + offsets[g] * n,
                                             x.data() + offsets[g] * k, n, k, offsets[g + 1] - offsets[g],
                                             true, false, true});
    }
  });
  CublasGrouped grouped(y.data(), x.data(), w.data(), offsets, static_cast<int>(n), static_cast<int>(k));
  bench.line(name + ": cublasGemmGroupedBatchedEx forward", flops,
             [&] { grouped.run(exec.handles->cublas); });
}

// Linear layers: by cuBLAS and by the kernel of the grouped products.
void time_linear(Bench& bench, int64_t rows, int64_t n, int64_t k) {
  RandomArray x(rows * k), w(n * k), dy(rows * n);
  DeviceArray<BF16> y(rows * n), dx(rows * k);
  DeviceArray<float> dw(n * k);
  const Cuda exec = bench.exec;
  const double flops = 2.0 * rows * n * k;
  const std::string name = concat("linear ", rows, " x ", k, " -> ", n);
  const bool allow_wgmma = exec.handles->allow_wgmma;
  for (const bool wgmma : {false, true}) {
    exec.handles->allow_wgmma = wgmma;
    const std::string by = wgmma ? ": wgmma " : ": cuBLAS ";
    bench.line(name + by + "forward", flops, [&] {
      run(exec, kernels::Matmul<BF16>{y.data(), x.data(), w.data(), rows, n, k, false, true});
    });
    bench.line(name + by + "data", flops, [&] {
      run(exec, kernels::Matmul<BF16>{dx.data(), dy.data(), w.data(), rows, k, n});
    });
  }
  exec.handles->allow_wgmma = allow_wgmma;
  const kernels::Matmul<BF16, float> weight{dw.data(), dy.data(), x.data(), n, k, rows, true, false, true};
  bench.line(name + ": cuBLAS weight +=", flops, [&] { run(exec, weight); });
  if (run_in_parts(exec, weight))
    bench.line(name + ": wgmma in parts weight +=", flops, [&] { run_in_parts(exec, weight); });
}

// Gate and up, and SwiGLU: in one pass, and apart.
void time_gate_up(Bench& bench, int64_t groups, int64_t rows, int64_t n, int64_t k) {
  const auto offsets = offsets_of(groups, rows, false);
  const int64_t total = groups * rows;
  RandomArray x(total * k), w(groups * 2 * n * k);
  DeviceArray<BF16> h(total * 2 * n), s(total * n);
  DeviceArray<int64_t> device_offsets(offsets);
  const Cuda exec = bench.exec;
  const double flops = 4.0 * total * n * k;
  const std::string name = concat("gate and up ", groups, " x ", rows, " ", k, " -> 2 x ", n);
  bench.line(name + ": product, SwiGLU", flops, [&] {
    run(exec, kernels::GroupedMatmul<BF16>{h.data(), x.data(), w.data(), device_offsets.data(), groups, total,
                                           2 * n, k, true});
    run(exec, kernels::SwigluForward<BF16>{s.data(), h.data(), total, n});
  });
  bench.line(name + ": product with SwiGLU", flops, [&] {
    run_fused(exec, kernels::GateUp{s.data(), h.data(), x.data(), w.data(), device_offsets.data(), groups,
                                    total, n, k});
  });
}

// The output head: logits, their softmax and its gradient, in float16 and in float32.
void time_head(Bench& bench, int64_t rows, int64_t vocab, int64_t d) {
  const Cuda exec = bench.exec;
  const int64_t stride = kernels::half_logits_stride(vocab);
  RandomArray h(rows * d), w(vocab * d);
  DeviceArray<float> wide(rows * vocab), loss(rows), dw(vocab * d);
  DeviceArray<BF16> half(rows * stride), dh(rows * d);
  DeviceArray<int32_t> target(std::vector<int32_t>(rows, 5));
  const double flops = 2.0 * rows * vocab * d;
  const std::string name = concat("head ", rows, " x ", vocab, " x ", d);
  auto* z = reinterpret_cast<F16*>(half.data());
  bench.line(name + ": float16 logits", flops, [&] {
    run(exec, kernels::HalfLogits{z, h.data(), w.data(), rows, vocab, d});
  });
  bench.line(name + ": softmax and gradient of float16 logits, GB/s", 4e3 * rows * vocab, [&] {
    run(exec, kernels::HalfCrossEntropy{loss.data(), half.data(), z, target.data(), rows, vocab, 0.1f});
  });
  bench.line(name + ": float32 logits by cuBLAS", flops, [&] {
    run(exec, kernels::Matmul<BF16, float>{wide.data(), h.data(), w.data(), rows, vocab, d, false, true});
  });
  bench.line(name + ": bf16 logits by cuBLAS", flops, [&] {
    run(exec, kernels::Matmul<BF16>{half.data(), h.data(), w.data(), rows, vocab, d, false, true});
  });
  bench.line(name + ": softmax and gradient of float32 logits, GB/s", 6e3 * rows * vocab, [&] {
    run(exec,
        kernels::CrossEntropy<BF16>{loss.data(), half.data(), wide.data(), target.data(), rows, vocab, 0.1f});
  });
  bench.line(name + ": dh", flops, [&] {
    run(exec, kernels::Matmul<BF16>{dh.data(), half.data(), w.data(), rows, d, vocab});
  });
  bench.line(name + ": dw +=", flops, [&] {
    run(exec,
        kernels::Matmul<BF16, float>{dw.data(), half.data(), h.data(), vocab, d, rows, true, false, true});
  });
}

// Products below the diagonal only: 2 of them forward, 5 backward (ours computes 7).
void time_attention(Bench& bench, AttentionShape s) {
  const Cuda exec = bench.exec;
  const int64_t tokens = s.batch * s.seq;
  s.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  RandomArray qkv(tokens * s.row()), d_o(tokens * s.heads * s.head_dim);
  DeviceArray<BF16> o(tokens * s.heads * s.head_dim), dqkv(tokens * s.row());
  DeviceArray<float> lse(tokens * s.heads);
  DeviceArray<uint8_t> workspace(kernels::attention_workspace_bytes<BF16>(exec, s));
  const double product = 1.0 * s.batch * s.heads * s.seq * s.seq * s.head_dim;
  const std::string name =
      concat("attention ", s.batch, " x ", s.seq, " heads ", s.heads, "/", s.kv_heads, " x ", s.head_dim);
  bench.line(name + ": forward", 2 * product, [&] {
    run(exec, kernels::AttentionForward<BF16>{o.data(), lse.data(), qkv.data(), nullptr, s});
  });
  bench.line(name + ": backward", 5 * product, [&] {
    run(exec, kernels::AttentionBackward<BF16>{dqkv.data(), d_o.data(), o.data(), qkv.data(), lse.data(),
                                               nullptr, workspace.data(), s});
  });
}

}  // namespace

void time_all(Cuda exec) {
  Bench bench{exec, Clock(exec.stream)};
  time_ceilings(bench);
  for (const bool zipf : {false, true}) {
    time_grouped(bench, 8, 2048, 7168, 1024, zipf);
    time_grouped(bench, 8, 4096, 7168, 1024, zipf);
    time_grouped(bench, 8, 2048, 1024, 3584, zipf);
    time_grouped(bench, 64, 512, 1024, 1024, zipf);
    time_grouped(bench, 64, 512, 1024, 512, zipf);
    time_grouped(bench, 128, 2048, 1536, 2048, zipf);
    time_grouped(bench, 128, 2048, 2048, 768, zipf);
  }
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{2304, 768}, {768, 768}, {4096, 768}, {768, 2048}})
    time_linear(bench, 32 * 1024, n, k);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1536, 1024}, {1024, 1024}})
    time_linear(bench, 8 * 2048, n, k);
  time_gate_up(bench, 1, 32 * 1024, 2048, 768);
  time_gate_up(bench, 8, 4096, 3584, 1024);
  time_gate_up(bench, 64, 2048, 512, 1024);
  time_head(bench, 5248, 50304, 768);
  time_head(bench, 8192, 32768, 1024);
  time_attention(bench, {32, 1024, 12, 12, 64, 0});
  time_attention(bench, {8, 2048, 16, 4, 64, 0});
  time_attention(bench, {8, 2048, 16, 4, 128, 0});
}

}  // namespace switchyard::bench
