// The products of attention's tiles (kernels/cpu/attention_tiles.h), by vectors or by matrix registers.
// Both have
//
//     Element, Value            what panels hold, and the type in which rows of such values are stored
//     kRows, kCols              rows and columns of one product: tiles and panels are of whole ones
//     kStepValues               values of one step of a sum: sums are of whole ones
//     read(block, r)            of row r what may be read, and is 0 where it does not see: columns below this
//     multiply_by_keys          scores[r, j] = x[r] . y[j] for every key j that row r sees (and some others)
//     add_rows_of_keys          out[r] += sum over the keys j that row r sees of weights[r, j] y[j]
//     add_rows_of_queries       sums[j] += sum over the rows r that see key j of weights[r, j] y[r]
//     reserve_sums, store_sums  those sums, of all keys
//
// Where elements are pairs, probabilities and their slopes are rounded to bf16, as on a GPU, and row p of the
// weights of add_rows_of_queries is rows 2 p and 2 p + 1.
#pragma once

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/matrix_panels.h"
#include "kernels/cpu/packed_gemm.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels::attention {

template <class E>
inline constexpr bool kIsPair = std::is_same_v<E, Pair>;

template <class Products, class V>
Tile<V> reserve_tile(Scratch<V>& scratch, int64_t rows, int64_t cols) {
  constexpr int64_t kPerWord = sizeof(V) < 4 ? 2 : 1;
  const int64_t ld = kPerWord * padded_stride(whole_panels(cols, Products::kCols) / kPerWord);
  return {scratch.reserve(whole_panels(rows, Products::kRows) * ld), ld};
}

template <class Products, class V>
Tile<V> reserve_zeros(Scratch<V>& scratch, int64_t rows, int64_t cols) {
  const Tile<V> tile = reserve_tile<Products>(scratch, rows, cols);
  std::fill(tile.data, tile.row(whole_panels(rows, Products::kRows)), V());
  return tile;
}

// x [rows, cols] as values of the tile's rows from r on; a step that they do not fill ends with 0.
template <class Products, class V, class T>
void copy_rows(Tile<V> tile, int64_t r, const T* x, int64_t ld, int64_t rows, int64_t cols) {
  if constexpr (std::is_same_v<V, BF16>) {
    const int64_t whole = round_up(cols, Products::kStepValues);
    for (int64_t i = 0; i < rows; ++i) {
      std::copy_n(x + i * ld, cols, tile.row(r + i));
      std::fill(tile.row(r + i) + cols, tile.row(r + i) + whole, BF16());
    }
  } else {
    load_rows(tile.row(r), tile.ld, x, ld, rows, cols);
  }
}

// The second operand of products, [k, size] in panels of kCols columns and `length` steps.
template <class E>
struct Panels {
  const E* data;
  int64_t length, cols;
  const E* at(int64_t column, int64_t row = 0) const {
    return data + column * length + row / kPerStep<E> * cols;
  }
};

// `along`: x[column, row]; else x[row, column].
template <class Products, class E, class T>
Panels<E> pack_panels(Scratch<E>& scratch, const T* x, int64_t ld, int64_t size, int64_t k, bool along) {
  const int64_t length = round_up(k, Products::kStepValues) / kPerStep<E>;
  E* const panels = scratch.reserve(whole_panels(size, Products::kCols) * length);
  pack<Products::kCols>(panels, x, ld, size, k, along, length);
  return {panels, length, Products::kCols};
}

// E: float and double as they are; Pair where the processor multiplies pairs, or else bf16 widened to float.
// Not to be inlined: in a function with much else GCC has no registers left for a tile's addresses (measured:
// a fifth more time).
template <class E>
class VectorProducts {
 public:
  using Element = E;
  using Value = std::conditional_t<kIsPair<E>, BF16, E>;
  static constexpr int64_t kRows = kMr, kCols = kNr, kStepValues = kPerStep<E>;

  static int64_t read(const Block& block, int64_t r) {
    return whole_panels(block.visible_of(r / kRows * kRows, kRows), kWidth) + kWidth;
  }

  template <class A>
  [[gnu::noinline]] void multiply_by_keys(const Block& block, Tile<A> scores, Tile<Value> x, Panels<E> y) {
    for (int64_t r = 0; r < block.rows(); r += kRows)
      for (int64_t j = 0; j < block.visible_of(r, kRows); j += kCols)
        tile(y.length, rows_from(x, r), BPanel<E>{y.at(block.k0 + j)}, scores.row(r) + j, scores.ld,
             Into::kReplace);
  }

  // y [keys, dim]
  template <class A>
  [[gnu::noinline]] void add_rows_of_keys(const Block& block, Tile<A> out, Tile<Value> weights, Panels<E> y,
                                          int64_t dim) {
    for (int64_t r = 0; r < block.rows(); r += kRows)
      if (const int64_t k = block.visible_of(r, kRows); k > 0)
        for (int64_t c = 0; c < dim; c += kCols)
          tile(steps<E>(k), rows_from(weights, r), BPanel<E>{y.at(c, block.k0)}, out.row(r) + c, out.ld,
               Into::kAdd);
  }

  using Rows = Panels<E>;  // y [rows, dim]
  static Rows pack_rows(Scratch<E>& scratch, Tile<Value> x, int64_t rows, int64_t dim) {
    return pack_panels<VectorProducts>(scratch, x.data, x.ld, dim, rows, false);
  }
  template <class A>
  [[gnu::noinline]] void add_rows_of_queries(const Block& block, Tile<A> sums, Tile<E> weights, Rows y,
                                             int64_t dim) {
    for (int64_t j = 0; j < block.width(); j += kRows)
      if (const int64_t r = block.first_row(j); r < block.rows())
        for (int64_t c = 0; c < dim; c += kCols)
          tile(steps<E>(block.rows() - r), AInPlace<E>{weights.row(r / kPerStep<E>) + j, 1, weights.ld},
               BPanel<E>{y.at(c, r)}, sums.row(block.k0 + j) + c, sums.ld, Into::kAdd);
  }

