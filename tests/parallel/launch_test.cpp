#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/make.h"

namespace switchyard {
namespace {

// Sees only the launcher's variables that a test sets.
class Launch : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : kNames) {
      if (const char* value = std::getenv(name)) saved_.emplace_back(name, value);
      unsetenv(name);
    }
  }
  void TearDown() override {
    for (const char* name : kNames) unsetenv(name);
    for (const auto& [name, value] : saved_) setenv(name.c_str(), value.c_str(), 1);
  }
  static LaunchInfo with(const std::vector<std::pair<const char*, const char*>>& variables) {
    for (const auto& [name, value] : variables) setenv(name, value, 1);
    return launch_info();
  }

 private:
  static constexpr const char* kNames[] = {"OMPI_COMM_WORLD_SIZE",
                                           "OMPI_COMM_WORLD_RANK",
                                           "OMPI_COMM_WORLD_LOCAL_SIZE",
                                           "OMPI_COMM_WORLD_LOCAL_RANK",
                                           "PMI_SIZE",
                                           "PMI_RANK",
                                           "MPI_LOCALNRANKS",
                                           "MPI_LOCALRANKID",
                                           "SLURM_STEP_ID",
                                           "SLURM_STEP_NUM_TASKS",
                                           "SLURM_NTASKS",
                                           "SLURM_PROCID",
                                           "SLURM_STEP_TASKS_PER_NODE",
                                           "SLURM_LOCALID",
                                           "SLURM_NODEID",
                                           "WORLD_SIZE",
                                           "RANK",
                                           "LOCAL_WORLD_SIZE",
                                           "LOCAL_RANK"};
  std::vector<std::pair<std::string, std::string>> saved_;
};

void expect_launch(const LaunchInfo& info, const char* launcher, int size, int rank, int local_size,
                   int local_rank) {
  EXPECT_EQ(info.launcher, launcher);
  EXPECT_EQ(info.world_size, size);
  EXPECT_EQ(info.rank, rank);
  EXPECT_EQ(info.local_size, local_size);
  EXPECT_EQ(info.local_rank, local_rank);
}

TEST_F(Launch, AloneIsAWorldOfOne) { expect_launch(launch_info(), "none", 1, 0, 1, 0); }

TEST_F(Launch, ReadsOpenMpi) {
  expect_launch(with({{"OMPI_COMM_WORLD_SIZE", "8"},
                      {"OMPI_COMM_WORLD_RANK", "5"},
                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}}),
                "mpirun", 8, 5, 4, 1);
}

TEST_F(Launch, SurvivesNumbersThatCannotBe) {
  expect_launch(with({{"WORLD_SIZE", "1"}, {"RANK", "0"}, {"LOCAL_WORLD_SIZE", "0"}}), "torchrun", 1, 0, 1,
                0);
  expect_launch(with({{"WORLD_SIZE", "0"}, {"RANK", "0"}, {"LOCAL_WORLD_SIZE", "1"}}), "none", 1, 0, 1, 0);
  // Not a job of one: MPI will say that it knows no other.
  expect_launch(with({{"WORLD_SIZE", "2"}, {"RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}}), "torchrun", 2, 0, 2,
                0);
}

TEST_F(Launch, ReadsASlurmStepWithUnevenNodes) {
  expect_launch(with({{"SLURM_STEP_ID", "0"},
                      {"SLURM_STEP_NUM_TASKS", "7"},
                      {"SLURM_PROCID", "6"},
                      {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                      {"SLURM_NODEID", "3"},
                      {"SLURM_LOCALID", "0"}}),
                "srun", 7, 6, 1, 0);
}

TEST_F(Launch, TakesASlurmAllocationWithoutAStepForNoLauncher) {
  expect_launch(with({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}), "none", 1, 0, 1, 0);
}

TEST_F(Launch, ReadsTorchrun) {
  expect_launch(with({{"WORLD_SIZE", "4"}, {"RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}}),
                "torchrun", 4, 2, 2, 0);
}

TEST_F(Launch, WithoutWordsOnNodesThereIsOne) {
  expect_launch(with({{"PMI_SIZE", "3"}, {"PMI_RANK", "2"}}), "mpiexec", 3, 2, 3, 2);
}

TEST_F(Launch, SeveralProcessesWithoutAPlaceAreNoJobOfOne) {
  expect_launch(with({{"WORLD_SIZE", "4"}, {"RANK", "four"}}), "torchrun", 4, 0, 4, 0);
}

TEST_F(Launch, WorldOfOneNeedsNoMpi) {
  setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
  setenv("OMPI_COMM_WORLD_RANK", "0", 1);
  EXPECT_EQ(make_world({})->size(), 1);
}

}  // namespace
}  // namespace switchyard
