#include "parallel/comm/reduce.h"

#include <algorithm>

namespace switchyard {
namespace {

constexpr int64_t kBlock = 512;  // elements whose running value stays in the first-level cache

struct Sum {
  template <class A>
  A operator()(A a, A b) const {
    return a + b;
  }
};
struct Max {
  template <class A>
  A operator()(A a, A b) const {
    return a < b ? b : a;
  }
};
struct Min {
  template <class A>
  A operator()(A a, A b) const {
    return b < a ? b : a;
  }
};

// A: the type of the running value.
template <class T, class A, class Op>
void reduce(T* out, std::span<const void* const> sources, int64_t count, Op op) {
  A running[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) running[i] = static_cast<A>(first[i]);
    for (const void* source : sources.subspan(1)) {
      const T* next = static_cast<const T*>(source) + begin;
      for (int64_t i = 0; i < n; ++i) running[i] = op(running[i], static_cast<A>(next[i]));
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(running[i]);
  }
}

template <class T, class A = T>
void reduce(void* out, std::span<const void* const> sources, int64_t count, ReduceOp op) {
  T* typed = static_cast<T*>(out);
  switch (op) {
    case ReduceOp::kSum: return reduce<T, A>(typed, sources, count, Sum{});
    case ReduceOp::kMax: return reduce<T, A>(typed, sources, count, Max{});
    case ReduceOp::kMin: return reduce<T, A>(typed, sources, count, Min{});
  }
}

}  // namespace

void reduce_arrays(void* out, std::span<const void* const> sources, int64_t count, DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::kF32: return reduce<float>(out, sources, count, op);
    case DType::kBF16: return reduce<BF16, float>(out, sources, count, op);
    case DType::kF64: return reduce<double>(out, sources, count, op);
    case DType::kI32: return reduce<int32_t>(out, sources, count, op);
    case DType::kI64: return reduce<int64_t>(out, sources, count, op);
    case DType::kU8: break;
  }
  fail(Fault::kInternal, "arrays of ", name_of(dtype), " cannot be summed");
}

}  // namespace switchyard
