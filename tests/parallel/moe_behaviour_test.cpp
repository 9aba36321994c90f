// What the MoE layer promises beside its sums: drops, losses, unused experts,
// jitter, bias, recomputation, load.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/gradcheck.h"
#include "tests/support/moe_net.h"

namespace switchyard::test {
namespace {

constexpr int64_t kHidden = MoeNet::kHidden, kTokens = 8;

MoeOptions four_experts() {
  MoeOptions o;
  o.num_experts = 4;
  o.top_k = 2;
  o.moe_intermediate_size = 4;
  return o;
}

struct Net : MoeNet {
  using MoeNet::MoeNet;

  const Var& parameter(const std::string& name) const {
    for (const Parameter& p : store.parameters()) {
      if (p.spec.name == "mlp." + name) return p.var;
    }
    throw Error(Fault::kInternal, "no parameter " + name);
  }
  std::vector<float> buffer() const { return store.buffers()[0].var.value().to_vector<float>(); }
};

Tensor tokens(int64_t count = kTokens, uint64_t seed = 100) { return random_tensor({count, kHidden}, seed); }

std::vector<double> output(const Net& net, const Tensor& x, ForwardContext context) {
  NoGrad guard;
  return net.layer(Var(x), context).value().to_vector<double>();
}

// Tokens 0 to 3 choose expert 0 first; 2 and 3 have the highest weights there. Capacity 2.
TEST(Drops, KeepTheHighestWeightsOrTheFirstPositions) {
  const Tensor expert = Tensor::from<int32_t>({0, 1, 0, 2, 0, 1, 0, 1, 1, 0}, {5, 2});
  const Tensor weight = Tensor::from<double>({.6, .4, .7, .3, .9, .1, .8, .2, .5, .95}, {5, 2});
  auto kept = [&](kernels::DropPolicy policy) {
    return drop_over_capacity(expert, weight, 3, 2, policy).to_vector<int32_t>();
  };
  EXPECT_EQ(kept(kernels::DropPolicy::kProbs), (std::vector<int32_t>{-1, 1, -1, 2, 0, -1, -1, -1, 1, 0}));
  EXPECT_EQ(kept(kernels::DropPolicy::kPosition), (std::vector<int32_t>{0, 1, 0, 2, -1, -1, -1, -1, 1, -1}));
}

TEST(Drops, HappenInTrainingOnlyUnlessAskedFor) {
  MoeOptions options = four_experts();
  options.capacity_factor = 0.5;
  options.eval_capacity_factor = 0.25;
  auto kept = [&](bool training) {
    LoadRecorder loads;
    output(Net(options), tokens(), {.training = training, .losses = {}, .loads = &loads});
    return loads.take()[0].kept;
  };
  for (const int64_t n : kept(true)) EXPECT_LE(n, 2);
  for (const int64_t n : kept(false)) EXPECT_LE(n, 1);
  options.eval_capacity_factor = 0;
  int64_t pairs = 0;
  for (const int64_t n : kept(false)) pairs += n;
  EXPECT_EQ(pairs, 2 * kTokens);
}

TEST(BalanceLoss, UniformScoresGiveTheCoefficientOrNothing) {
  for (const auto& [kind, expected] : {std::pair{Balance::kAux, 0.3},
                                       {Balance::kSequence, 0.3},
                                       {Balance::kGlobal, 0.3},
                                       {Balance::kKl, 0.0},
                                       {Balance::kCv, 0.0},
                                       {Balance::kEntropy, 0.0}}) {
    MoeOptions options = four_experts();
    options.balance = {kind};
    options.aux_loss_coeff = 0.3;
    const Net net(options);
    net.parameter("gate").value().zero();
    ForwardContext context{.training = true, .sequences = 2, .losses = {}};
    net.layer(Var(tokens()), context);
    ASSERT_EQ(context.losses.size(), 1u);
    EXPECT_NEAR(context.losses[0].value().to_vector<double>()[0], expected, 1e-14) << static_cast<int>(kind);
  }
}

TEST(BalanceLoss, IsNotAddedOutsideTraining) {
  MoeOptions options = four_experts();
  options.balance = {Balance::kAux};
  options.aux_loss_coeff = options.z_loss_coeff = 0.3;
  ForwardContext context;
  Net(options).layer(Var(tokens()), context);
  EXPECT_TRUE(context.losses.empty());
}

// Every token goes to expert 0: rank 1's experts see no row, and yet their gradients
// are there, zero, and announced.
TEST(UnusedExperts, HaveGradientsOfExactlyZero) {
  MoeOptions options = four_experts();
  options.top_k = 1;
  options.normalize_topk = false;
  run_ranks(2, [&](const Group& group) {
    const Net net(options, group);
    std::vector<double> router(4 * kHidden, 0.0);
    std::fill_n(router.begin(), kHidden, 5.0);
    net.parameter("gate").set_value(Tensor::from(router, {4, kHidden}));
    std::vector<double> positive = tokens().to_vector<double>();
    for (double& v : positive) v = std::abs(v) + 0.1;
    int announced = 0;
    for (const char* name : {"experts.gate_up", "experts.down"}) {
      net.parameter(name).set_grad({});
      net.parameter(name).set_hook([&] { ++announced; });
    }
    ForwardContext context{.training = true, .losses = {}};
    backward(net.layer(Var(Tensor::from(positive, {kTokens, kHidden}), true), context), tokens(kTokens, 7));
    EXPECT_EQ(announced, 2);
    for (const char* name : {"experts.gate_up", "experts.down"}) {
      ASSERT_TRUE(net.parameter(name).grad().defined()) << name;
      const auto gradient = net.parameter(name).grad().to_vector<double>();
      const auto one = static_cast<int64_t>(gradient.size()) / 2;
      for (int64_t i = group->rank() == 0 ? one : 0; i < 2 * one; ++i)
        ASSERT_EQ(gradient[i], 0) << name << " " << i;
      EXPECT_EQ(gradient[0] == 0, group->rank() == 1);
    }
  });
}

// Noise of a layer whose options switch it on: by the global token, with other keys another.
void expect_noise_of_the_global_token(const MoeOptions& options) {
  const Tensor x = tokens();
  const Net net(options);
  const ForwardContext all{.training = true, .noise_key = 9, .first_token = 16, .losses = {}};
  const std::vector<double> whole = output(net, x, all);
  run_ranks(2, [&](const Group& group) {
    ForwardContext half = all;
    half.first_token += group->rank() * 4;
    const std::vector<double> part = output(Net(options, group), x.rows(group->rank() * 4, 4), half);
    for (size_t i = 0; i < part.size(); ++i)
      EXPECT_NEAR(part[i], whole[group->rank() * part.size() + i], 1e-13);
  });
  ForwardContext other = all;
  other.noise_key = 10;
  EXPECT_NE(output(net, x, other), whole);
}

TEST(Jitter, DependsOnTheGlobalTokenAndNotOnTheCut) {
  MoeOptions options = four_experts();
  options.jitter_eps = 0.3;
  expect_noise_of_the_global_token(options);
}

TEST(Jitter, IsForTrainingOnly) {
  MoeOptions options = four_experts();
  options.jitter_eps = 0.3;
  const Tensor x = tokens();
  const Net jittered(options);
  const ForwardContext evaluation{.training = false, .noise_key = 9, .losses = {}};
  options.jitter_eps = 0;
  EXPECT_EQ(output(jittered, x, evaluation), output(Net(options), x, evaluation));
}

TEST(NoisyGate, DependsOnTheGlobalTokenAndNotOnTheCut) {
  MoeOptions options = four_experts();
  options.noisy_gate = true;
  expect_noise_of_the_global_token(options);
}

TEST(NoisyGate, IsForTrainingOnly) {
  MoeOptions options = four_experts();
  options.noisy_gate = true;
  const Net noisy(options);
  options.noisy_gate = false;
  const Net plain(options);
  const ForwardContext training{.training = true, .losses = {}};
  EXPECT_NE(output(noisy, tokens(), training), output(plain, tokens(), training));
  EXPECT_EQ(output(noisy, tokens(), {}), output(plain, tokens(), {}));
}

// softplus(0) = ln 2 is what the noise starts with.
TEST(NoisyGate, WeightsStartAtZeroAndHaveAGradient) {
  MoeOptions options = four_experts();
  options.noisy_gate = true;
  const Net net(options);
  const Var& weight = net.parameter("gate.noise");
  EXPECT_EQ(weight.value().to_vector<double>(), std::vector<double>(4 * kHidden));
  ForwardContext context{.training = true, .noise_key = 4, .losses = {}};
  backward(net.layer(Var(tokens()), context), tokens(kTokens, 7));
  double largest = 0;
  for (const double g : weight.grad().to_vector<double>()) largest = std::max(largest, std::abs(g));
  EXPECT_GT(largest, 1e-3);
}

TEST(SelectionBias, MovesByTheRateTowardsTheMean) {
  MoeOptions options = four_experts();
  options.expert_bias = true;
  options.bias_update_rate = 0.125;
  const Net net(options, make_self(), DType::kF32);
  net.layer.update_routing({.layer = 1, .assigned = {7, 4, 4, 1}, .kept = {2, 2, 2, 1}});
  EXPECT_EQ(net.buffer(), (std::vector<float>{-0.125f, 0, 0, 0.125f}));
  net.layer.update_routing({.layer = 1, .assigned = {4, 4, 5, 3}, .kept = {2, 2, 2, 1}});
  EXPECT_EQ(net.buffer(), (std::vector<float>{-0.125f, 0, -0.125f, 0.25f}));
}

TEST(GlobalBalance, KeepsTheSharesOfTheLastGlobalBatch) {
  MoeOptions options = four_experts();
  options.balance = {Balance::kGlobal};
  const Net net(options, make_self(), DType::kF32);
  EXPECT_EQ(net.buffer(), std::vector<float>(4));
  net.layer.update_routing({.layer = 1, .assigned = {7, 4, 4, 1}, .kept = {2, 2, 2, 1}});
  EXPECT_EQ(net.buffer(), (std::vector<float>{0.1875f, 0, 0, -0.1875f}));
  net.layer.update_routing({.layer = 1, .assigned = {0, 0, 8, 0}, .kept = {0, 0, 8, 0}});
  EXPECT_EQ(net.buffer(), (std::vector<float>{-0.25f, -0.25f, 0.75f, -0.25f}));
}

TEST(Recompute, GivesTheSameBitsAndCountsOnce) {
  MoeOptions options = four_experts();
  options.jitter_eps = 0.1;
  options.noisy_gate = true;
  options.capacity_factor = 0.8;
  options.balance = {Balance::kAux};
  options.aux_loss_coeff = 0.3;
  const Net plain(options), again(options);
  LoadRecorder plain_loads, again_loads;
  const Var x(tokens(), true), x_again(tokens(), true);
  ForwardContext context{.training = true, .noise_key = 4, .losses = {}, .loads = &plain_loads};
  const Var y = plain.layer(x, context);
  backward(y, tokens(kTokens, 7));

  auto f = [&](const Vars& inputs) {
    ForwardContext inner{.training = true, .noise_key = 4, .losses = {}, .loads = &again_loads};
    return Vars{again.layer(inputs[0], inner)};
  };
  const Var y_again = recompute(f, {x_again}, again.parameters())[0];
  backward(y_again, tokens(kTokens, 7));

  EXPECT_EQ(y_again.value().to_vector<double>(), y.value().to_vector<double>());
  EXPECT_EQ(x_again.grad().to_vector<double>(), x.grad().to_vector<double>());
  for (size_t i = 0; i < plain.parameters().size(); ++i) {
    EXPECT_EQ(again.parameters()[i].grad().to_vector<double>(),
              plain.parameters()[i].grad().to_vector<double>())
        << i;
  }
  const LayerLoad once = again_loads.take().at(0);
  EXPECT_EQ(once.assigned, plain_loads.take().at(0).assigned);
  EXPECT_EQ(once.pairs(), 2 * kTokens);
  EXPECT_EQ(once.tokens, kTokens);
}

TEST(Load, FiguresFollowFromTheCounts) {
  const LayerLoad load{
      .layer = 3, .assigned = {9, 3, 0, 0}, .kept = {4, 3, 0, 0}, .entropy_sum = 6, .tokens = 4};
  EXPECT_EQ(load.pairs(), 12);
  EXPECT_DOUBLE_EQ(load.max_violation(), 2);
  EXPECT_DOUBLE_EQ(load.drop_rate(), 5.0 / 12);
  EXPECT_DOUBLE_EQ(load.router_entropy(), 1.5);
  EXPECT_EQ(load.dead_experts(), 2);
}

TEST(Load, NothingRoutedIsNotANumberGoneWrong) {
  const LayerLoad load{.layer = 0, .assigned = {0, 0}, .kept = {0, 0}};
  EXPECT_EQ(load.max_violation(), 0);
  EXPECT_EQ(load.drop_rate(), 0);
  EXPECT_EQ(load.router_entropy(), 0);
}

TEST(Load, IsSummedOverMicroBatchesAndRanks) {
  run_ranks(3, [](const Group& group) {
    LoadRecorder recorder;
    const int64_t r = group->rank();
    for (const int64_t layer : {5, 2, 5}) {
      recorder.add(layer, {Tensor::from<int64_t>({r, 1}, {2}),
                           Tensor::from<int64_t>({0, 1}, {2}),
                           Tensor::from<double>({0.5, 1.5}, {2}),
                           Tensor::from<double>({0.25}, {1}),
                           {}});
    }
    std::vector<LayerLoad> loads = recorder.take();
    reduce(loads, group);
    ASSERT_EQ(loads.size(), 2u);
    EXPECT_EQ(loads[0].layer, 2);
    EXPECT_EQ(loads[1].layer, 5);
    EXPECT_EQ(loads[1].assigned, (std::vector<int64_t>{6, 6}));
    EXPECT_EQ(loads[1].kept, (std::vector<int64_t>{0, 6}));
    EXPECT_EQ(loads[1].tokens, 12);
    EXPECT_DOUBLE_EQ(loads[1].entropy_sum, 12);
    EXPECT_DOUBLE_EQ(loads[1].aux_loss, 1.5);
    EXPECT_EQ(loads[1].z_loss, 0);
    EXPECT_EQ(recorder.take()[1].pairs(), 0);
  });
}

TEST(Load, EntropyOfUniformScoresIsTheLogarithmOfTheExperts) {
  const Net net(four_experts());
  net.parameter("gate").value().zero();
  LoadRecorder loads;
  output(net, tokens(), {.training = true, .losses = {}, .loads = &loads});
  const LayerLoad load = loads.take().at(0);
  EXPECT_NEAR(load.router_entropy(), std::log(4.0), 1e-12);
  EXPECT_EQ(load.assigned, (std::vector<int64_t>{kTokens, kTokens, 0, 0}));  // ties go to the lowest
}

}  // namespace
}  // namespace switchyard::test
