// The matrix products and attention of the CPU backend, each as a share of the f32 product 1024^3 measured in
// the same run. Takes OMP_NUM_THREADS; prints one line a case: GFLOP/s of the best of several runs.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/grouped_matmul.h"
#include "kernels/matmul.h"

namespace switchyard::kernels {
namespace {

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best of 7 runs, each of at least 30 ms.
double best_seconds(const std::function<void()>& f) {
  f();
  const auto repeats = static_cast<int>(std::max(1.0, 0.03 / seconds_of(f)));
  double best = HUGE_VAL;
  for (int run = 0; run < 7; ++run)
    best = std::min(best, seconds_of([&] {
                            for (int i = 0; i < repeats; ++i) f();
                          }) / repeats);
  return best;
}

double g_peak = 0;

void report(const std::string& name, double operations, const std::function<void()>& f) {
  const double rate = operations / best_seconds(f) * 1e-9;
  if (g_peak == 0) g_peak = rate;
  std::printf("%-52s %8.1f GFLOP/s %5.0f %%\n", name.c_str(), rate, 100 * rate / g_peak);
  std::fflush(stdout);
}

template <class T>
std::vector<T> filled(int64_t n) {
  std::vector<T> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<T>(static_cast<float>(i * 7919 % 1024) / 1024 - 0.5f);
  return x;
}

template <class T>
const char* type_name() {
  return name_of(dtype_of<T>());
}

template <class T, class C = T>
void matmul(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b) {
  const auto a = filled<T>(m * k), b = filled<T>(k * n);
  std::vector<C> c(static_cast<size_t>(m * n));
  const Matmul<T, C> product{c.data(), a.data(), b.data(), m, n, k, transpose_a, transpose_b};
  report(concat("matmul ", type_name<T>(), " ", m, " x ", n, " x ", k, transpose_a ? " T" : " N",
                transpose_b ? "T" : "N"),
         2.0 * static_cast<double>(m * n * k), [&] { run(Cpu{}, product); });
}

template <class T>
void all_matmuls() {
  matmul<T>(1024, 1024, 1024, false, false);
  matmul<T>(256, 256, 256, false, false);
  matmul<T>(64, 1024, 256, false, true);
  matmul<T>(2048, 1536, 512, false, true);
  matmul<T>(2048, 512, 1536, false, false);
  matmul<T, Acc<T>>(1536, 512, 2048, true, false);
}

// Rows an expert: even, or falling so that the first has about four times the mean.
std::vector<int64_t> offsets_of(int64_t groups, int64_t rows, bool skewed) {
  std::vector<int64_t> offsets = {0};
  for (int64_t g = 1; g <= groups; ++g) {
    const double part = static_cast<double>(g) / static_cast<double>(groups);
    const double share = skewed ? 1 - std::pow(1 - part, 4) : part;
    offsets.push_back(std::llround(share * static_cast<double>(rows)));
  }
  return offsets;
}

template <class T>
void grouped(int64_t groups, int64_t rows, int64_t n, int64_t k, bool skewed) {
  const auto offsets = offsets_of(groups, rows, skewed);
  const auto x = filled<T>(rows * k), w = filled<T>(groups * n * k);
  std::vector<T> y = filled<T>(rows * n), dx(static_cast<size_t>(rows * k));
  std::vector<Acc<T>> dw(static_cast<size_t>(groups * n * k));
  const std::string name = concat(" ", type_name<T>(), " ", groups, " x ", rows / groups, " rows [", n, ", ",
                                  k, "]", skewed ? " skewed" : "");
  const double operations = 2.0 * static_cast<double>(rows * n * k);
  report("grouped forward" + name, operations, [&] {
    run(Cpu{}, GroupedMatmul<T>{y.data(), x.data(), w.data(), offsets.data(), groups, rows, n, k, true});
  });
  report("grouped data   " + name, operations, [&] {
    run(Cpu{}, GroupedMatmul<T>{dx.data(), y.data(), w.data(), offsets.data(), groups, rows, k, n, false});
  });
  report("grouped weight " + name, operations, [&] {
    run(Cpu{},
        GroupedMatmulWeight<T>{dw.data(), y.data(), x.data(), offsets.data(), groups, rows, n, k, true});
  });
}

template <class T>
void all_grouped() {
  grouped<T>(8, 4000, 1536, 512, false);
  grouped<T>(8, 4000, 1536, 512, true);
  grouped<T>(64, 16000, 384, 512, false);
  grouped<T>(64, 16000, 384, 512, true);
  grouped<T>(64, 1024, 384, 512, false);
}

// Operations are those of the causal half; the backward pass has 5 products for the forward's 2.
template <class T>
void attention(int64_t batch, int64_t seq) {
  const AttentionShape s{batch, seq, 8, 4, 64, 0.125f};
  const int64_t tokens = batch * seq;
  const auto qkv = filled<T>(tokens * s.row()), d_o = filled<T>(tokens * s.heads * s.head_dim);
  std::vector<T> o(d_o.size()), dqkv(qkv.size());
  std::vector<Acc<T>> lse(static_cast<size_t>(batch * s.heads * seq));
  const auto bytes = static_cast<size_t>(attention_workspace_bytes<T>(Cpu{}, s));
  std::vector<char> memory(bytes + 64);
  void* workspace = memory.data();
  size_t space = memory.size();
  std::align(64, bytes, workspace, space);
  const double product = 2.0 * static_cast<double>(batch * s.heads * seq * (seq + 1) / 2 * s.head_dim);
  const std::string name = concat(type_name<T>(), " ", batch, " x ", seq, " tokens, 8 heads, 4 kv, 64");
  report("attention forward  " + name, 2 * product, [&] {
    run(Cpu{}, AttentionForward<T>{o.data(), lse.data(), qkv.data(), nullptr, s});
  });
  report("attention backward " + name, 5 * product, [&] {
    run(Cpu{}, AttentionBackward<T>{dqkv.data(), d_o.data(), o.data(), qkv.data(), lse.data(), nullptr,
                                    workspace, s});
  });
}

template <class T>
void all() {
  all_matmuls<T>();
  all_grouped<T>();
  attention<T>(8, 256);
  attention<T>(1, 2048);
}

}  // namespace
}  // namespace switchyard::kernels

int main() {
  switchyard::kernels::all<float>();
  switchyard::kernels::all<switchyard::BF16>();
}
