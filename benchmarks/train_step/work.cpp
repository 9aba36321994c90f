#include "benchmarks/train_step/work.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "benchmarks/train_step/models.h"
#include "core/grad_factors.h"
#include "kernels/matmul.h"

namespace switchyard::bench {

namespace {

// Of runs after a first one. The mean, as a step's time is: both bear what the machine does besides.
double mean_seconds(int runs, const std::function<void()>& f) {
  f();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < runs; ++i) f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / runs;
}

template <class T>
double product_rate_of() {
  constexpr int64_t kSize = 1024;
  static const std::vector<T> a(kSize * kSize, T(0.5f)), b(kSize * kSize, T(0.25f));
  static std::vector<T> c(kSize * kSize);
  const kernels::Matmul<T> product{
      .c = c.data(), .a = a.data(), .b = b.data(), .m = kSize, .n = kSize, .k = kSize};
  return 2.0 * kSize * kSize * kSize / mean_seconds(8, [&] { kernels::run(Cpu{}, product); });
}

// Adds a pair of forward and backward.
struct Table {
  std::map<std::string, Work> rows;
  void products(const std::string& op, double forward, double backward) {
    rows[op].flops += forward;
    rows[op + " backward"].flops += backward;
  }
  void moves(const std::string& op, double forward, double backward) {
    rows[op].bytes += forward;
    rows[op + " backward"].bytes += backward;
  }
};

// t: tokens; e: bytes of an activation.
void add_attention(Table& table, const ModelOptions& o, double t, double seq, double e) {
  const auto d = static_cast<double>(o.hidden_size),
             q = static_cast<double>(o.num_attention_heads * o.head_dim);
  const double qkv = q + 2 * static_cast<double>(o.num_key_value_heads * o.head_dim);
  table.products("linear", 2 * t * d * (qkv + q), 4 * t * d * (qkv + q));
  table.products("attention", 2 * t * seq * q, 4 * t * seq * q);
  table.moves("norm_rope", 2 * t * qkv * e, 3 * t * qkv * e);
  table.moves("add_rms_norm", 2 * 4 * t * d * e, 2 * 4 * t * d * e);
}

void add_dense(Table& table, const ModelOptions& o, double t, double e) {
  const auto d = static_cast<double>(o.hidden_size), m = static_cast<double>(o.intermediate_size);
  table.products("linear", 6 * t * d * m, 12 * t * d * m);
  table.moves("swiglu", 3 * t * m * e, 5 * t * m * e);
}

void add_mixture(Table& table, const ModelOptions& o, double t, double e) {
  const auto d = static_cast<double>(o.hidden_size), m = static_cast<double>(o.moe->moe_intermediate_size);
  const auto k = static_cast<double>(o.moe->top_k), experts = static_cast<double>(o.moe->num_experts);
  table.products("linear", 2 * t * d * experts, 4 * t * d * experts);
  table.products("grouped_linear", 6 * t * k * d * m, 12 * t * k * d * m);
  table.moves("swiglu", 3 * t * k * m * e, 5 * t * k * m * e);
  table.moves("permute", 2 * k * t * d * e, (k + 1) * t * d * e);
  table.moves("combine", (k + 1) * t * d * e, (2 * k + 1) * t * d * e);
  table.moves("route", 2 * t * experts * 4, 3 * t * experts * 4);
  table.moves("balance_loss", t * experts * 4, 2 * t * experts * 4);
  table.moves("cast", t * d * (e + 4), t * d * (e + 4));
}

// Whether experts' weight gradients are multiplied out by the optimizer alone (core/grad_factors.h).
bool leaves_gradients(const ModelOptions& o, const StepShape& shape) {
  const bool sums = shape.bf16 ? kernels::sums_squares<BF16>(Cpu{}) : kernels::sums_squares<float>(Cpu{});
  return sums && o.moe && shape.on_cpu && shape.one_micro_batch &&
         are_few_rows(shape.tokens * o.moe->top_k, o.moe->num_experts);
}

// Whether experts' weights are updated by the next forward pass (kernels/late_update.h).
bool updates_late(const ModelOptions& o, const StepShape& shape) {
  const bool late =
      shape.bf16 ? kernels::updates_on_the_way<BF16>(Cpu{}) : kernels::updates_on_the_way<float>(Cpu{});
  return late && o.moe && shape.on_cpu;
}

double experts_of_layer(const ModelOptions& o) {
  return static_cast<double>(o.moe->num_experts * o.hidden_size * 3 * o.moe->moe_intermediate_size);
}

double parameters_of(const ModelOptions& o) {
  double ffn = 3.0 * static_cast<double>(o.hidden_size * o.intermediate_size);
  if (o.moe) ffn = experts_of_layer(o) + static_cast<double>(o.moe->num_experts * o.hidden_size);
  const int64_t heads = 2 * o.num_attention_heads + 2 * o.num_key_value_heads;
  const auto attention = static_cast<double>(o.hidden_size * o.head_dim * heads);
  const double tables = (o.tie_embeddings ? 1.0 : 2.0) * static_cast<double>(o.vocab_size * o.hidden_size);
  return static_cast<double>(o.num_layers) * (attention + ffn) + tables;
}

}  // namespace

std::map<std::string, Work> work_of_step(const ModelOptions& o, const StepShape& shape) {
  const double t = static_cast<double>(shape.tokens) / shape.ranks, d = static_cast<double>(o.hidden_size);
  const double e = shape.bf16 ? 2 : 4;
  Table table;
  for (int64_t layer = 0; layer < o.num_layers; ++layer) {
    add_attention(table, o, t, static_cast<double>(shape.sequence_length), e);
    if (o.is_moe(layer)) {
      add_mixture(table, o, t, e);
    } else {
      add_dense(table, o, t, e);
    }
  }
  table.moves("rms_norm", 2 * t * d * e, 3 * t * d * e);
  table.moves("embedding", 2 * t * d * e, t * d * (e + 8));
  // Its forward pass makes the gradients too; backward only scales them.
  const auto vocab = static_cast<double>(o.vocab_size);
  table.products("linear_cross_entropy", 6 * t * d * vocab, 0);
  table.moves("linear_cross_entropy", 0, 2 * t * d * e + 2 * vocab * d * 4);
  // Gradients read (once: their squares can be added up where they are made), moments and (bf16: masters)
  // parameters read and written.
  const double late = updates_late(o, shape) ? static_cast<double>(o.num_layers) * experts_of_layer(o) : 0;
  table.rows[kUpdate].bytes = (parameters_of(o) - late) / shape.ranks *
                              (4 + (shape.bf16_moments ? 8 : 16) + 8 + (shape.bf16 ? 2 : 0));
  if (leaves_gradients(o, shape)) {
    double& backward = table.rows["grouped_linear backward"].flops;
    table.rows[kUpdate] = {.flops = backward / 2, .bytes = 0};
    backward /= 2;
  }
  return table.rows;
}

double product_rate(bool bf16) {
  const double rate = product_rate_of<float>();
  return bf16 ? std::max(rate, product_rate_of<BF16>()) : rate;
}

double triad_rate() {
  constexpr int64_t kElements = int64_t{64} << 18;
  std::vector<float> a(kElements), b(kElements, 1), c(kElements, 2);
  const double seconds = mean_seconds(6, [&] {
    float* to = a.data();
    const float *x = b.data(), *y = c.data();
#pragma omp parallel for simd
    for (int64_t i = 0; i < kElements; ++i) to[i] = x[i] + 3 * y[i];
  });
  return 12.0 * kElements / seconds;
}

}  // namespace switchyard::bench
