// What lies in a run's directory against the config that is to go on with it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "parallel/expert/rebalance.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/config.h"

namespace switchyard {

// Compares the checkpoint's state.json (none: nothing is compared) with the config. Another batch size is
// Error{kUsage}: samples are counted as steps times sequences a step, so some would be passed over or come
// again. Another seed, sequence length, shuffle or data is legal and goes to `warn`: the order of samples is then as
// if it had been so from the start.
void check_same_run(CheckpointReader& reader, const Config& config, uint64_t data_fingerprint,
                    const Warn& warn);

// Where a layer's experts stood and what was seen of their loads; in state.json of runs that move experts.
struct ExpertState {
  Slots slots;
  ExpertTrial trial;
};
void put(nlohmann::ordered_json& state, const std::vector<ExpertState>& layers);
// From the text of a state.json, which `where` names. Empty: every expert stands in its own slot.
// Error{kData} where it is not so much for each of `layers` layers and `experts` experts.
std::vector<ExpertState> read_expert_state(const std::string& text, const std::string& where, size_t layers,
                                           int64_t experts);

// Removes step_NNNNNNNN.txt of steps after `last_step`, which will come again. Other files stay.
void drop_later_samples(const std::filesystem::path& samples, int64_t last_step);

}  // namespace switchyard
