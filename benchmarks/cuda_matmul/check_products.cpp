#include <algorithm>
#include <bit>

#include "benchmarks/cuda_matmul/check.h"
#include "benchmarks/cuda_matmul/report.h"
#include "kernels/cuda/handles.h"
#include "kernels/cuda/one_group.h"
#include "kernels/gate_up.h"
#include "kernels/grouped_matmul.h"
#include "kernels/half_logits.h"
#include "kernels/matmul.h"
#include "kernels/swiglu.h"

namespace switchyard::bench {

namespace {

struct Size {
  int64_t m, n, k;
};

// c[m, n] (+)= a b with strides in elements.
template <class T>
void reference_product(double* c, const T* a, const T* b, Size s, int64_t a_row, int64_t a_depth,
                       int64_t b_depth, int64_t b_column) {
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = 0;
      for (int64_t d = 0; d < s.k; ++d) {
        sum += to_double(a[i * a_row + d * a_depth]) * to_double(b[d * b_depth + j * b_column]);
      }
      c[i * s.n + j] += sum;
    }
  }
}

template <class T, class C>
int check_matmul(Cuda exec, Size s, bool transpose_a, bool transpose_b, bool accumulate,
                 std::mt19937& generator) {
  const auto a = random_vector<T>(s.m * s.k, generator), b = random_vector<T>(s.k * s.n, generator);
  const auto c = random_vector<C>(s.m * s.n, generator);
  DeviceArray<T> da(a), db(b);
  std::vector<C> out[2];
  for (auto& result : out) {
    DeviceArray<C> poisoned(s.m * s.n), filled(c);
    DeviceArray<C>& dc = accumulate ? filled : poisoned;
    kernels::run(exec, kernels::Matmul<T, C>{dc.data(), da.data(), db.data(), s.m, s.n, s.k, transpose_a,
                                             transpose_b, accumulate});
    result = dc.host();
  }
  std::vector<double> reference(s.m * s.n, 0);
  if (accumulate) std::transform(c.begin(), c.end(), reference.begin(), [](C x) { return to_double(x); });
  reference_product(reference.data(), a.data(), b.data(), s, transpose_a ? 1 : s.k, transpose_a ? s.m : 1,
                    transpose_b ? 1 : s.n, transpose_b ? s.k : 1);
  return report(concat("matmul ", kTypeName<T>, "->", kTypeName<C>, " ", s.m, "x", s.n, "x", s.k, " ",
                       transpose_a ? "T" : "N", transpose_b ? "T" : "N", accumulate ? " +=" : ""),
                relative_error(out[0], reference), tolerance<T, C>(), same_bits(out[0], out[1]));
}

