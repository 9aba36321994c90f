// Per tile, with P = exp(scale q.k - lse) and D = rowsum(dO * O):
//   dV += P^T dO      dP = dO V^T      dS = P * (dP - D)      dQ += scale dS K      dK += scale dS^T Q
#include "kernels/attention.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vector_math.h"

namespace switchyard::kernels {
namespace {

using namespace attention;

template <class A>
struct Tiles {
  Scratch<A> keys, values;           // [seq, head_dim]
  Scratch<A> query, d_query, d_out;  // [rows of a tile, head_dim]
  Scratch<A> probability, d_score;   // [rows of a tile, kKeys]
  Scratch<A> lse, row_sum;           // [rows of a tile]
};

// All queries of one sequence that read one key/value head. dK and dV are summed in the workspace, query
// block after query block, by one thread.
template <class T>
class BackwardTask {
  using A = Acc<T>;

 public:
  BackwardTask(const AttentionBackward<T>& args, const Head& head, Tiles<A>& tiles)
      : args_(args),
        head_(head),
        document_(args.document, head),
        dim_(head.shape.head_dim),
        queries_(queries_per_block(head.shape)) {
    const int64_t seq = head.shape.seq, rows = head.group() * queries_;
    keys_ = reserve_tile(tiles.keys, seq, dim_);
    values_ = reserve_tile(tiles.values, seq, dim_);
    query_ = reserve_tile(tiles.query, rows, dim_);
    d_query_ = reserve_tile(tiles.d_query, rows, dim_);
    d_out_ = reserve_tile(tiles.d_out, rows, dim_);
    probability_ = reserve_tile(tiles.probability, rows, kKeys);
    d_score_ = reserve_tile(tiles.d_score, rows, kKeys);
    lse_ = tiles.lse.reserve(rows);
    row_sum_ = tiles.row_sum.reserve(rows);
    A* sums =
        static_cast<A*>(args.workspace) + (head.sequence * head.shape.kv_heads + head.kv) * 2 * seq * dim_;
    d_keys_ = {sums, dim_};
    d_values_ = d_keys_.from(seq);
  }

  void run() {
    const int64_t seq = head_.shape.seq, row = head_.shape.row();
    load_rows(keys_.data, keys_.ld, args_.qkv + head_.key(0), row, seq, dim_);
    load_rows(values_.data, values_.ld, args_.qkv + head_.value(0), row, seq, dim_);
    std::fill_n(d_keys_.data, 2 * seq * dim_, A(0));
    for (int64_t q0 = 0; q0 < seq; q0 += queries_) query_block(q0, std::min(q0 + queries_, seq));
    store_rows(args_.dqkv + head_.key(0), row, d_keys_.data, dim_, seq, dim_);
    store_rows(args_.dqkv + head_.value(0), row, d_values_.data, dim_, seq, dim_);
  }

 private:
  void query_block(int64_t q0, int64_t q1) {
    const int64_t n = q1 - q0, group = head_.group(), row = head_.shape.row();
    const A scale = A(head_.shape.scale);
    for (int64_t a = 0; a < group; ++a) load_head(q0, n, a);
    std::fill_n(d_query_.data, group * n * d_query_.ld, A(0));
    for (int64_t k0 = 0; k0 < q1; k0 += kKeys)
      if (const int64_t k1 = std::min(k0 + kKeys, q1); !document_.apart(q0, q1, k0, k1)) tile(q0, q1, k0, k1);
    for (int64_t a = 0; a < group; ++a)
      store_rows(args_.dqkv + head_.query(q0, a), row, d_query_.from(a * n).data, d_query_.ld, n, dim_,
                 scale);
  }

  // Queries (times scale), dO, lse and D of head a's n tokens from q0.
  void load_head(int64_t q0, int64_t n, int64_t a) {
    const Tile<A> d_out = d_out_.from(a * n);
    load_rows(query_.from(a * n).data, query_.ld, args_.qkv + head_.query(q0, a), head_.shape.row(), n, dim_,
              A(head_.shape.scale));
    load_rows(d_out.data, d_out.ld, args_.d_o + head_.output(q0, a), head_.output_row(), n, dim_);
    std::copy_n(args_.lse + head_.statistic(q0, a), n, lse_ + a * n);
    for (int64_t i = 0; i < n; ++i) {
      const T* out = args_.o + head_.output(q0 + i, a);
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < dim_; ++c) sum += d_out.data[i * d_out.ld + c] * static_cast<A>(out[c]);
      row_sum_[a * n + i] = sum;
    }
  }

  void tile(int64_t q0, int64_t q1, int64_t k0, int64_t k1) {
    const int64_t n = q1 - q0, rows = head_.group() * n, width = k1 - k0;
    product(probability_, query_, keys_.from(k0), rows, width, dim_, kTransposeB, false);
    product(d_score_, d_out_, values_.from(k0), rows, width, dim_, kTransposeB, false);
    for (int64_t r = 0; r < rows; ++r) slope(q0 + r % n, k0, width, r);
    product(d_values_.from(k0), probability_, d_out_, width, dim_, rows, kTransposeA, true);
    product(d_keys_.from(k0), d_score_, query_, width, dim_, rows, kTransposeA, true);
    product(d_query_, d_score_, keys_.from(k0), rows, dim_, width, kPlain, true);
  }

  // One row of the tile: scores to probabilities, and dP to dS.
  void slope(int64_t query, int64_t k0, int64_t width, int64_t r) {
    A* p = probability_.from(r).data;
    A* ds = d_score_.from(r).data;
    const int64_t visible = std::clamp<int64_t>(query + 1 - k0, 0, width);
    const A lse = lse_[r], row_sum = row_sum_[r];
#pragma omp simd
    for (int64_t j = 0; j < visible; ++j) {
      p[j] = vector_exp(p[j] - lse);
      ds[j] = p[j] * (ds[j] - row_sum);
    }
    std::fill(p + visible, p + width, A(0));
    std::fill(ds + visible, ds + width, A(0));
    if (!document_) return;
    for (int64_t j = 0; j < visible; ++j)
      if (document_[k0 + j] != document_[query]) p[j] = ds[j] = 0;
  }

  const AttentionBackward<T>& args_;
  Head head_;
  Documents document_;
  int64_t dim_, queries_;
  Tile<A> keys_, values_, query_, d_query_, d_out_, probability_, d_score_;
  Tile<A> d_keys_, d_values_;  // [seq, head_dim] in the workspace
  A *lse_, *row_sum_;
};

}  // namespace

template <class T>
int64_t attention_workspace_bytes(Cpu, const AttentionShape& s) {
  return 2 * s.batch * s.seq * s.kv_heads * s.head_dim * static_cast<int64_t>(sizeof(Acc<T>));
}

template <class T>
void run(Cpu, const AttentionBackward<T>& args) {
  const AttentionShape& s = args.shape;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
      thread_local Tiles<Acc<T>> tiles;
      BackwardTask<T>(args, Head{s, b, kv}, tiles).run();
    }
}

template int64_t attention_workspace_bytes<float>(Cpu, const AttentionShape&);
template int64_t attention_workspace_bytes<BF16>(Cpu, const AttentionShape&);
template int64_t attention_workspace_bytes<double>(Cpu, const AttentionShape&);
template void run(Cpu, const AttentionBackward<float>&);
template void run(Cpu, const AttentionBackward<BF16>&);
template void run(Cpu, const AttentionBackward<double>&);

}  // namespace switchyard::kernels
