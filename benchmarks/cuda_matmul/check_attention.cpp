#include "benchmarks/cuda_matmul/check.h"
#include "benchmarks/cuda_matmul/report.h"
#include "kernels/attention.h"
#include "kernels/cuda/handles.h"

namespace switchyard::bench {

namespace {

using kernels::AttentionShape;

struct Reference {
  std::vector<double> o, lse, dqkv;
};

// One query row of one head: where its vectors begin in qkv, o and dqkv.
struct Row {
  int64_t q, k, v;  // of the first token's key and value; keys step by row()
  int64_t o;
  int64_t lse;
};

template <class T>
void reference_row(Reference& r, const Row& row, int64_t first, int64_t last, const std::vector<T>& qkv,
                   const std::vector<T>& d_o, const std::vector<int32_t>& document, const AttentionShape& s) {
  const int64_t dim = s.head_dim, step = s.row();
  std::vector<double> p(last - first + 1, 0);
  double largest = -INFINITY, sum = 0, delta = 0;
  for (int64_t j = first; j <= last; ++j) {
    p[j - first] = -INFINITY;
    if (!document.empty() && document[j] != document[last]) continue;
    double score = 0;
    for (int64_t d = 0; d < dim; ++d)
      score += to_double(qkv[row.q + d]) * to_double(qkv[row.k + j * step + d]);
    p[j - first] = score * s.scale;
    largest = std::max(largest, p[j - first]);
  }
  for (double& x : p) sum += x = std::exp(x - largest);
  r.lse[row.lse] = largest + std::log(sum);
  for (int64_t j = first; j <= last; ++j) {
    p[j - first] /= sum;
    for (int64_t d = 0; d < dim; ++d) r.o[row.o + d] += p[j - first] * to_double(qkv[row.v + j * step + d]);
  }
  for (int64_t d = 0; d < dim; ++d) delta += r.o[row.o + d] * to_double(d_o[row.o + d]);
  for (int64_t j = first; j <= last; ++j) {
    double dp = 0;
    for (int64_t d = 0; d < dim; ++d) dp += to_double(d_o[row.o + d]) * to_double(qkv[row.v + j * step + d]);
    const double ds = s.scale * p[j - first] * (dp - delta);
    for (int64_t d = 0; d < dim; ++d) {
      r.dqkv[row.q + d] += ds * to_double(qkv[row.k + j * step + d]);
      r.dqkv[row.k + j * step + d] += ds * to_double(qkv[row.q + d]);
      r.dqkv[row.v + j * step + d] += p[j - first] * to_double(d_o[row.o + d]);
    }
  }
}

template <class T>
Reference reference(const std::vector<T>& qkv, const std::vector<T>& d_o,
                    const std::vector<int32_t>& document, const AttentionShape& s) {
  const int64_t tokens = s.batch * s.seq;
  Reference r{std::vector<double>(tokens * s.heads * s.head_dim), std::vector<double>(s.heads * tokens),
              std::vector<double>(tokens * s.row())};
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t batch = token / s.seq, key = (s.heads + head / (s.heads / s.kv_heads)) * s.head_dim;
      const Row row{token * s.row() + head * s.head_dim, key, key + s.kv_heads * s.head_dim,
                    (token * s.heads + head) * s.head_dim, (batch * s.heads + head) * s.seq + token % s.seq};
      reference_row(r, row, batch * s.seq, token, qkv, d_o, document, s);
    }
  }
  return r;
}

template <class T>
int check(Cuda exec, AttentionShape s, bool with_documents, std::mt19937& generator) {
  using A = Acc<T>;
  const int64_t tokens = s.batch * s.seq;
  s.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  const auto qkv = random_vector<T>(tokens * s.row(), generator);
  const auto d_o = random_vector<T>(tokens * s.heads * s.head_dim, generator);
  std::vector<int32_t> document(with_documents ? tokens : 0);
  for (int64_t t = 1; t < static_cast<int64_t>(document.size()); ++t) {
    document[t] = document[t - 1] + (generator() % 40 == 0);
  }
  const Reference expected = reference(qkv, d_o, document, s);
  DeviceArray<T> device_qkv(qkv), device_d_o(d_o);
  DeviceArray<int32_t> device_document(document);
  const int32_t* documents = with_documents ? device_document.data() : nullptr;
  std::vector<T> o[2], dqkv[2];
  std::vector<A> lse[2];
  for (int i = 0; i < 2; ++i) {
    DeviceArray<T> out(tokens * s.heads * s.head_dim), gradient(tokens * s.row());
    DeviceArray<A> statistics(s.heads * tokens);
    DeviceArray<uint8_t> workspace(kernels::attention_workspace_bytes<T>(exec, s));
    kernels::run(
        exec, kernels::AttentionForward<T>{out.data(), statistics.data(), device_qkv.data(), documents, s});
    kernels::run(
        exec, kernels::AttentionBackward<T>{gradient.data(), device_d_o.data(), out.data(), device_qkv.data(),
                                            statistics.data(), documents, workspace.data(), s});
    o[i] = out.host();
    lse[i] = statistics.host();
    dqkv[i] = gradient.host();
  }
  const std::string name = concat("attention ", kTypeName<T>, " ", s.batch, "x", s.seq, " heads ", s.heads,
                                  "/", s.kv_heads, " x ", s.head_dim, with_documents ? " documents" : "");
  // P and dS are rounded to bf16 too.
  const double loose = std::is_same_v<T, BF16> ? 1.5e-2 : tolerance<T, T>();
  return report(name + " o", relative_error(o[0], expected.o), loose, same_bits(o[0], o[1])) +
         report(name + " lse", relative_error(lse[0], expected.lse), tolerance<T, A>(),
                same_bits(lse[0], lse[1])) +
         report(name + " dqkv", relative_error(dqkv[0], expected.dqkv), loose, same_bits(dqkv[0], dqkv[1]));
}

template <class T>
int check_type(Cuda exec, std::mt19937& generator) {
  int failures = 0;
  for (const bool documents : {false, true}) {
    failures += check<T>(exec, {2, 197, 4, 2, 64, 0}, documents, generator);
    failures += check<T>(exec, {1, 256, 3, 3, 128, 0}, documents, generator);
    failures += check<T>(exec, {1, 130, 4, 1, 128, 0}, documents, generator);
    failures += check<T>(exec, {1, 650, 2, 1, 64, 0}, documents, generator);
    failures += check<T>(exec, {1, 520, 1, 1, 128, 0}, documents, generator);
    failures += check<T>(exec, {2, 64, 2, 1, 64, 0}, documents, generator);
    failures += check<T>(exec, {3, 1, 2, 2, 64, 0}, documents, generator);
    failures += check<T>(exec, {2, 77, 2, 1, 24, 0}, documents, generator);
    failures += check<T>(exec, {1, 50, 2, 2, 200, 0}, documents, generator);
  }
  return failures;
}

}  // namespace

int check_attention(Cuda exec, unsigned seed) {
  std::mt19937 generator(seed);
  int failures = 0;
  const bool allow_wgmma = exec.handles->allow_wgmma;
  for (const bool wgmma : {false, true}) {
    std::printf("attention of bf16 by %s\n", wgmma ? "wgmma (where the GPU has it)" : "mma.sync");
    exec.handles->allow_wgmma = wgmma;
    failures += check_type<BF16>(exec, generator);
  }
  exec.handles->allow_wgmma = allow_wgmma;
  return failures + check_type<float>(exec, generator) + check_type<double>(exec, generator);
}

}  // namespace switchyard::bench
