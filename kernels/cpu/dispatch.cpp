#include "kernels/dispatch.h"

#include <cstring>
#include <limits>

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"

namespace switchyard::kernels {
namespace {

template <class P>
P* aligned(void* memory) {
  return reinterpret_cast<P*>((reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64);
}

template <class A>
void drop_by_position(const DropOverCapacity<A>& a) {
  int64_t* taken = aligned<int64_t>(a.workspace);  // [experts]
  std::fill_n(taken, a.experts, 0);
  for (int64_t j = 0; j < a.top_k; ++j) {
    for (int64_t t = 0; t < a.tokens; ++t) {
      int32_t& expert = a.expert[t * a.top_k + j];
      if (expert >= 0 && taken[expert]++ >= a.capacity) expert = -1;
    }
  }
}

// A pair in line for an expert. `rank` = choice * tokens + token: the order among equal weights.
template <class A>
struct Candidate {
  A weight;
  int32_t rank;
  friend bool operator<(const Candidate& x, const Candidate& y) {
    return x.weight != y.weight ? x.weight > y.weight : x.rank < y.rank;
  }
};

// Pairs are sorted by expert; each crowded expert then keeps its first `capacity` in the order above.
template <class A>
void drop_by_weight(const DropOverCapacity<A>& a) {
  Candidate<A>* line = aligned<Candidate<A>>(a.workspace);                   // [pairs]
  int64_t* offsets = reinterpret_cast<int64_t*>(line + a.tokens * a.top_k);  // [experts + 1]
  int64_t* end = offsets + a.experts + 1;                                    // [experts]
  const int64_t pairs = a.tokens * a.top_k;
  std::fill_n(end, a.experts, 0);
  for (int64_t p = 0; p < pairs; ++p)
    if (a.expert[p] >= 0) ++end[a.expert[p]];
  offsets[0] = 0;
  for (int64_t e = 0; e < a.experts; ++e) {
    offsets[e + 1] = offsets[e] + end[e];
    end[e] = offsets[e];
  }
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t j = 0; j < a.top_k; ++j) {
      const int64_t p = t * a.top_k + j;
      if (a.expert[p] < 0) continue;
      const A w =
          a.weight[p] == a.weight[p] ? compared_weight(a.weight[p]) : -std::numeric_limits<A>::infinity();
      line[end[a.expert[p]]++] = {w, static_cast<int32_t>(j * a.tokens + t)};
    }
  }
  for_rows(a.experts, pairs / std::max<int64_t>(a.experts, 1), [=](int64_t e) {
    Candidate<A>*first = line + offsets[e], *last = line + offsets[e + 1];
    if (last - first <= a.capacity) return;
    std::nth_element(first, first + a.capacity, last);
    for (Candidate<A>* c = first + a.capacity; c != last; ++c)
      a.expert[c->rank % a.tokens * a.top_k + c->rank / a.tokens] = -1;
  });
}

}  // namespace

template <class A>
void run(Cpu, const DropOverCapacity<A>& a) {
  if (a.policy == DropPolicy::kPosition)
    drop_by_position(a);
  else
    drop_by_weight(a);
}

// A counting sort over blocks of pairs: each block counts its experts, the counts become first rows
// (expert by expert, within an expert block by block), and each block places its pairs in order.
void run(Cpu, const SortByExpert& a) {
  constexpr int64_t kBlock = SortByExpert::kBlockPairs;
  const int64_t blocks = (a.pairs + kBlock - 1) / kBlock;
  int64_t* rows = aligned<int64_t>(a.workspace);  // [blocks, experts]: counts, then next rows
#pragma omp parallel for schedule(static) if (a.pairs >= kParallelFrom)
  for (int64_t b = 0; b < blocks; ++b) {
    int64_t* count = rows + b * a.experts;
    std::fill_n(count, a.experts, 0);
    for (int64_t p = b * kBlock; p < std::min(a.pairs, (b + 1) * kBlock); ++p)
      if (a.expert[p] >= 0) ++count[a.expert[p]];
  }
  std::fill_n(a.counts, a.experts, 0);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t e = 0; e < a.experts; ++e) a.counts[e] += rows[b * a.experts + e];
  a.offsets[0] = 0;
  for (int64_t e = 0; e < a.experts; ++e) a.offsets[e + 1] = a.offsets[e] + a.counts[e];
  // offsets[e] serves as expert e's next row while the blocks take theirs, and is set back after.
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t e = 0; e < a.experts; ++e) {
      const int64_t count = rows[b * a.experts + e];
      rows[b * a.experts + e] = a.offsets[e];
      a.offsets[e] += count;
    }
  }
  for (int64_t e = 0; e < a.experts; ++e) a.offsets[e] -= a.counts[e];
