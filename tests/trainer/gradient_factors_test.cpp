// Experts' gradients that stay factors until the optimizer uses them: the same training as with gradients.
#include <numeric>

#include "parallel/comm/make.h"
#include "parallel/data/shares.h"
#include "tests/trainer/interrupted_run.h"
#include "trainer/job/step.h"

namespace switchyard::test {
namespace {

// Five steps of one micro-batch each on one rank.
class ShortTraining {
 public:
  ShortTraining(const Config& config, bool factors)
      : config_(config),
        mesh_(make_mesh(make_self(), 1, Device::kCpu)),
        model_(store_, config_.model, compute_dtype(config_.precision), mesh_.ep) {
    store_.materialize(Device::kCpu, 1, true, true, segment_options(mesh_, config_.optimizer.moments));
    TrainStep stepper(config_, model_, store_, mesh_);
    for (const Parameter& p : store_.parameters()) {
      if (!factors) p.var.allow_grad_factors(false);
      p.var.set_hook([&] { left_ += p.var.grad_factors().has_value(); });
    }
    for (int64_t step = 1; step <= 5; ++step)
      norms_.push_back(stepper.run(step, [&](int64_t) { return batch(step); }).grad_norm);
  }

  int left() const { return left_; }
  const std::vector<double>& norms() const { return norms_; }

  // Whether all parameters have the same bits.
  bool operator==(const ShortTraining& other) const {
    for (size_t i = 0; i < store_.segments().size(); ++i)
      if (bytes(store_.segments()[i].value) != bytes(other.store_.segments()[i].value)) return false;
    return true;
  }

 private:
  static std::string bytes(const Tensor& t) { return {static_cast<const char*>(t.raw()), size_t(t.bytes())}; }

  Batch batch(int64_t step) const {
    const int64_t rows = config_.train.micro_batch_size, seq = config_.train.sequence_length;
    std::vector<int32_t> tokens(rows * seq);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * i + 7 * step * i) % 61);
    return {tokens, tokens, {}, rows, seq};
  }

  Config config_;
  Mesh mesh_;
  ParameterStore store_;
  Transformer model_;
  int left_ = 0;
  std::vector<double> norms_;
};

class FactoredGradients : public InterruptedRun {
 protected:
  // 8 sequences of 32 tokens, each with 2 of 16 experts: 32 rows an expert in the mean, in one micro-batch.
  Config whole(int64_t ranks = 1) {
    Config c = config(20);
    c.train.micro_batch_size = 8 / ranks;
    c.model.moe->num_experts = 16;
    c.model.moe->capacity_factor = 0;
    c.parallel.shadow_pairs = 2;
    c.model.moe->aux_loss_coeff = 0;  // which is of a micro-batch, so not the same in smaller ones
    return c;
  }

  void SetUp() override {
    if (!kernels::sums_squares<float>(Cpu{}) || !kernels::sums_squares<BF16>(Cpu{}))
      GTEST_SKIP() << "this processor's products sum no squares up, so no gradient is left";
  }
};

TEST_F(FactoredGradients, TrainWithTheBitsOfGradients) {
  for (const Precision precision : {Precision::kFP32, Precision::kBF16}) {
    for (const DType moments : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::string(name_of(compute_dtype(precision))) + ", moments " + name_of(moments));
      Config c = whole();
      c.precision = precision;
      c.optimizer.moments = moments;
      c.optimizer.clip_norm = 0;
      const ShortTraining factors(c, true), gradients(c, false);
      EXPECT_EQ(factors.left(), 5 * 2 * 2) << "steps, layers, matrices";
      EXPECT_EQ(gradients.left(), 0);
      EXPECT_TRUE(factors == gradients);
      for (size_t i = 0; i < 5; ++i)
        EXPECT_NEAR(factors.norms()[i], gradients.norms()[i], 1e-6 * gradients.norms()[i]);
    }
  }
}

// Where activations are computed again, memory is to be saved.
TEST_F(FactoredGradients, AreNotKeptBesideRecomputation) {
  Config c = whole();
  c.model.recompute = true;
  EXPECT_EQ(ShortTraining(c, true).left(), 0);
}

// One rank, and two of which each holds half of the experts, leave them; two with all experts do not.
TEST_F(FactoredGradients, LayoutsGiveTheSameTraining) {
  const Steps alone = train(whole(), {1, 1}, folder_ / "alone");
  for (const Layout& layout : {Layout{2, 2}, Layout{2, 1}}) {
    SCOPED_TRACE(to_string(layout));
    const std::string run_dir = folder_ / to_string(layout);
    expect_same_training(train(whole(2), layout, run_dir), alone, 1e-5);
    // Copies' gradients are added to those that were left.
    EXPECT_EQ(sum_of_metric(run_dir, "experts_shadowed") > 0, layout.expert > 1);
  }
}

}  // namespace
}  // namespace switchyard::test
