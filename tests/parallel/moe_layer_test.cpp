// The whole MoE block on one or more ranks against loops in double: outputs, and every
// gradient against differences.
#include "parallel/expert/moe_layer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "tests/support/brute_moe.h"
#include "tests/support/gradcheck.h"
#include "tests/support/moe_net.h"

namespace switchyard::test {
namespace {

constexpr int64_t kHidden = MoeNet::kHidden, kTokens = 8, kSequences = 2;
const std::string kPrefix = "model.layers.1.mlp.";

MoeOptions five_experts() {
  MoeOptions o;
  o.num_experts = 5;
  o.top_k = 2;
  o.moe_intermediate_size = 4;
  o.balance = {Balance::kAux};
  o.aux_loss_coeff = 0.3;
  o.z_loss_coeff = 0.2;
  return o;
}

struct Net : MoeNet {
  Net(const MoeOptions& options, const Axis& ep, DType dtype = DType::kF64)
      : MoeNet(options, ep, dtype, kPrefix) {}
  // f(name without the prefix, the piece's elements of `whole(parameter)`).
  template <class Whole, class F>
  void each_piece(Whole whole, F f) const {
    for (const Parameter& p : store.parameters()) {
      for (const Piece& piece : p.spec.pieces) {
        f(piece.name.substr(kPrefix.size()), whole(p).slice(piece.offset, piece.shape));
      }
    }
  }
};

// What Balance::kGlobal knows of the global batch before; exact in float32.
const Vector kExcess{0.25, -0.125, 0, -0.1875, 0.0625};

void set_excess(const ParameterStore& store) {
  const std::vector<float> values(kExcess.begin(), kExcess.end());
  for (const ParameterStore::Buffer& b : store.buffers())
    if (b.name.ends_with("load_excess")) upload(b.var.value().raw(), Device::kCpu, values.data(), 20);
}

// Of the tokens of every rank: they all begin at global token 0 here.
std::vector<Vector> gate_noise(int64_t experts) {
  std::vector<Vector> noise(kTokens, Vector(static_cast<size_t>(experts)));
  for (size_t t = 0; t < noise.size(); ++t) {
    for (size_t e = 0; e < noise[t].size(); ++e)
      noise[t][e] = static_cast<float>(normal_of(philox(key_of(0, kPrefix + "noise"), t, e)));
  }
  return noise;
}

Axis axis_of(const Group& group) { return {group, group}; }

// Every logical weight in double, as a layer on one rank has them.
std::map<std::string, Vector> all_weights(const MoeOptions& options) {
  const Net net(options, axis_of(make_self()));
  std::map<std::string, Vector> weights;
  net.each_piece([](const Parameter& p) { return p.var.value(); },
                 [&](const std::string& name, const Tensor& x) { weights[name] = x.to_vector<double>(); });
  return weights;
}

// sum of seed * y, with y's gradient.
Var weighted_sum(const Var& y, const Tensor& seed) {
  const auto a = y.value().to_vector<double>(), b = seed.to_vector<double>();
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return record("weighted_sum", Tensor::from<double>({sum}, {1}), {y},
                [seed](const Tensor&) -> Tensors { return {seed.clone()}; });
}

Tensor tokens_of(int rank) { return random_tensor({kTokens, kHidden}, 100 + rank); }
Tensor seed_of(int rank) { return random_tensor({kTokens, kHidden}, 200 + rank); }

std::vector<Vector> rows_of(const Tensor& x) {
  std::vector<Vector> rows;
  const Vector all = x.to_vector<double>();
  for (int64_t r = 0; r < x.rows(); ++r)
    rows.emplace_back(all.begin() + r * x.cols(), all.begin() + (r + 1) * x.cols());
  return rows;
}

// What the ranks have together.
struct Result {
  std::vector<Vector> y;   // rows of all ranks
  std::vector<Vector> dx;  // the same
  double losses = 0;
  int64_t shadows = 0;
  std::map<std::string, Vector> gradients;  // added up over ranks
};

void add_to(Vector& sum, const Vector& x) {
  sum.resize(x.size(), 0.0);
  for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
}

Result run_layer(const MoeOptions& options, int world, int expert, int64_t shadow_pairs) {
  std::vector<Result> parts(world);
  run_ranks(world, [&](const Group& group) {
    const Mesh mesh = make_mesh(group, expert, Device::kCpu);
    Net net(options, mesh.ep);
    net.layer.set_shadow_pairs(shadow_pairs);
    set_excess(net.store);
    const Var x(tokens_of(group->rank()), true);
    ForwardContext context{.training = true, .sequences = kSequences, .losses = {}};
    const Var y = net.layer(x, context);
    Var objective = weighted_sum(y, seed_of(group->rank()));
    Result& result = parts[group->rank()];
    for (const Var& loss : context.losses) {
      result.losses += loss.value().to_vector<double>()[0];
      objective = add(objective, loss);
    }
    backward(objective);
    result.shadows = net.meter->shadows;
    result.y = rows_of(y.value());
    result.dx = rows_of(x.grad());
    net.each_piece(
        [](const Parameter& p) { return p.var.grad(); },
        [&](const std::string& name, const Tensor& g) { result.gradients[name] = g.to_vector<double>(); });
  });
  Result all;
  for (const Result& part : parts) {
    all.y.insert(all.y.end(), part.y.begin(), part.y.end());
    all.dx.insert(all.dx.end(), part.dx.begin(), part.dx.end());
    all.losses += part.losses;
    all.shadows += part.shadows;
    for (const auto& [name, g] : part.gradients) add_to(all.gradients[name], g);
  }
  return all;
}

// The objective of all ranks, by loops.
class BruteRun {
 public:
  BruteRun(const MoeOptions& options, int world) {
    brute.options = options;
    brute.weights = all_weights(options);
    brute.excess = kExcess;
    brute.noise = gate_noise(options.num_experts);
    for (int r = 0; r < world; ++r) {
      x.push_back(rows_of(tokens_of(r)));
      seeds_.push_back(rows_of(seed_of(r)));
    }
  }
  double objective() const {
    double sum = 0;
    for (size_t r = 0; r < x.size(); ++r) {
      const BruteMoe::Output out = brute(x[r], kSequences);
      sum += out.losses;
      for (size_t t = 0; t < out.y.size(); ++t) {
        for (size_t c = 0; c < out.y[t].size(); ++c) sum += seeds_[r][t][c] * out.y[t][c];
      }
    }
    return sum;
  }
  // d objective / d value, by central differences.
  double slope(double& value) const {
    constexpr double kStep = 1e-5;
    const double before = value;
    value = before + kStep;
    const double up = objective();
    value = before - kStep;
    const double down = objective();
    value = before;
    return (up - down) / (2 * kStep);
  }

