// Per tile, with P = exp(scale q.k - lse) and D = rowsum(dO * O):
//   dV += P^T dO      dP = dO V^T      dS = P * (dP - D)      dQ += scale dS K      dK += scale dS^T Q
#include "kernels/attention.h"
#include "kernels/cpu/attention_by.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {
namespace {

using namespace attention;

template <class A, class Products>
struct Tiles {
  using E = typename Products::Element;
  using V = typename Products::Value;
  Scratch<E> keys, values, key_rows;            // panels of [head_dim, seq] twice, [seq, head_dim]
  Scratch<A> d_keys, d_values;                  // [seq, head_dim], as Products has them
  Scratch<V> query, d_out;                      // [rows of a block, head_dim]
  Scratch<E> query_rows, d_out_rows;            // the same, packed
  Scratch<A> d_query;                           // [rows of a block, head_dim]
  Scratch<A> probability, d_score;              // [rows of a block, kKeys]
  Scratch<E> probability_pairs, d_score_pairs;  // two rows in one; of pairs only
  Scratch<V> d_score_rows;                      // [rows of a block, kKeys]; of pairs only
  Scratch<A> lse, row_sum;                      // [rows of a block]
};

// All queries of one sequence that read one key/value head. dK and dV are summed query block after query
// block, by one thread.
template <class Products, class T>
class BackwardTask {
  using A = Acc<T>;
  using E = typename Products::Element;
  using V = typename Products::Value;
  static constexpr bool kOfPairs = kIsPair<E>;

 public:
  BackwardTask(const AttentionBackward<T>& args, const Head& head, Tiles<A, Products>& tiles)
      : args_(args),
        head_(head),
        document_(args.document, head),
        tiles_(tiles),
        dim_(head.shape.head_dim),
        queries_(queries_per_block(head.shape, Products::kRows)),
        scale_(head.shape.scale) {
    const int64_t seq = head.shape.seq, row = head.shape.row(), rows = head.group() * queries_;
    keys_ = pack_panels<Products>(tiles.keys, args.qkv + head.key(0), row, seq, dim_, true);
    values_ = pack_panels<Products>(tiles.values, args.qkv + head.value(0), row, seq, dim_, true);
    key_rows_ = pack_panels<Products>(tiles.key_rows, args.qkv + head.key(0), row, dim_, seq, false);
    d_keys_ = Products::reserve_sums(tiles.d_keys, seq, dim_);
    d_values_ = Products::reserve_sums(tiles.d_values, seq, dim_);
    query_ = reserve_tile<Products>(tiles.query, rows, dim_);
    d_query_ = reserve_tile<Products>(tiles.d_query, rows, dim_);
    d_out_ = reserve_tile<Products>(tiles.d_out, rows, dim_);
    probability_ = reserve_tile<Products>(tiles.probability, rows, kKeys + kWidth);
    d_score_ = reserve_tile<Products>(tiles.d_score, rows, kKeys + kWidth);
    if constexpr (kOfPairs) {
      probability_columns_ = reserve_tile<Products>(tiles.probability_pairs, rows / 2 + 1, kKeys + kWidth);
      d_score_columns_ = reserve_tile<Products>(tiles.d_score_pairs, rows / 2 + 1, kKeys + kWidth);
      d_score_rows_ = reserve_tile<Products>(tiles.d_score_rows, rows + 1, kKeys + kWidth);
    } else {
      probability_columns_ = probability_;
      d_score_columns_ = d_score_rows_ = d_score_;
    }
    lse_ = tiles.lse.reserve(rows);
    row_sum_ = tiles.row_sum.reserve(rows);
  }

  void run() {
    const int64_t seq = head_.shape.seq, row = head_.shape.row();
    for (int64_t q0 = 0; q0 < seq; q0 += queries_) query_block(q0, std::min(q0 + queries_, seq));
    Products::store_sums(args_.dqkv + head_.key(0), row, d_keys_, seq, dim_);
    Products::store_sums(args_.dqkv + head_.value(0), row, d_values_, seq, dim_);
  }

 private:
  void query_block(int64_t q0, int64_t q1) {
    const int64_t group = head_.group(), rows = group * (q1 - q0);
    load_queries(q0, rows);
    std::fill(d_query_.row(0), d_query_.row(whole_panels(rows, Products::kRows)), A(0));
    query_rows_ = Products::pack_rows(tiles_.query_rows, query_, rows, dim_);
    d_out_rows_ = Products::pack_rows(tiles_.d_out_rows, d_out_, rows, dim_);
    for (int64_t k0 = 0; k0 < q1; k0 += kKeys)
      if (const int64_t k1 = std::min(k0 + kKeys, q1); !document_.apart(q0, q1, k0, k1))
        tile({q0, q1, k0, k1, group});
    for (int64_t i = 0; i < q1 - q0; ++i)
      store_rows(args_.dqkv + head_.query(q0 + i, 0), dim_, d_query_.row(i * group), d_query_.ld, group,
                 dim_);
  }

