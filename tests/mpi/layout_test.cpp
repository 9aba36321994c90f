// The layout does not change the training, with processes and MPI between the ranks.
#include <gtest/gtest.h>

#include "parallel/comm/make.h"
#include "tests/mpi/world.h"
#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"

namespace switchyard::test {
namespace {

// The folder of rank 0, known to all: the ranks of this test share a file system.
std::string shared_path(const Group& world, const std::string& path) {
  char text[256] = {};
  path.copy(text, sizeof text - 1);
  world->broadcast(text, sizeof text, DType::kU8, 0);
  return text;
}

class MpiLayout : public testing::TestWithParam<const char*> {};

TEST_P(MpiLayout, TrainsAsOneRankDoes) {
  const Group& world = mpi_world();
  const TemporaryFolder own;
  const std::string folder = shared_path(world, own / "");
  if (world->rank() == 0) write_training_tokens(folder + "tokens");
  world->barrier();
  const Config config = small_config(folder + "tokens", {GetParam(), "train { global_batch_size: 12 }"});

  if (world->rank() == 0) train_on(config, make_self(), 1, folder + "alone");
  for (const int expert : {1, world->size()}) {
    const std::string run = folder + "run" + std::to_string(expert);
    train_on(config, world, expert, run, false);
    if (world->rank() > 0) continue;
    expect_same_training(read_steps(run), read_steps(folder + "alone"), 1e-5);
    const bool shadows = config.parallel.shadow_pairs == 2 && expert > 1;
    EXPECT_EQ(sum_of_metric(run, "experts_shadowed") > 0, shadows);
  }
  world->barrier();  // before rank 0's folder goes
}

INSTANTIATE_TEST_SUITE_P(
    Variants, MpiLayout,
    testing::Values("", "model { moe { capacity_factor: 0.8 jitter_eps: 0.05 } }",
                    "model { recompute: true moe { num_experts: 6 dense_weight: 0.3 } }",
                    "parallel { shadow_pairs: 2 } model { moe { num_experts: 8 aux_loss_coeff: 0 } }"));

}  // namespace
}  // namespace switchyard::test