  BruteMoe brute;
  std::vector<std::vector<Vector>> x;

 private:
  std::vector<std::vector<Vector>> seeds_;
};

void expect_near(const Vector& actual, const Vector& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(actual[i], expected[i], tolerance) << what << ", element " << i;
}

struct Variant {
  const char* name;
  void (*change)(MoeOptions& options);
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

using kernels::DropPolicy;
using kernels::ScoreFunction;

const Variant kVariants[] = {
    {"Plain", [](MoeOptions&) {}},
    {"SoftmaxOverTheChosen", [](MoeOptions& o) { o.pre_softmax = false; }},
    {"NotNormalised", [](MoeOptions& o) { o.normalize_topk = false; }},
    {"Top1", [](MoeOptions& o) { o.top_k = 1, o.normalize_topk = false; }},
    {"AllExpertsChosen", [](MoeOptions& o) { o.top_k = 5; }},
    {"Sigmoid",
     [](MoeOptions& o) { o.score_function = ScoreFunction::kSigmoid, o.topk_scaling_factor = 2.5; }},
    {"SigmoidNotNormalised",
     [](MoeOptions& o) { o.score_function = ScoreFunction::kSigmoid, o.normalize_topk = false; }},
    {"Groups", [](MoeOptions& o) { o.num_experts = 8, o.num_groups = 4, o.group_topk = 2, o.top_k = 4; }},
    {"DropsByProbability", [](MoeOptions& o) { o.capacity_factor = 0.7; }},
    {"DropsByPosition",
     [](MoeOptions& o) { o.capacity_factor = 0.7, o.token_drop_policy = DropPolicy::kPosition; }},
    {"OneOfEachKept", [](MoeOptions& o) { o.capacity_factor = 0.01, o.min_capacity = 1; }},
    {"NoisyGate", [](MoeOptions& o) { o.noisy_gate = true; }},
    {"NoisyGateWithDrops", [](MoeOptions& o) { o.noisy_gate = true, o.capacity_factor = 0.7; }},
    {"SharedExpert", [](MoeOptions& o) { o.shared_expert_intermediate_size = 3; }},
    {"GatedSharedExpert",
     [](MoeOptions& o) { o.shared_expert_intermediate_size = 3, o.shared_expert_gate = true; }},
    {"Hybrid", [](MoeOptions& o) { o.dense_weight = 0.3, o.shared_expert_intermediate_size = 3; }},
    {"BalancePerSequence", [](MoeOptions& o) { o.balance = {Balance::kSequence}; }},
    {"BalanceOfTheGlobalBatch", [](MoeOptions& o) { o.balance = {Balance::kGlobal}; }},
    {"AllOtherBalances",
     [](MoeOptions& o) {
       o.balance = {Balance::kKl, Balance::kCv, Balance::kEntropy, Balance::kAux};
     }},
};

struct Layout {
  int world, expert;
  int64_t shadow_pairs = 0;
};

class MoeLayerTest : public testing::TestWithParam<Variant> {};

TEST_P(MoeLayerTest, IsTheSumOfItsExpertsOnEveryLayout) {
  MoeOptions options = five_experts();
  GetParam().change(options);
  int64_t shadows = 0;
  for (const auto [world, expert, shadow_pairs] :
       {Layout{1, 1}, {2, 2}, {3, 3}, {4, 2}, {2, 2, 1}, {3, 3, 1}, {4, 2, 1}}) {
    SCOPED_TRACE(concat("W ", world, ", EP ", expert, ", shadows from ", shadow_pairs, " pairs"));
    const Result actual = run_layer(options, world, expert, shadow_pairs);
    EXPECT_TRUE(shadow_pairs > 0 || actual.shadows == 0);
    shadows += actual.shadows;
    BruteRun run(options, world);
    double losses = 0;
    for (int r = 0; r < world; ++r) {
      const BruteMoe::Output expected = run.brute(run.x[r], kSequences);
      losses += expected.losses;
      for (int64_t t = 0; t < kTokens; ++t) {
        const int64_t row = r * kTokens + t;
        expect_near(actual.y[row], expected.y[t], 1e-12, "row " + std::to_string(row));
      }
    }
    EXPECT_NEAR(actual.losses, losses, 1e-12);

    for (auto& [name, values] : run.brute.weights) {
      Vector slopes;
      for (double& value : values) slopes.push_back(run.slope(value));
      expect_near(actual.gradients.at(name), slopes, 1e-7, "gradient of " + name);
    }
    for (int64_t row = 0; row < world * kTokens; ++row) {
      Vector slopes;
      for (double& value : run.x[row / kTokens][row % kTokens]) slopes.push_back(run.slope(value));
      expect_near(actual.dx[row], slopes, 1e-7, "gradient of row " + std::to_string(row));
    }
  }
  EXPECT_GT(shadows, 0);
}

INSTANTIATE_TEST_SUITE_P(Variants, MoeLayerTest, testing::ValuesIn(kVariants),
                         [](const auto& info) { return std::string(info.param.name); });

// The largest of all coordinates' differences hides nothing only if drops do happen.
TEST(MoeLayer, TheVariantsWithDropsDrop) {
  MoeOptions options = five_experts();
  options.capacity_factor = 0.7;
  BruteRun run(options, 1);
  int64_t dropped = 0;
  for (const auto& choice : run.brute(run.x[0], 1).choices)
    dropped += std::count(choice.expert.begin(), choice.expert.end(), -1);
  EXPECT_GE(dropped, 2);
  EXPECT_LE(dropped, 14);
}

TEST(MoeLayer, OneExpertIsTheDenseFeedForward) {
  for (const bool pre_softmax : {true, false}) {
    MoeOptions options = five_experts();
    options.num_experts = options.top_k = 1;
    options.pre_softmax = pre_softmax;
    options.balance.clear();
    options.z_loss_coeff = 0;
    const Net moe(options, axis_of(make_self()));
    ParameterStore store;
    const FeedForward dense(store, kPrefix + "experts.0.", kHidden, 4, DType::kF64, 0.6);
    store.materialize(Device::kCpu, 3, true);  // weights are seeded by name

    const Var x(tokens_of(0), true), x_dense(tokens_of(0), true);
    ForwardContext context{.training = true, .losses = {}};
    const Var y = moe.layer(x, context), y_dense = dense(x_dense);
    backward(y, seed_of(0));
    backward(y_dense, seed_of(0));
    EXPECT_LT(relative_error(y.value(), y_dense.value()), 1e-14);
    EXPECT_LT(relative_error(x.grad(), x_dense.grad()), 1e-14);
    for (const Parameter& p : store.parameters()) {
      for (const Parameter& q : moe.store.parameters()) {
        if (q.spec.name != p.spec.name) continue;
        EXPECT_LT(relative_error(q.var.grad().view(p.spec.shape), p.var.grad()), 1e-14) << p.spec.name;
      }
    }
  }
}

TEST(MoeLayer, SelectionBiasChoosesButDoesNotWeigh) {
  MoeOptions options = five_experts();
  options.expert_bias = true;
  const std::vector<float> bias{0.5f, 0, -0.5f, 0.25f, 0};
  run_ranks(2, [&](const Group& group) {
    const Net net(options, axis_of(group), DType::kF32);
    upload(net.store.buffers()[0].var.value().raw(), Device::kCpu, bias.data(), 20);
    ForwardContext context;
    const Var y = net.layer(cast(Var(tokens_of(group->rank())), DType::kF32), context);
    BruteRun run(options, 2);
    run.brute.bias.assign(bias.begin(), bias.end());
    const BruteMoe::Output expected = run.brute(run.x[group->rank()], 1);
    const Vector actual = cast(y, DType::kF64).value().to_vector<double>();
    for (size_t i = 0; i < actual.size(); ++i)
      EXPECT_NEAR(actual[i], expected.y[i / kHidden][i % kHidden], 1e-5);
    run.brute.bias.clear();
    const BruteMoe::Output unbiased = run.brute(run.x[group->rank()], 1);
    int64_t moved = 0;
    for (size_t t = 0; t < kTokens; ++t) moved += expected.choices[t].expert != unbiased.choices[t].expert;
    EXPECT_GT(moved, 0);
  });
}

}  // namespace
}  // namespace switchyard::test
