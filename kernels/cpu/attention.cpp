#include "kernels/attention.h"

#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vector_math.h"

namespace switchyard::kernels {
namespace {

using namespace attention;

constexpr int64_t kTaskQueries = 512;

// The thread's tiles for one task.
template <class A>
struct Tiles {
  Scratch<A> keys, values;  // [seq, head_dim]
  Scratch<A> query, out;    // [rows of a tile, head_dim]
  Scratch<A> scores;        // [rows of a tile, kKeys]
  Scratch<A> maximum, sum;  // [rows of a tile]
};

// Scores of one row become exp(score - maximum); returns the factor for what was summed under the old
// maximum.
template <class A>
A soften(A* scores, int64_t visible, int64_t width, A& maximum, A& sum) {
  A highest = maximum;
#pragma omp simd reduction(max : highest)
  for (int64_t j = 0; j < visible; ++j) highest = scores[j] > highest ? scores[j] : highest;
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < visible; ++j) {
    scores[j] = vector_exp(scores[j] - highest);
    total += scores[j];
  }
  std::fill(scores + visible, scores + width, A(0));
  const A factor = vector_exp(maximum - highest);
  maximum = highest;
  sum = sum * factor + total;
  return factor;
}

template <class A>
void hide_other_documents(A* scores, const Documents& document, int64_t query, int64_t k0, int64_t visible) {
  for (int64_t j = 0; j < visible; ++j)
    if (document[k0 + j] != document[query]) scores[j] = -std::numeric_limits<A>::infinity();
}

template <class T>
class ForwardTask {
  using A = Acc<T>;

 public:
  ForwardTask(const AttentionForward<T>& args, const Head& head, Tiles<A>& tiles)
      : args_(args),
        head_(head),
        document_(args.document, head),
        tiles_(tiles),
        dim_(head.shape.head_dim),
        queries_(queries_per_block(head.shape)) {}

  void run(int64_t first, int64_t last) {
    const int64_t rows = head_.group() * queries_;
    keys_ = reserve_tile(tiles_.keys, last, dim_);
    values_ = reserve_tile(tiles_.values, last, dim_);
    load_rows(keys_.data, keys_.ld, args_.qkv + head_.key(0), head_.shape.row(), last, dim_);
    load_rows(values_.data, values_.ld, args_.qkv + head_.value(0), head_.shape.row(), last, dim_);
    query_ = reserve_tile(tiles_.query, rows, dim_);
    out_ = reserve_tile(tiles_.out, rows, dim_);
    scores_ = reserve_tile(tiles_.scores, rows, kKeys);
    maximum_ = tiles_.maximum.reserve(rows);
    sum_ = tiles_.sum.reserve(rows);
    for (int64_t q0 = first; q0 < last; q0 += queries_) query_block(q0, std::min(q0 + queries_, last));
  }

 private:
  void query_block(int64_t q0, int64_t q1) {
    const int64_t n = q1 - q0, rows = head_.group() * n;
    for (int64_t a = 0; a < head_.group(); ++a)
      load_rows(query_.from(a * n).data, query_.ld, args_.qkv + head_.query(q0, a), head_.shape.row(), n,
                dim_, A(head_.shape.scale));
    std::fill_n(out_.data, rows * out_.ld, A(0));
    std::fill_n(maximum_, rows, std::numeric_limits<A>::lowest());
    std::fill_n(sum_, rows, A(0));
    for (int64_t k0 = 0; k0 < q1; k0 += kKeys)
      if (const int64_t k1 = std::min(k0 + kKeys, q1); !document_.apart(q0, q1, k0, k1)) tile(q0, q1, k0, k1);
    store(q0, n);
  }

  void tile(int64_t q0, int64_t q1, int64_t k0, int64_t k1) {
    const int64_t n = q1 - q0, rows = head_.group() * n, width = k1 - k0;
    product(scores_, query_, keys_.from(k0), rows, width, dim_, kTransposeB, false);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t query = q0 + r % n;
      const int64_t visible = std::clamp<int64_t>(query + 1 - k0, 0, width);
      if (document_) hide_other_documents(scores_.from(r).data, document_, query, k0, visible);
      const A factor = soften(scores_.from(r).data, visible, width, maximum_[r], sum_[r]);
      if (factor != 1)
        for (int64_t c = 0; c < dim_; ++c) out_.from(r).data[c] *= factor;
    }
    product(out_, scores_, values_.from(k0), rows, dim_, width, kPlain, true);
  }

  void store(int64_t q0, int64_t n) {
    for (int64_t a = 0; a < head_.group(); ++a)
      for (int64_t i = 0; i < n; ++i) {
        const int64_t r = a * n + i;
        store_rows(args_.o + head_.output(q0 + i, a), dim_, out_.from(r).data, out_.ld, 1, dim_, 1 / sum_[r]);
        args_.lse[head_.statistic(q0 + i, a)] = maximum_[r] + std::log(sum_[r]);
      }
  }

  const AttentionForward<T>& args_;
  Head head_;
  Documents document_;
  Tiles<A>& tiles_;
  int64_t dim_, queries_;
  Tile<A> keys_, values_, query_, out_, scores_;
  A *maximum_, *sum_;
};

}  // namespace

template <class T>
void run(Cpu, const AttentionForward<T>& args) {
  const AttentionShape& s = args.shape;
  // The longest runs of queries first, so that no thread starts a long one last.
#pragma omp parallel for collapse(3) schedule(dynamic)
  for (int64_t back = (s.seq + kTaskQueries - 1) / kTaskQueries; back > 0; --back)
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
        thread_local Tiles<Acc<T>> tiles;
        ForwardTask<T>(args, Head{s, b, kv}, tiles)
            .run((back - 1) * kTaskQueries, std::min(back * kTaskQueries, s.seq));
      }
}

template void run(Cpu, const AttentionForward<float>&);
template void run(Cpu, const AttentionForward<BF16>&);
template void run(Cpu, const AttentionForward<double>&);

}  // namespace switchyard::kernels
