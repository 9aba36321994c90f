#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "parallel/comm/make.h"

namespace switchyard {
namespace {

// How one launcher calls things in the environment of the processes it starts.
struct Names {
  const char* launcher;
  const char *size, *rank;
  const char *local_size, *local_rank;
};

constexpr Names kLaunchers[] = {
    {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"mpiexec", "PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID"},
    {"srun", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID"},
    {"torchrun", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"},
};

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<int> environment_number(const char* name) {
  const char* text = std::getenv(name);
  return text ? number(text) : std::nullopt;
}

// Slurm's list of tasks per node, "2(x3),1": nodes 0-2 have 2, node 3 has 1.
std::optional<int> tasks_of_node(std::string_view list, int node) {
  while (!list.empty()) {
    const std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), entry.size() + 1));
    const size_t times = entry.find("(x");
    const auto tasks = number(entry.substr(0, times));
    const auto nodes = times == entry.npos ? 1 : number(entry.substr(times + 2, entry.size() - times - 3));
    if (!tasks || !nodes) return std::nullopt;
    if (node < *nodes) return tasks;
    node -= *nodes;
  }
  return std::nullopt;
}

std::optional<int> local_size(const Names& names) {
  const char* text = std::getenv(names.local_size);
  if (!text) return std::nullopt;
  return tasks_of_node(text, environment_number("SLURM_NODEID").value_or(0));
}

}  // namespace

LaunchInfo launch_info() {
  for (const Names& names : kLaunchers) {
    // A Slurm allocation has these names too; only a step (srun) starts one process a task.
    if (names.launcher == std::string_view("srun") && !std::getenv("SLURM_STEP_ID")) continue;
    const auto size = environment_number(names.size);
    if (!size || *size < 1) continue;
    // Several processes of which this one is told no place, or none that there is: the first, so that it is
    // not taken for a job of one.
    auto rank = environment_number(names.rank);
    if (*size > 1 && (!rank || *rank >= *size)) rank = 0;
    if (!rank || *rank >= *size) continue;
    // Without a word on nodes, there is one.
    return {.world_size = *size,
            .rank = *rank,
            .local_size = std::max(1, local_size(names).value_or(*size)),
            .local_rank = environment_number(names.local_rank).value_or(*rank),
            .launcher = names.launcher};
  }
  return {.launcher = "none"};
}

}  // namespace switchyard
