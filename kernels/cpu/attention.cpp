#include "kernels/attention.h"

#include <limits>

#include "kernels/cpu/attention_by.h"
#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {
namespace {

using namespace attention;

constexpr int64_t kTaskQueries = 512;

// The thread's tiles for one task.
template <class A, class Products>
struct Tiles {
  Scratch<typename Products::Element> keys, values;  // panels of [head_dim, seq] and of [seq, head_dim]
  Scratch<typename Products::Value> query;           // [rows of a tile, head_dim]
  Scratch<A> out;                                    // [rows of a tile, head_dim]
  Scratch<A> scores;                                 // [rows of a tile, kKeys]
  Scratch<typename Products::Value> weights;         // the same; of pairs only
  Scratch<A> maximum, sum;                           // [rows of a tile]
};

// weights[j] = exp(scale * scores[j] - maximum), 0 for what the row does not see. Whole vectors: behind the
// visible scores there is room. Returns the factor for what was summed under the old maximum.
template <class A, class V>
A soften(V* weights, A* scores, int64_t visible, A scale, A& maximum, A& sum) {
  const int64_t n = whole_panels(visible, kWidth);
  std::fill(scores + visible, scores + n, -std::numeric_limits<A>::infinity());
  A highest = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : highest)
  for (int64_t j = 0; j < n; ++j) highest = scores[j] > highest ? scores[j] : highest;
  highest = std::max(maximum, scale * highest);
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < n; ++j) {
    const A weight = fast_exp(scale * scores[j] - highest);
    total += weight;
    store(weights[j], weight);
  }
  const A factor = maximum == highest ? 1 : fast_exp(maximum - highest);
  maximum = highest;
  sum = sum * factor + total;
  return factor;
}

template <class A>
void hide_other_documents(A* scores, const Documents& document, int64_t query, int64_t k0, int64_t visible) {
  for (int64_t j = 0; j < visible; ++j)
    if (document[k0 + j] != document[query]) scores[j] = -std::numeric_limits<A>::infinity();
}

template <class Products, class T>
class ForwardTask {
  using A = Acc<T>;
  using E = typename Products::Element;
  using V = typename Products::Value;

 public:
  ForwardTask(const AttentionForward<T>& args, const Head& head, Tiles<A, Products>& tiles)
      : args_(args),
        head_(head),
        document_(args.document, head),
        tiles_(tiles),
        dim_(head.shape.head_dim),
        queries_(queries_per_block(head.shape, Products::kRows)),
        scale_(head.shape.scale) {}

  void run(int64_t first, int64_t last) {
    const int64_t rows = head_.group() * queries_, row = head_.shape.row();
    keys_ = pack_panels<Products>(tiles_.keys, args_.qkv + head_.key(0), row, last, dim_, true);
    values_ = pack_panels<Products>(tiles_.values, args_.qkv + head_.value(0), row, dim_, last, false);
    query_ = reserve_tile<Products>(tiles_.query, rows, dim_);
    out_ = reserve_tile<Products>(tiles_.out, rows, dim_);
    scores_ = reserve_tile<Products>(tiles_.scores, rows, kKeys + kWidth);
    if constexpr (std::is_same_v<V, A>)
      weights_ = scores_;
    else
      weights_ = reserve_tile<Products>(tiles_.weights, rows, kKeys + kWidth);
    maximum_ = tiles_.maximum.reserve(rows);
    sum_ = tiles_.sum.reserve(rows);
    for (int64_t q0 = first; q0 < last; q0 += queries_) query_block(q0, std::min(q0 + queries_, last));
  }

 private:
  void query_block(int64_t q0, int64_t q1) {
    const int64_t group = head_.group(), rows = group * (q1 - q0), all = whole_panels(rows, Products::kRows);
    for (int64_t i = 0; i < q1 - q0; ++i)
      copy_rows<Products>(query_, i * group, args_.qkv + head_.query(q0 + i, 0), dim_, group, dim_);
    std::fill(query_.row(rows), query_.row(all), V());
    std::fill(out_.row(0), out_.row(all), A(0));
    std::fill_n(maximum_, rows, std::numeric_limits<A>::lowest());
    std::fill_n(sum_, rows, A(0));
    for (int64_t k0 = 0; k0 < q1; k0 += kKeys)
      if (const int64_t k1 = std::min(k0 + kKeys, q1); !document_.apart(q0, q1, k0, k1))
        tile({q0, q1, k0, k1, group});
    store_result(q0, rows);
  }

  void tile(const Block& block) {
    products_.multiply_by_keys(block, scores_, query_, keys_);
    for (int64_t r = 0; r < block.rows(); ++r) {
      A* const scores = scores_.row(r);
      const int64_t visible = block.visible(r);
      if (document_) hide_other_documents(scores, document_, block.q0 + r / block.group, block.k0, visible);
      const A factor = soften(weights_.row(r), scores, visible, scale_, maximum_[r], sum_[r]);
      clear_unseen<Products>(block, weights_, r);
      if (factor != 1)
        for (int64_t c = 0; c < dim_; ++c) out_.row(r)[c] *= factor;
    }
    products_.add_rows_of_keys(block, out_, weights_, values_, dim_);
  }

  void store_result(int64_t q0, int64_t rows) {
    const int64_t group = head_.group();
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t query = q0 + r / group, a = r % group;
      store_rows(args_.o + head_.output(query, a), dim_, out_.row(r), out_.ld, 1, dim_, 1 / sum_[r]);
      args_.lse[head_.statistic(query, a)] = maximum_[r] + std::log(sum_[r]);
    }
  }

  const AttentionForward<T>& args_;
  Head head_;
  Documents document_;
  Tiles<A, Products>& tiles_;
  Products products_;
  int64_t dim_, queries_;
  A scale_;
  Panels<E> keys_, values_;
  Tile<V> query_, weights_;
  Tile<A> out_, scores_;
  A *maximum_, *sum_;
};

}  // namespace

template <class Products, class T>
void attention_by(const AttentionForward<T>& args) {
  const AttentionShape& s = args.shape;
  // The longest runs of queries first, so that no thread starts a long one last.
#pragma omp parallel for collapse(3) schedule(dynamic)
  for (int64_t back = (s.seq + kTaskQueries - 1) / kTaskQueries; back > 0; --back)
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
        thread_local Tiles<Acc<T>, Products> tiles;
        ForwardTask<Products, T>(args, Head{s, b, kv}, tiles)
            .run((back - 1) * kTaskQueries, std::min(back * kTaskQueries, s.seq));
      }
}

template <class T>
void run(Cpu, const AttentionForward<T>& args) {
  by_best_products<T>([&]<class Products>(Of<Products>) { attention_by<Products>(args); });
}

template void run(Cpu, const AttentionForward<float>&);
template void run(Cpu, const AttentionForward<BF16>&);
template void run(Cpu, const AttentionForward<double>&);
template void attention_by<MatrixProducts<PlainRegisters>>(const AttentionForward<BF16>&);

}  // namespace switchyard::kernels