#pragma omp parallel for schedule(static) if (a.pairs >= kParallelFrom)
  for (int64_t b = 0; b < blocks; ++b) {
    int64_t* next = rows + b * a.experts;
    for (int64_t p = b * kBlock; p < std::min(a.pairs, (b + 1) * kBlock); ++p) {
      const int32_t e = a.expert[p];
      a.position[p] = e >= 0 ? static_cast<int32_t>(next[e]++) : -1;
      if (e >= 0) a.source[a.position[p]] = static_cast<int32_t>(p);
    }
  }
  std::fill(a.source + a.offsets[a.experts], a.source + a.pairs, -1);
}

template <class T>
void run(Cpu, const GatherRows<T>& a) {
  for_rows(a.rows, a.cols, [=](int64_t r) {
    T* y = a.y + r * a.cols;
    if (a.index[r] < 0)
      std::fill_n(y, a.cols, T{});
    else
      std::copy_n(a.x + a.index[r] / a.divisor * a.cols, a.cols, y);
  });
}

template <class T>
void run(Cpu, const CombineForward<T>& a) {
  using A = Acc<T>;
  for_rows(a.tokens, a.top_k * a.cols, [=](int64_t t) {
    constexpr int64_t kSlice = 256;
    for (int64_t begin = 0; begin < a.cols; begin += kSlice) {
      const int64_t n = std::min(kSlice, a.cols - begin);
      alignas(64) A sum[kSlice] = {};
      for (int64_t pair = t * a.top_k; pair < (t + 1) * a.top_k; ++pair) {
        if (a.position[pair] < 0) continue;
        const T* x = a.x + a.position[pair] * a.cols + begin;
        const A weight = a.weight ? a.weight[pair] : A(1);
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) sum[c] += weight * static_cast<A>(x[c]);
      }
      T* y = a.y + t * a.cols + begin;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) store(y[c], sum[c]);
    }
  });
}

template <class T>
void run(Cpu, const CombineBackward<T>& a) {
  using A = Acc<T>;
  if (a.dweight) {
    for (int64_t p = 0; p < a.tokens * a.top_k; ++p)
      if (a.position[p] < 0) a.dweight[p] = 0;
  }
  for_rows(a.rows, a.cols, [=](int64_t r) {
    T* dx = a.dx + r * a.cols;
    const int64_t pair = a.source[r];
    if (pair < 0) {
      std::fill_n(dx, a.cols, T{});
      return;
    }
    const T* dy = a.dy + pair / a.top_k * a.cols;
    const A weight = a.weight ? a.weight[pair] : A(1);
    if (a.dweight) a.dweight[pair] = dot(dy, a.x + r * a.cols, a.cols);
#pragma omp simd
    for (int64_t c = 0; c < a.cols; ++c) store(dx[c], weight * static_cast<A>(dy[c]));
  });
}

template void run(Cpu, const DropOverCapacity<float>&);
template void run(Cpu, const DropOverCapacity<double>&);

#define SWITCHYARD_INSTANTIATE(T)                   \
  template void run(Cpu, const GatherRows<T>&);     \
  template void run(Cpu, const CombineForward<T>&); \
  template void run(Cpu, const CombineBackward<T>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