  template <class A>
  static Tile<A> reserve_sums(Scratch<A>& scratch, int64_t keys, int64_t dim) {
    return reserve_zeros<VectorProducts>(scratch, keys + kRows, dim);
  }
  template <class T, class A>
  static void store_sums(T* to, int64_t ld, Tile<A> sums, int64_t keys, int64_t dim) {
    store_rows(to, ld, sums.data, sums.ld, keys, dim);
  }

 private:
  struct PairsInPlace {
    const BF16* data;
    int64_t ld;
    Pair at(int64_t i, int64_t l) const { return *reinterpret_cast<const Pair*>(data + i * ld + 2 * l); }
  };
  // The first operand: kRows rows from row r on.
  static auto rows_from(Tile<Value> x, int64_t r) {
    if constexpr (kIsPair<E>)
      return PairsInPlace{x.row(r), x.ld};
    else
      return AInPlace<E>{x.row(r), x.ld, 1};
  }
};

// bf16. The sums over queries are transposed, because the registers read the weights in rows of pairs as
// their second operand: sums[c, j] = sum of y[r, c] weights[r, j].
template <class Registers>
class MatrixProducts {
 public:
  using Element = Pair;
  using Value = BF16;
  static constexpr int64_t kRows = kBlock, kCols = kBlock, kStepValues = 2 * kStep;

  static int64_t read(const Block& block, int64_t r) {
    return round_up(block.visible_of(r / kRows * kRows, kRows), kStepValues);
  }

  void multiply_by_keys(const Block& block, Tile<float> scores, Tile<BF16> x, Panels<Pair> y) {
    for (int64_t r = 0; r < block.rows(); r += kRows)
      for (int64_t j = 0; j < block.visible_of(r, kRows); j += kCols) {
        registers_.clear();
        for (int64_t l = 0; l < y.length; l += kStep)
          registers_.multiply(pairs(x, r) + l, x.ld / 2, y.at(block.k0 + j) + l * kCols, kCols);
        registers_.store(scores.row(r) + j, scores.ld);
      }
  }

  // y [keys, dim]
  void add_rows_of_keys(const Block& block, Tile<float> out, Tile<BF16> weights, Panels<Pair> y,
                        int64_t dim) {
    for (int64_t r = 0; r < block.rows(); r += kRows)
      for (int64_t c = 0; c < dim; c += kCols) {
        registers_.load(out.row(r) + c, out.ld);
        for (int64_t j = 0; j < block.visible_of(r, kRows); j += kStepValues)
          registers_.multiply(pairs(weights, r) + j / 2, weights.ld / 2, y.at(c, block.k0 + j), kCols);
        registers_.store(out.row(r) + c, out.ld);
      }
  }

  // y [rows, dim] as rows of its transpose
  struct Rows {
    const Pair* data;
    int64_t length;  // steps
    const Pair* at(int64_t c, int64_t r) const { return data + c * length + r / 2 * kBlock; }
  };
  static Rows pack_rows(Scratch<Pair>& scratch, Tile<BF16> x, int64_t rows, int64_t dim) {
    const int64_t length = round_up(rows, kStepValues) / 2;
    Pair* const panels = scratch.reserve(whole_panels(dim, kBlock) * length);
    pack_matrix_rows(panels, x.data, x.ld, dim, rows, false);
    return {panels, length};
  }
  void add_rows_of_queries(const Block& block, Tile<float> sums, Tile<Pair> weights, Rows y, int64_t dim) {
    for (int64_t j = 0; j < block.width(); j += kCols)
      if (const int64_t first = block.first_row(j); first < block.rows())
        for (int64_t c = 0; c < dim; c += kRows) {
          float* const sum = sums.row(c) + block.k0 + j;
          registers_.load(sum, sums.ld);
          for (int64_t r = first / kStepValues * kStepValues; r < block.rows(); r += kStepValues)
            registers_.multiply(y.at(c, r), kStep, weights.row(r / 2) + j, weights.ld);
          registers_.store(sum, sums.ld);
        }
  }

  static Tile<float> reserve_sums(Scratch<float>& scratch, int64_t keys, int64_t dim) {
    return reserve_zeros<MatrixProducts>(scratch, dim, keys + kCols);
  }
  static void store_sums(BF16* to, int64_t ld, Tile<float> sums, int64_t keys, int64_t dim) {
    alignas(64) float part[kBlock * kBlock];
    for (int64_t j = 0; j < keys; j += kBlock)
      for (int64_t c = 0; c < dim; c += kBlock) {
        transpose_block(part, sums.row(c) + j, sums.ld);
        store_rows(to + j * ld + c, ld, part, kBlock, std::min(kBlock, keys - j), std::min(kBlock, dim - c));
      }
  }

 private:
  static const Pair* pairs(Tile<BF16> x, int64_t r) { return reinterpret_cast<const Pair*>(x.row(r)); }

  Registers registers_;
};

// Sets to zero what the products read of row r but the row does not see.
template <class Products, class V>
void clear_unseen(const Block& block, Tile<V> weights, int64_t r) {
  std::fill(weights.row(r) + block.visible(r), weights.row(r) + Products::read(block, r), V());
}

}  // namespace switchyard::kernels::attention