// Ragged groups: where each begins; some rows before the first and after the last belong to none.
struct Groups {
  std::string name;
  std::vector<int64_t> offsets;
  int64_t rows;
  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

Groups make_groups(std::string name, const std::vector<int64_t>& sizes, int64_t before, int64_t after) {
  Groups g{std::move(name), {before}, 0};
  for (const int64_t size : sizes) g.offsets.push_back(g.offsets.back() + size);
  g.rows = g.offsets.back() + after;
  return g;
}

// Rows of no group must be left alone, and what stands there must not be read: it is NaN.
template <class T>
void poison_outside(std::vector<T>& x, const Groups& g, int64_t columns) {
  for (int64_t r = 0; r < g.rows; ++r) {
    if (r >= g.offsets.front() && r < g.offsets.back()) continue;
    std::memset(static_cast<void*>(x.data() + r * columns), 0xff, columns * sizeof(T));
  }
}

template <class T>
int check_rows(Cuda exec, const Groups& g, int64_t n, int64_t k, bool transpose_w, std::mt19937& generator) {
  auto x = random_vector<T>(g.rows * k, generator);
  const auto w = random_vector<T>(g.count() * n * k, generator);
  poison_outside(x, g, k);
  DeviceArray<T> dx(x), dw(w);
  DeviceArray<int64_t> offsets(g.offsets);
  std::vector<T> out[2];
  for (auto& result : out) {
    DeviceArray<T> y(g.rows * n);
    kernels::run(exec, kernels::GroupedMatmul<T>{y.data(), dx.data(), dw.data(), offsets.data(), g.count(),
                                                 g.rows, n, k, transpose_w});
    result = y.host();
  }
  const int64_t first = g.offsets.front() * n, last = g.offsets.back() * n;
  std::vector<T> poisoned(out[0]);
  poison_outside(poisoned, g, n);
  const bool outside_kept = same_bits(poisoned, out[0]);
  std::vector<double> reference(last - first, 0);
  for (int64_t e = 0; e < g.count(); ++e) {
    const Size s{g.offsets[e + 1] - g.offsets[e], n, k};
    reference_product(reference.data() + g.offsets[e] * n - first, x.data() + g.offsets[e] * k,
                      w.data() + e * n * k, s, k, 1, transpose_w ? 1 : n, transpose_w ? k : 1);
  }
  const std::vector<T> inside(out[0].begin() + first, out[0].begin() + last);
  return report(concat("grouped ", transpose_w ? "forward " : "data ", kTypeName<T>, " ", g.name, " n ", n,
                       " k ", k, outside_kept ? "" : " WROTE OUTSIDE"),
                outside_kept ? relative_error(inside, reference) : INFINITY, tolerance<T, T>(),
                same_bits(out[0], out[1]));
}

template <class T, class C>
int check_weight(Cuda exec, const Groups& g, int64_t n, int64_t k, bool accumulate, std::mt19937& generator) {
  auto dy = random_vector<T>(g.rows * n, generator), x = random_vector<T>(g.rows * k, generator);
  const auto before = random_vector<C>(g.count() * n * k, generator);
  poison_outside(dy, g, n);
  poison_outside(x, g, k);
  DeviceArray<T> ddy(dy), dx(x);
  DeviceArray<int64_t> offsets(g.offsets);
  std::vector<C> out[2];
  for (auto& result : out) {
    DeviceArray<C> poisoned(g.count() * n * k), filled(before);
    DeviceArray<C>& dw = accumulate ? filled : poisoned;
    kernels::run(exec, kernels::GroupedMatmulWeight<T, C>{dw.data(), ddy.data(), dx.data(), offsets.data(),
                                                          g.count(), g.rows, n, k, accumulate});
    result = dw.host();
  }
  std::vector<double> reference(g.count() * n * k, 0);
  if (accumulate)
    std::transform(before.begin(), before.end(), reference.begin(), [](C v) { return to_double(v); });
  for (int64_t e = 0; e < g.count(); ++e) {
    reference_product(reference.data() + e * n * k, dy.data() + g.offsets[e] * n, x.data() + g.offsets[e] * k,
                      Size{n, k, g.offsets[e + 1] - g.offsets[e]}, 1, n, k, 1);
  }
  return report(concat("grouped weight ", kTypeName<T>, "->", kTypeName<C>, " ", g.name, " n ", n, " k ", k,
                       accumulate ? " +=" : ""),
                relative_error(out[0], reference), tolerance<T, C>(), same_bits(out[0], out[1]));
}

// Columns vocab .. stride - 1 may hold anything.
int check_half_logits(Cuda exec, Size s, std::mt19937& generator) {
  const auto h = random_vector<BF16>(s.m * s.k, generator), w = random_vector<BF16>(s.n * s.k, generator);
  const int64_t stride = kernels::half_logits_stride(s.n);
  DeviceArray<BF16> dh(h), dw(w), z(s.m * stride);  // halves have the size of bf16
  kernels::run(exec,
               kernels::HalfLogits{reinterpret_cast<F16*>(z.data()), dh.data(), dw.data(), s.m, s.n, s.k});
  std::vector<float> out;
  const std::vector<BF16> halves = z.host();
  for (int64_t i = 0; i < s.m * s.n; ++i)
    out.push_back(static_cast<float>(std::bit_cast<F16>(halves[i / s.n * stride + i % s.n])));
  std::vector<double> reference(s.m * s.n, 0);
  reference_product(reference.data(), h.data(), w.data(), s, s.k, 1, 1, s.k);
  return report(concat("half logits ", s.m, "x", s.n, "x", s.k), relative_error(out, reference), 5e-4, true);
}

// Products of a linear layer that is large enough for the grouped kernel, against cuBLAS.
int check_linear(Cuda exec, Size s, bool transpose_w, std::mt19937& generator) {
  DeviceArray<BF16> x(random_vector<BF16>(s.m * s.k, generator)),
      w(random_vector<BF16>(s.n * s.k, generator));
  std::vector<BF16> out[3];  // by cuBLAS, then twice by ours
  const bool allow_wgmma = exec.handles->allow_wgmma;
  for (int i = 0; i < 3; ++i) {
    exec.handles->allow_wgmma = i > 0;
    DeviceArray<BF16> y(s.m * s.n);
    kernels::run(exec,
                 kernels::Matmul<BF16>{y.data(), x.data(), w.data(), s.m, s.n, s.k, false, transpose_w});
    out[i] = y.host();
  }
  exec.handles->allow_wgmma = allow_wgmma;
  std::vector<double> reference;
  for (const BF16 y : out[0]) reference.push_back(to_double(y));
  return report(concat("linear ", s.m, "x", s.n, "x", s.k, transpose_w ? " forward" : " data"),
                relative_error(out[1], reference), tolerance<BF16, BF16>(), same_bits(out[1], out[2]));
}

// A weight gradient whose rows are cut, against cuBLAS: long sums in float32, in another order. A step that
// is missing is an error of 4e-2.
int check_parts(Cuda exec, Size s, bool accumulate, std::mt19937& generator) {
  constexpr double kTolerance = 1e-3;
  if (!exec.handles->runs_wgmma()) return 0;
  DeviceArray<BF16> dy(random_vector<BF16>(s.k * s.m, generator)),
      x(random_vector<BF16>(s.k * s.n, generator));
  const auto before = random_vector<float>(s.m * s.n, generator);
  std::vector<float> out[3];  // by cuBLAS, then twice by ours
  bool ran = true;
  for (int i = 0; i < 3; ++i) {
    DeviceArray<float> dw(before);
    const kernels::Matmul<BF16, float> p{dw.data(), dy.data(), x.data(), s.m,       s.n,
                                         s.k,       true,      false,    accumulate};
    if (i == 0) {
      kernels::run(exec, p);
    } else {
      ran = ran && kernels::run_in_parts(exec, p);
    }
    out[i] = dw.host();
  }
  const std::vector<double> reference(out[0].begin(), out[0].end());
  return report(
      concat("weight in parts ", s.m, "x", s.n, "x", s.k, accumulate ? " +=" : "", ran ? "" : " DID NOT RUN"),
      ran ? relative_error(out[1], reference) : INFINITY, kTolerance, same_bits(out[1], out[2]));
}

// The product that ends in SwiGLU, against product and SwiGLU one after the other: the same bits.
int check_gate_up(Cuda exec, const Groups& g, int64_t n, int64_t k, std::mt19937& generator) {
  DeviceArray<BF16> x(random_vector<BF16>(g.rows * k, generator)),
      w(random_vector<BF16>(g.count() * 2 * n * k, generator));
  DeviceArray<int64_t> device_offsets(g.offsets);
  const int64_t* offsets = g.count() == 1 ? nullptr : device_offsets.data();
  std::vector<BF16> gate_up[2], y[2];
  for (const bool fused : {false, true}) {
    DeviceArray<BF16> h(g.rows * 2 * n), s(g.rows * n);
    if (!fused) {
      run(exec, kernels::GroupedMatmul<BF16>{h.data(), x.data(), w.data(), device_offsets.data(), g.count(),
                                             g.rows, 2 * n, k, true});
      run(exec, kernels::SwigluForward<BF16>{s.data(), h.data(), g.rows, n});
    } else if (!run_fused(exec, kernels::GateUp{s.data(), h.data(), x.data(), w.data(), offsets, g.count(),
                                                g.rows, n, k})) {
      std::printf("     no product with SwiGLU here\n");
      return 0;
    }
    gate_up[fused] = h.host();
    y[fused] = s.host();
    poison_outside(y[fused], g, n);  // SwiGLU alone takes all rows
  }
  return report(concat("product with SwiGLU ", g.name, " n ", n, " k ", k), 0, 1e-9,
                same_bits(gate_up[0], gate_up[1]) && same_bits(y[0], y[1]));
}

template <class T, class C>
int check_matmuls(Cuda exec, std::mt19937& generator) {
  int failures = 0;
  for (const Size s : {Size{67, 45, 33}, Size{128, 192, 64}, Size{5, 7, 0}, Size{0, 8, 8}, Size{8, 0, 8}}) {
    for (int form = 0; form < 8; ++form) {
      failures += check_matmul<T, C>(exec, s, form & 1, form & 2, form & 4, generator);
    }
  }
  return failures;
}

template <class T>
int check_grouped(Cuda exec, std::mt19937& generator) {
  const Groups cases[] = {make_groups("ragged", {130, 0, 1, 300, 0, 63, 128}, 3, 20),
                          make_groups("one group", {257}, 0, 0), make_groups("all empty", {0, 0, 0}, 0, 5),
                          make_groups("many small", std::vector<int64_t>(40, 9), 0, 7)};
  int failures = 0;
  for (const Groups& g : cases) {
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{264, 200}, {520, 136}, {128, 64}, {8, 16}, {37, 19}}) {
      if (g.count() > 10 && n > 128) continue;  // the host's loops
      failures += check_rows<T>(exec, g, n, k, true, generator);
      failures += check_rows<T>(exec, g, n, k, false, generator);
      failures += check_weight<T, Acc<T>>(exec, g, n, k, false, generator);
      failures += check_weight<T, Acc<T>>(exec, g, n, k, true, generator);
    }
  }
  return failures;
}

}  // namespace

