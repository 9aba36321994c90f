// How norm_rope.cu walks heads: who has which columns, what a lane holds of a head, and where heads stand.
#pragma once

#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/norm_rope.h"

namespace switchyard::kernels::head_walk {

// A block takes the query, key or value heads (blockIdx.y) of some tokens. Teams of blockDim.x lanes, a power
// of two up to a warp, take a head at a time; a lane has the same columns in all of them. A head comes from
// memory once, and is fetched while the head before it is computed.
inline constexpr int kThreads = 128;
inline constexpr int64_t kHeadsATeam = 8;                    // at least, where there are as many
inline constexpr int kMaxItems = kMaxHeadDim / (2 * kWarp);  // pairs of a lane, one element at a time

// A pair of vectors that rotate together, or any two past rotary_dim.
struct Columns {
  int low, high, angle;
  bool rotates, has_low, has_high;
};

template <int V, int Items>
struct Lane {
  Columns pairs[Items];

  template <class Args>
  __device__ Lane(const Args& a, bool value) {
    const int d = static_cast<int>(a.head_dim), half = static_cast<int>(a.rotary_dim) / 2;
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const int c = static_cast<int>(threadIdx.x + i * blockDim.x) * V;
      const int low = c < half ? c : 2 * c, high = c < half ? c + half : 2 * c + V;
      pairs[i] = {low, high, c, c < half && !value, low < d, high < d};
    }
  }
};

// A lane's part of one head, as it lies in memory; zero where the head has no such columns.
template <class T, int V, int Items>
struct Held {
  Pack<T, V> low[Items], high[Items];

  __device__ Held() {
#pragma unroll
    for (int i = 0; i < Items; ++i)
#pragma unroll
      for (int j = 0; j < Pack<T, V>::kWords; ++j) low[i].word[j] = high[i].word[j] = {};
  }
  __device__ void fetch(const T* head, const Lane<V, Items>& lane) {
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      if (lane.pairs[i].has_low) fetch(low[i], head + lane.pairs[i].low);
      if (lane.pairs[i].has_high) fetch(high[i], head + lane.pairs[i].high);
    }
  }
  __device__ static void fetch(Pack<T, V>& out, const T* p) {
    using Word = typename Pack<T, V>::Word;
#pragma unroll
    for (int i = 0; i < Pack<T, V>::kWords; ++i) out.word[i] = reinterpret_cast<const Word*>(p)[i];
  }
};

// (low, high) turned by the angles at cos and sin, or by their negatives.
template <bool kBack, int V, class A>
__device__ void rotate(A (&low)[V], A (&high)[V], const A* cos, const A* sin) {
  A c[V], s[V];
  load<V>(cos, c);
  load<V>(sin, s);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const A sine = kBack ? -s[j] : s[j], a = low[j], b = high[j];
    low[j] = a * c[j] - b * sine;
    high[j] = b * c[j] + a * sine;
  }
}

// The heads of a block.
template <class T>
struct Heads {
  int64_t token;      // the first
  unsigned position;  // of the first token
  unsigned size;      // tokens times heads
  unsigned count;     // heads a token
  unsigned first;     // of a token's heads
  unsigned at_once;   // teams
  const T* w;         // null: no norm

  template <class Args>
  __device__ Heads(const Args& a, int64_t per_block) {
    const unsigned q = static_cast<unsigned>(a.heads), kv = static_cast<unsigned>(a.kv_heads);
    token = blockIdx.x * per_block;
    position = static_cast<unsigned>(token % a.seq);
    count = blockIdx.y == 0 ? q : kv;
    first = blockIdx.y == 0 ? 0 : blockIdx.y == 1 ? q : q + kv;
    size = static_cast<unsigned>(a.tokens - token < per_block ? a.tokens - token : per_block) * count;
    at_once = blockDim.y;
    w = blockIdx.y == 0 ? a.q_weight : blockIdx.y == 1 ? a.k_weight : nullptr;
  }
};

// Where head i of a block stands.
struct Spot {
  int64_t head = 0;  // its first element
  int64_t norm = 0;  // its rstd
  int64_t angle = 0;

  Spot() = default;
  template <class T, class Args>
  __device__ Spot(const Args& a, const Heads<T>& heads, unsigned i) {
    const unsigned t = i / heads.count;
    const int64_t token = heads.token + t, slot = heads.first + i % heads.count;
    head = (token * (a.heads + 2 * a.kv_heads) + slot) * a.head_dim;
    norm = token * (a.heads + a.kv_heads) + slot;
    unsigned position = heads.position + t;
    if (position >= a.seq) position %= static_cast<unsigned>(a.seq);  // seldom: a division costs
    angle = int64_t{position} * (a.rotary_dim / 2);
  }
};

template <int V, int Items, class T>
__device__ void widen_pair(const Held<T, V, Items>& held, int i, Acc<T> (&low)[V], Acc<T> (&high)[V]) {
#pragma unroll
  for (int j = 0; j < V; ++j) {
    low[j] = widen(held.low[i].element[j]);
    high[j] = widen(held.high[i].element[j]);
  }
}

template <int V, class T>
__device__ void store_pair(T* head, const Columns& at, const Acc<T> (&low)[V], const Acc<T> (&high)[V]) {
  if (at.has_low) store<V>(head + at.low, low);
  if (at.has_high) store<V>(head + at.high, high);
}

// Calls f with the vector width and a lane's pairs of vectors: one if a warp's wide vectors cover a head,
// else as many single elements as the longest head needs.
template <class T, class Args, class F>
void with_shape(const Args& a, bool wide, F&& f) {
  constexpr int V = kVector<T>;
  CHECK(a.head_dim <= kMaxHeadDim, "head_dim: ", a.head_dim);
  if (wide && a.rotary_dim % (2 * V) == 0 && a.head_dim <= 2 * kWarp * V &&
      vectorizable<V>(a.head_dim, a.x, a.q_weight, a.k_weight, a.cos, a.sin))
    f(std::integral_constant<int, V>{}, std::integral_constant<int, 1>{});
  else
    f(std::integral_constant<int, 1>{}, std::integral_constant<int, kMaxItems>{});
}

// A lane a pair of vectors, up to a warp.
inline dim3 teams(int64_t head_dim, int v) {
  unsigned lanes = 1;
  while (lanes < kWarp && lanes * 2 * v < head_dim) lanes *= 2;
  return dim3(lanes, kThreads / lanes);
}

template <class Args>
int64_t tokens_a_block(const Args& a, dim3 block) {
  return ceil_div(kHeadsATeam * block.y, std::max<int64_t>({a.heads, a.kv_heads, 1}));
}

// Queries and keys; values too where they have to be copied.
inline dim3 grid_of_parts(int64_t blocks, bool in_place) {
  dim3 grid = grid_of(blocks);
  grid.y = in_place ? 2 : 3;
  return grid;
}

}  // namespace switchyard::kernels::head_walk
