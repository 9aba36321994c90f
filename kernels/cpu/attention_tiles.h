// What the forward and the backward pass of attention share: how the work is cut, and
// the float32 (or double) tiles.
//
// A task is one sequence, one key/value head, and a run of queries. Its keys and values are packed once into
// panels (kernels/cpu/panels.h). Queries go in blocks of queries_per_block() tokens; the `group` query heads
// that read the same key/value head lie side by side, so a tile of scores has group times as many rows: row
// i * group + a is query i of head a of the group. Keys go in blocks of at most kKeys; a block ends at the
// last query's token, and within a block the rows of a product (kernels/cpu/attention_products.h) stop at the
// last key that one of them sees.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "kernels/attention.h"

namespace switchyard::kernels::attention {

constexpr int64_t kKeys = 256;

// Tokens in a block of queries, so that a tile has about 64 rows, and these are whole products of `rows`:
// smaller ones are slow, larger ones waste more work above the diagonal.
inline int64_t queries_per_block(const AttentionShape& s, int64_t rows) {
  constexpr int64_t kTileRows = 64;
  const int64_t group = s.heads / s.kv_heads, fewest = rows / std::gcd(rows, group);
  const int64_t products = (kTileRows + group * fewest / 2) / (group * fewest);
  return fewest * std::max<int64_t>(products, 1);
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

// A matrix in scratch memory, of whole tiles.
template <class V>
struct Tile {
  V* data;
  int64_t ld;
  V* row(int64_t r) const { return data + r * ld; }
};

// One block of queries against one block of keys.
struct Block {
  int64_t q0, q1, k0, k1;  // tokens
  int64_t group;

  int64_t rows() const { return (q1 - q0) * group; }
  int64_t width() const { return k1 - k0; }
  // Keys of the block that row r sees.
  int64_t visible(int64_t r) const { return std::clamp<int64_t>(q0 + r / group + 1 - k0, 0, width()); }
  // And the most that one of `count` rows from r on sees.
  int64_t visible_of(int64_t r, int64_t count) const { return visible(std::min(r + count, rows()) - 1); }
  // The first row that sees key j of the block.
  int64_t first_row(int64_t j) const { return std::max<int64_t>(0, k0 + j - q0) * group; }
};

}  // namespace switchyard::kernels::attention
