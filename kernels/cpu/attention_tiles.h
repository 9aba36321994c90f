// What the forward and the backward pass of attention share: how the work is cut, and the float32 (or double)
// tiles.
//
// A task is one sequence, one key/value head, and a run of queries. Its keys and values are copied once into
// dense panels. Queries go in blocks of queries_per_block() tokens; the `group` query heads that read the
// same key/value head are stacked, so a tile of scores has group times as many rows and is one matrix
// product: row a * n + i is query i of head a of the group. Keys go in blocks of at most kKeys; a block ends
// at the last query's token, so no tile lies wholly above the diagonal.
#pragma once

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels::attention {

constexpr int64_t kKeys = 256;

// Tokens in a block of queries, so that a tile has about 64 rows: smaller ones are slow products, larger ones
// waste more work above the diagonal.
inline int64_t queries_per_block(const AttentionShape& s) {
  const int64_t group = s.heads / s.kv_heads;
  return group == 1 ? 64 : group == 2 ? 32 : 16;
}

// One sequence and one key/value head: where its rows lie in the packed buffers.
struct Head {
  AttentionShape shape;
  int64_t sequence, kv;

  int64_t group() const { return shape.heads / shape.kv_heads; }
  int64_t first_head() const { return kv * group(); }
  int64_t token(int64_t t) const { return sequence * shape.seq + t; }
  int64_t query(int64_t t, int64_t a) const {
    return token(t) * shape.row() + (first_head() + a) * shape.head_dim;
  }
  int64_t key(int64_t t) const { return token(t) * shape.row() + (shape.heads + kv) * shape.head_dim; }
  int64_t value(int64_t t) const { return key(t) + shape.kv_heads * shape.head_dim; }
  int64_t output(int64_t t, int64_t a) const {
    return (token(t) * shape.heads + first_head() + a) * shape.head_dim;
  }
  int64_t output_row() const { return shape.heads * shape.head_dim; }
  int64_t statistic(int64_t t, int64_t a) const {
    return (sequence * shape.heads + first_head() + a) * shape.seq + t;
  }
};

// The document numbers of one sequence, or none.
class Documents {
 public:
  Documents(const int32_t* numbers, const Head& head)
      : numbers_(numbers == nullptr ? nullptr : numbers + head.token(0)) {}

  explicit operator bool() const { return numbers_ != nullptr; }
  int32_t operator[](int64_t t) const { return numbers_[t]; }

  // Whether no query of [q0, q1) can see a key of [k0, k1): their ranges of document numbers do not meet.
  bool apart(int64_t q0, int64_t q1, int64_t k0, int64_t k1) const {
    if (numbers_ == nullptr) return false;
    const auto [q_min, q_max] = std::minmax_element(numbers_ + q0, numbers_ + q1);
    const auto [k_min, k_max] = std::minmax_element(numbers_ + k0, numbers_ + k1);
    return *q_max < *k_min || *k_max < *q_min;
  }

 private:
  const int32_t* numbers_;
};

// A matrix in scratch memory.
template <class A>
struct Tile {
  A* data;
  int64_t ld;
  Tile from(int64_t row) const { return {data + row * ld, ld}; }
};

template <class A>
Tile<A> reserve_tile(Scratch<A>& scratch, int64_t rows, int64_t cols) {
  const int64_t ld = padded_stride(cols);
  return {scratch.reserve(rows * ld), ld};
}

enum Form { kPlain, kTransposeA, kTransposeB };

// C[m, n] (+)= op(A) op(B)
template <class A>
void product(Tile<A> c, Tile<A> a, Tile<A> b, int64_t m, int64_t n, int64_t k, Form form, bool accumulate) {
  gemm(Matmul<A, A>{.c = c.data,
                    .a = a.data,
                    .b = b.data,
                    .m = m,
                    .n = n,
                    .k = k,
                    .transpose_a = form == kTransposeA,
                    .transpose_b = form == kTransposeB,
                    .accumulate = accumulate,
                    .lda = a.ld,
                    .ldb = b.ld,
                    .ldc = c.ld});
}

}  // namespace switchyard::kernels::attention