  // Queries, dO, lse and D of the rows from token q0 on.
  void load_queries(int64_t q0, int64_t rows) {
    const int64_t group = head_.group(), all = whole_panels(rows, Products::kRows);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t token = q0 + r / group, a = r % group;
      const T *out = args_.o + head_.output(token, a), *d_out = args_.d_o + head_.output(token, a);
      copy_rows<Products>(query_, r, args_.qkv + head_.query(token, a), dim_, 1, dim_);
      copy_rows<Products>(d_out_, r, d_out, dim_, 1, dim_);
      lse_[r] = args_.lse[head_.statistic(token, a)];
      row_sum_[r] = dot(d_out, out, dim_);
    }
    std::fill(query_.row(rows), query_.row(all), V());
    std::fill(d_out_.row(rows), d_out_.row(all), V());
  }

  void tile(const Block& block) {
    products_.multiply_by_keys(block, probability_, query_, keys_);
    products_.multiply_by_keys(block, d_score_, d_out_, values_);
    for (int64_t r = 0; r < block.rows(); ++r) slope(block, r);
    if constexpr (kOfPairs)
      for (int64_t r = 0; r < round_up(block.rows(), Products::kStepValues); r += 2) narrow(block, r);
    products_.add_rows_of_queries(block, d_values_, probability_columns_, d_out_rows_, dim_);
    products_.add_rows_of_queries(block, d_keys_, d_score_columns_, query_rows_, dim_);
    products_.add_rows_of_keys(block, d_query_, d_score_rows_, key_rows_, dim_);
  }

  // One row of the tile: scores to probabilities, and dP to scale dS.
  void slope(const Block& block, int64_t r) {
    A* p = probability_.row(r);
    A* ds = d_score_.row(r);
    const int64_t visible = block.visible(r), query = block.q0 + r / block.group;
    const int64_t whole = whole_panels(visible, kWidth);
    const A lse = lse_[r], row_sum = row_sum_[r], scale = scale_;
#pragma omp simd
    for (int64_t j = 0; j < whole; ++j) {
      p[j] = fast_exp(scale * p[j] - lse);
      ds[j] = scale * p[j] * (ds[j] - row_sum);
    }
    clear_unseen<Products>(block, probability_, r);
    clear_unseen<Products>(block, d_score_, r);
    if (!document_) return;
    for (int64_t j = 0; j < visible; ++j)
      if (document_[block.k0 + j] != document_[query]) p[j] = ds[j] = 0;
  }

  // Rows r and r + 1 (or zeros) of the tile to bf16, in rows and in pairs of rows.
  void narrow(const Block& block, int64_t r) {
    const int64_t read = Products::read(block, r);
    for (int64_t i = std::max(r, block.rows()); i < r + 2; ++i) {
      std::fill_n(probability_.row(i), read, A(0));
      std::fill_n(d_score_.row(i), read, A(0));
    }
    to_pairs(probability_columns_.row(r / 2), probability_.row(r), probability_.row(r + 1), read);
    to_pairs(d_score_columns_.row(r / 2), d_score_.row(r), d_score_.row(r + 1), read);
    store_rows(d_score_rows_.row(r), d_score_rows_.ld, d_score_.row(r), d_score_.ld, 2, read);
  }

  static void to_pairs(Pair* pairs, const A* first, const A* second, int64_t n) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      pairs[j].first.bits = bf16_bits(first[j]);
      pairs[j].second.bits = bf16_bits(second[j]);
    }
  }

  const AttentionBackward<T>& args_;
  Head head_;
  Documents document_;
  Tiles<A, Products>& tiles_;
  Products products_;
  int64_t dim_, queries_;
  A scale_;
  Panels<E> keys_, values_, key_rows_;
  typename Products::Rows query_rows_, d_out_rows_;
  Tile<A> d_keys_, d_values_, d_query_, probability_, d_score_;
  Tile<V> query_, d_out_, d_score_rows_;
  Tile<E> probability_columns_, d_score_columns_;
  A *lse_, *row_sum_;
};

}  // namespace

template <class T>
int64_t attention_workspace_bytes(Cpu, const AttentionShape&) {
  return 0;  // a thread keeps its own sums
}

template <class Products, class T>
void attention_by(const AttentionBackward<T>& args) {
  const AttentionShape& s = args.shape;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
      thread_local Tiles<Acc<T>, Products> tiles;
      BackwardTask<Products, T>(args, Head{s, b, kv}, tiles).run();
    }
}

template <class T>
void run(Cpu, const AttentionBackward<T>& args) {
  by_best_products<T>([&]<class Products>(Of<Products>) { attention_by<Products>(args); });
}

template int64_t attention_workspace_bytes<float>(Cpu, const AttentionShape&);
template int64_t attention_workspace_bytes<BF16>(Cpu, const AttentionShape&);
template int64_t attention_workspace_bytes<double>(Cpu, const AttentionShape&);
template void run(Cpu, const AttentionBackward<float>&);
template void run(Cpu, const AttentionBackward<BF16>&);
template void run(Cpu, const AttentionBackward<double>&);
template void attention_by<MatrixProducts<PlainRegisters>>(const AttentionBackward<BF16>&);

}  // namespace switchyard::kernels
