// What the forward and the backward pass of attention share: how the work is cut, and
// the float32 (or double) tiles.
//
// A task is one sequence, one key/value head, and a run of queries. Its keys and values are packed once into
// panels (kernels/cpu/panels.h). Queries go in blocks of queries_per_block() tokens; the `group` query heads
// that read the same key/value head lie side by side, so a tile of scores has group times as many rows: row
// i * group + a is query i of head a of the group. Keys go in blocks of at most kKeys; a block ends at the
// last query's token, and within a block every kMr rows stop at the last key that one of them sees.
#pragma once

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/packed_gemm.h"
#include "kernels/cpu/panels.h"
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

// What the products multiply: float and double as they are; bf16 in pairs where the processor has them, and
// then probabilities and their slopes are rounded to bf16, as on a GPU; else bf16 widened.
template <class T>
struct ElementOf {
  using type = PanelElement<T>;
};
template <>
struct ElementOf<double> {
  using type = double;
};
template <class T>
using Element = typename ElementOf<T>::type;

// The type in which rows of such values are stored.
template <class E>
using Value = std::conditional_t<std::is_same_v<E, Pair>, BF16, E>;

// A matrix in scratch memory, of whole tiles.
template <class V>
struct Tile {
  V* data;
  int64_t ld;
  V* row(int64_t r) const { return data + r * ld; }
};

template <class V>
Tile<V> reserve_tile(Scratch<V>& scratch, int64_t rows, int64_t cols) {
  constexpr int64_t kPerWord = sizeof(V) < 4 ? 2 : 1;
  const int64_t ld = kPerWord * padded_stride(whole_panels(cols, kNr) / kPerWord);
  return {scratch.reserve(whole_panels(rows, kMr) * ld), ld};
}

// x [rows, cols] as values of the tile's rows from r on; an odd last pair ends with 0.
template <class V, class T>
void copy_rows(Tile<V> tile, int64_t r, const T* x, int64_t ld, int64_t rows, int64_t cols) {
  if constexpr (std::is_same_v<V, BF16>) {
    for (int64_t i = 0; i < rows; ++i) {
      std::copy_n(x + i * ld, cols, tile.row(r + i));
      if (cols % 2 != 0) tile.row(r + i)[cols] = BF16();
    }
  } else {
    load_rows(tile.row(r), tile.ld, x, ld, rows, cols);
  }
}

// The second operand of products, [k, size] in panels of kNr columns.
template <class E>
struct Panels {
  const E* data;
  int64_t k;
  BPanel<E> at(int64_t column, int64_t row = 0) const {
    return {data + column * steps<E>(k) + row / kPerStep<E> * kNr};
  }
};

// `along`: x[column, row]; else x[row, column].
template <class E, class T>
Panels<E> pack_panels(Scratch<E>& scratch, const T* x, int64_t ld, int64_t size, int64_t k, bool along) {
  E* const panels = scratch.reserve(whole_panels(size, kNr) * steps<E>(k));
  pack<kNr>(panels, x, ld, size, k, along);
  return {panels, k};
}

// The first operand: kMr rows from row r on.
template <class A>
AInPlace<A> rows_from(Tile<A> x, int64_t r) {
  return {x.row(r), x.ld, 1};
}

struct PairsInPlace {
  const BF16* data;
  int64_t ld;
  Pair at(int64_t i, int64_t l) const { return *reinterpret_cast<const Pair*>(data + i * ld + 2 * l); }
};

inline PairsInPlace rows_from(Tile<BF16> x, int64_t r) { return {x.row(r), x.ld}; }

// One block of queries against one block of keys.
struct Block {
  int64_t q0, q1, k0, k1;  // tokens
  int64_t group;

  int64_t rows() const { return (q1 - q0) * group; }
  int64_t width() const { return k1 - k0; }
  // Keys of the block that row r sees.
  int64_t visible(int64_t r) const { return std::clamp<int64_t>(q0 + r / group + 1 - k0, 0, width()); }
  // And the most that one of the kMr rows from r sees.
  int64_t visible_of_panel(int64_t r) const { return visible(std::min(r + kMr, rows()) - 1); }
  // Of row r the columns before this one may be read by products; they are 0 where the row does not see.
  int64_t read(int64_t r) const { return whole_panels(visible_of_panel(r / kMr * kMr), kWidth) + kWidth; }
  // The first row that sees key j of the block.
  int64_t first_row(int64_t j) const { return std::max<int64_t>(0, k0 + j - q0) * group; }
};

// scores[r, j] = x[r] . y[j] for every key j that row r sees (and some that it does not); y [dim, keys]
template <class A, class V, class E>
void multiply_by_keys(const Block& block, Tile<A> scores, Tile<V> x, Panels<E> y) {
  for (int64_t r = 0; r < block.rows(); r += kMr)
    for (int64_t j = 0; j < block.visible_of_panel(r); j += kNr)
      tile(steps<E>(y.k), rows_from(x, r), y.at(block.k0 + j), scores.row(r) + j, scores.ld, Into::kReplace);
}

// out[r] += sum over the keys j that row r sees of weights[r, j] y[j]; y [keys, dim]. Of the others the
// weights are 0.
template <class A, class V, class E>
void add_rows_of_keys(const Block& block, Tile<A> out, Tile<V> weights, Panels<E> y, int64_t dim) {
  for (int64_t r = 0; r < block.rows(); r += kMr)
    if (const int64_t k = block.visible_of_panel(r); k > 0)
      for (int64_t c = 0; c < dim; c += kNr)
        tile(steps<E>(k), rows_from(weights, r), y.at(c, block.k0), out.row(r) + c, out.ld, Into::kAdd);
}

// out[j] += sum over the rows r that see key j of weights[r, j] y[r], for the keys of the block; y [rows,
// dim]. Where elements are pairs, row p of the weights is rows 2 p and 2 p + 1.
template <class A, class E>
void add_rows_of_queries(const Block& block, Tile<A> out, Tile<E> weights, Panels<E> y, int64_t dim) {
  for (int64_t j = 0; j < block.width(); j += kMr)
    if (const int64_t r = block.first_row(j); r < block.rows())
      for (int64_t c = 0; c < dim; c += kNr)
        tile(steps<E>(block.rows() - r), AInPlace<E>{weights.row(r / kPerStep<E>) + j, 1, weights.ld},
             y.at(c, r), out.row(block.k0 + j) + c, out.ld, Into::kAdd);
}

// Sets to zero what the products read of row r but the row does not see.
template <class V>
void clear_unseen(const Block& block, Tile<V> weights, int64_t r) {
  std::fill(weights.row(r) + block.visible(r), weights.row(r) + block.read(r), V());
}

}  // namespace switchyard::kernels::attention
