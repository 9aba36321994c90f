#include "kernels/cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <compare>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

using dnnl::memory;

// Everything that a bf16 primitive is made for.
struct Key {
  int64_t m, n, k, lda, ldb, ldc;
  bool transpose_a, transpose_b, accumulate, float_c;
  int threads;
  auto operator<=>(const Key&) const = default;
};

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::desc matrix(int64_t rows, int64_t cols, int64_t ld, bool transposed, memory::data_type type) {
  const memory::dims strides = transposed ? memory::dims{1, ld} : memory::dims{ld, 1};
  return {memory::dims{rows, cols}, type, strides};
}

// oneDNN 2.x describes the operation in an object of its own, 3.x in the primitive's descriptor.
template <class Op>
auto describe(const memory::desc& a, const memory::desc& b, const memory::desc& c,
              const dnnl::primitive_attr& attr) {
  if constexpr (requires { typename Op::desc; })
    return typename Op::primitive_desc(typename Op::desc(a, b, c), attr, cpu_engine());
  else
    return typename Op::primitive_desc(cpu_engine(), a, b, c, attr);
}

struct Product {
  dnnl::matmul primitive;
  memory a, b, c, workspace;
  size_t workspace_bytes;
};

Product make_product(const Key& key) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attr.set_post_ops(sum);
  }
  const auto bf16 = memory::data_type::bf16;
  const auto c_type = key.float_c ? memory::data_type::f32 : bf16;
  const auto pd = describe<dnnl::matmul>(matrix(key.m, key.k, key.lda, key.transpose_a, bf16),
                                         matrix(key.k, key.n, key.ldb, key.transpose_b, bf16),
                                         matrix(key.m, key.n, key.ldc, false, c_type), attr);
  const auto bind = [](const memory::desc& desc) { return memory(desc, cpu_engine(), nullptr); };
  return {dnnl::matmul(pd),    bind(pd.src_desc()),        bind(pd.weights_desc()),
          bind(pd.dst_desc()), bind(pd.scratchpad_desc()), pd.scratchpad_desc().get_size()};
}

// A thread's own primitives: no lock, and no two threads set the pointers of one memory object.
Product& product_for(const Key& key) {
  constexpr size_t kMaxProducts = 1024;
  thread_local std::map<Key, Product> products;
  auto found = products.find(key);
  if (found == products.end()) {
    if (products.size() >= kMaxProducts) products.clear();
    found = products.emplace(key, make_product(key)).first;
  }
  return found->second;
}

template <class C>
void bf16_gemm(const Matmul<BF16, C>& p) {
  thread_local dnnl::stream stream(cpu_engine());
  thread_local Scratch<uint8_t> workspace;
  Product& product =
      product_for({p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.transpose_a, p.transpose_b, p.accumulate,
                   std::is_same_v<C, float>, omp_in_parallel() ? 1 : omp_get_max_threads()});
  product.a.set_data_handle(const_cast<BF16*>(p.a));
  product.b.set_data_handle(const_cast<BF16*>(p.b));
  product.c.set_data_handle(p.c);
  product.workspace.set_data_handle(workspace.reserve(static_cast<int64_t>(product.workspace_bytes)));
  product.primitive.execute(stream, {{DNNL_ARG_SRC, product.a},
                                     {DNNL_ARG_WEIGHTS, product.b},
                                     {DNNL_ARG_DST, product.c},
                                     {DNNL_ARG_SCRATCHPAD, product.workspace}});
  stream.wait();
}

}  // namespace

void gemm(const Matmul<float, float>& p) {
  const auto status = dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1.0f,
                                 p.a, p.lda, p.b, p.ldb, p.accumulate ? 1.0f : 0.0f, p.c, p.ldc);
  CHECK(status == dnnl_success, "oneDNN status ", status, " for a product of ", p.m, " x ", p.n, " x ", p.k);
}

bool has_bf16_unit() {
  // The values of dnnl_cpu_isa_t are sets of bits: a better instruction set contains the lesser ones.
  constexpr unsigned kUnit = dnnl_cpu_isa_avx512_core_bf16;
  static const bool has = (static_cast<unsigned>(dnnl_get_effective_cpu_isa()) & kUnit) == kUnit;
  return has;
}

void gemm(const Matmul<BF16, float>& p) { bf16_gemm(p); }
void gemm(const Matmul<BF16, BF16>& p) { bf16_gemm(p); }

void gemm(const Matmul<double, double>& p) {
  for (int64_t i = 0; i < p.m; ++i) {
    double* c = p.c + i * p.ldc;
    if (!p.accumulate) std::fill_n(c, p.n, 0.0);
    for (int64_t l = 0; l < p.k; ++l) {
      const double a = p.transpose_a ? p.a[l * p.lda + i] : p.a[i * p.lda + l];
      const double* b = p.transpose_b ? p.b + l : p.b + l * p.ldb;
      if (p.transpose_b)
        for (int64_t j = 0; j < p.n; ++j) c[j] += a * b[j * p.ldb];
      else
        for (int64_t j = 0; j < p.n; ++j) c[j] += a * b[j];
    }
  }
}

}  // namespace switchyard::kernels