int check_products(Cuda exec, unsigned seed) {
  std::mt19937 generator(seed);
  int failures = check_matmuls<float, float>(exec, generator) + check_matmuls<BF16, BF16>(exec, generator) +
                 check_matmuls<BF16, float>(exec, generator) + check_matmuls<double, double>(exec, generator);
  const bool allow_wgmma = exec.handles->allow_wgmma;
  for (const bool wgmma : {false, true}) {
    std::printf("grouped bf16 products by %s\n", wgmma ? "wgmma (where the GPU has it)" : "mma.sync");
    exec.handles->allow_wgmma = wgmma;
    failures += check_grouped<BF16>(exec, generator);
    for (const Size s : {Size{130, 1001, 64}, Size{257, 520, 136}, Size{3, 300, 8}})
      failures += check_half_logits(exec, s, generator);
  }
  exec.handles->allow_wgmma = allow_wgmma;
  for (const bool transpose_w : {true, false}) {
    failures += check_linear(exec, {5000, 2600, 136}, transpose_w, generator);
    failures += check_linear(exec, {16384, 1032, 520}, transpose_w, generator);
  }
  for (const Size s : {Size{2304, 768, 32768}, {768, 768, 20000}, {4096, 768, 9001}, {136, 264, 16999}}) {
    for (const bool accumulate : {false, true}) failures += check_parts(exec, s, accumulate, generator);
  }
  for (const Groups& g :
       {make_groups("whole", {5200}, 0, 0), make_groups("ragged", {1300, 0, 1, 700, 3000, 129, 63}, 3, 20)}) {
    for (const int64_t k : {64, 200, 600}) failures += check_gate_up(exec, g, 1288, k, generator);
  }
  failures += check_grouped<float>(exec, generator);
  return failures + check_grouped<double>(exec, generator);
}

}  // namespace switchyard::bench
