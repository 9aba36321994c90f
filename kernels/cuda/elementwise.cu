#include "kernels/elementwise.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

// One thread per V elements; the last block's threads also take what is left over, one element each.
template <int V, class F>
__global__ void map_kernel(int64_t n, F f) {
  const int64_t i = map_index();
  if (i < n / V) f.template operator()<V>(i * V);
  if (V > 1 && i < n % V) f.template operator()<1>(n / V * V + i);
}

template <int V, class F>
void launch_map(Cuda on, bool wide, int64_t n, F f) {
  with_width<V>(wide, [&](auto v) {
    // A short array still needs a thread for every left-over element.
    const int64_t threads = n / v > n % v ? n / v : n % v;
    launch_kernel(map_kernel<v, F>, map_grid(threads), kMapThreads, 0, on.stream, n, f);
  });
}

template <class T>
struct AxpbyMap {
  Axpby<T> args;
  template <int V>
  __device__ void operator()(int64_t i) const {
    Acc<T> a[V], b[V] = {};
    load<V>(args.a + i, a);
    if (args.b) load<V>(args.b + i, b);
#pragma unroll
    for (int j = 0; j < V; ++j) a[j] = args.b ? args.alpha * a[j] + args.beta * b[j] : args.alpha * a[j];
    store<V>(args.y + i, a);
  }
};

template <class To, class From>
struct CastMap {
  Cast<To, From> args;
  template <int V>
  __device__ void operator()(int64_t i) const {
    Acc<From> x[V];
    Acc<To> y[V];
    load<V>(args.x + i, x);
#pragma unroll
    for (int j = 0; j < V; ++j) y[j] = static_cast<Acc<To>>(x[j]);
    store<V>(args.y + i, y);
  }
};

template <class T>
struct AccumulateMap {
  Accumulate<T> args;
  template <int V>
  __device__ void operator()(int64_t i) const {
    Acc<T> y[V], x[V];
    load<V>(args.y + i, y);
    load<V>(args.x + i, x);
#pragma unroll
    for (int j = 0; j < V; ++j) y[j] += x[j];
    store<V>(args.y + i, y);
  }
};

template <class T>
struct ScaleByMap {
  ScaleBy<T> args;
  template <int V>
  __device__ void operator()(int64_t i) const {
    const Acc<T> factor = args.factor[0];
    if (factor == 1) return;
    Acc<T> y[V];
    load<V>(args.y + i, y);
#pragma unroll
    for (int j = 0; j < V; ++j) y[j] *= factor;
    store<V>(args.y + i, y);
  }
};

template <class T>
struct MultiplyMap {
  Multiply<T> args;
  template <int V>
  __device__ void operator()(int64_t i) const {
    Acc<T> a[V], b[V];
    load<V>(args.a + i, a);
    load<V>(args.b + i, b);
#pragma unroll
    for (int j = 0; j < V; ++j) a[j] *= b[j];
    store<V>(args.y + i, a);
  }
};

// cols is a multiple of V.
template <class T>
struct AddBiasMap {
  AddBias<T> args;
  template <int V>
  __device__ void operator()(int64_t i) const {
    Acc<T> x[V], b[V];
    load<V>(args.x + i, x);
    load<V>(args.b + i % args.cols, b);
#pragma unroll
    for (int j = 0; j < V; ++j) x[j] += b[j];
    store<V>(args.y + i, x);
  }
};

}  // namespace

template <class T>
void run(Cuda on, const Axpby<T>& a) {
  constexpr int V = kVector<T>;
  launch_map<V>(on, vectorizable<V>(0, a.y, a.a, a.b), a.n, AxpbyMap<T>{a});
}

template <class To, class From>
void run(Cuda on, const Cast<To, From>& a) {
  constexpr int V = kVector < To >> kVector<From> ? kVector<To> : kVector<From>;
  launch_map<V>(on, vectorizable<V>(0, a.y, a.x), a.n, CastMap<To, From>{a});
}

template <class T>
void run(Cuda on, const Accumulate<T>& a) {
  constexpr int V = kVector<T>;
  launch_map<V>(on, vectorizable<V>(0, a.y, a.x), a.n, AccumulateMap<T>{a});
}

template <class T>
void run(Cuda on, const ScaleBy<T>& a) {
  constexpr int V = kVector<T>;
  launch_map<V>(on, vectorizable<V>(0, a.y), a.n, ScaleByMap<T>{a});
}

template <class T>
void run(Cuda on, const Multiply<T>& a) {
  constexpr int V = kVector<T>;
  launch_map<V>(on, vectorizable<V>(0, a.y, a.a, a.b), a.n, MultiplyMap<T>{a});
}

template <class T>
void run(Cuda on, const AddBias<T>& a) {
  constexpr int V = kVector<T>;
  launch_map<V>(on, vectorizable<V>(a.cols, a.y, a.x, a.b), a.rows * a.cols, AddBiasMap<T>{a});
}

#define SWITCHYARD_INSTANTIATE(T)                 \
  template void run(Cuda, const Axpby<T>&);       \
  template void run(Cuda, const Accumulate<T>&);  \
  template void run(Cuda, const ScaleBy<T>&);     \
  template void run(Cuda, const Multiply<T>&);    \
  template void run(Cuda, const AddBias<T>&);     \
  template void run(Cuda, const Cast<T, float>&); \
  template void run(Cuda, const Cast<T, BF16>&);  \
  template void run(Cuda, const Cast<T, double>&);

SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
