#include "trainer/job/resume.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace switchyard {

namespace {

// The member, or 0 where there is no such count.
uint64_t count_in(const nlohmann::json& state, const char* key) {
  const auto found = state.find(key);
  return found != state.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

void refuse_other_batches(const nlohmann::json& state, const std::string& where, const TrainOptions& train) {
  const uint64_t step = count_in(state, "step"), samples = count_in(state, "samples");
  if (step == 0 || samples == step * static_cast<uint64_t>(train.global_batch_size)) return;
  fail(Fault::kUsage, where, ": cannot resume: train.global_batch_size is ", samples / step,
       " in the checkpoint and ", train.global_batch_size,
       " in the config, and samples are counted by it; train.init_from starts a new run with these weights");
}

// -1: not a name that a sample has.
int64_t step_of_sample(const std::string& name) {
  constexpr std::string_view kBegin = "step_", kEnd = ".txt";
  if (!name.starts_with(kBegin) || !name.ends_with(kEnd)) return -1;
  const char *begin = name.data() + kBegin.size(), *end = name.data() + name.size() - kEnd.size();
  int64_t step = -1;
  const auto [next, error] = std::from_chars(begin, end, step);
  return error == std::errc() && next == end && end - begin >= 8 ? step : -1;
}

}  // namespace

void check_same_run(CheckpointReader& reader, const Config& config, uint64_t data_fingerprint,
                    const Warn& warn) {
  if (!reader.has_text("state.json")) return;
  const auto state = nlohmann::json::parse(reader.text("state.json"), nullptr, false);
  if (!state.is_object()) return;
  const std::string where = reader.directory().string();
  refuse_other_batches(state, where, config.train);
  const auto compare = [&](const char* name, const char* key, uint64_t now, const char* effect) {
    if (!state.contains(key) || count_in(state, key) == now) return;
    warn(concat(where, ": ", name, " was ", count_in(state, key), " and is ", now, " now: ", effect));
  };
  compare("seed", "seed", config.seed,
          "samples and noise go on in an order as if it had been so from the start");
  compare("train.sequence_length", "sequence_length", static_cast<uint64_t>(config.train.sequence_length),
          "samples go on, and tokens are counted, as if it had been so from the start");
  if (state.contains("data_fingerprint") && state["data_fingerprint"] != hex_of(data_fingerprint))
    warn(where + ": was trained on other data than this config names");
}

void put(nlohmann::ordered_json& state, const ExpertState& experts) {
  state["expert_slots"] = experts.slots;
  state["expert_loads"] = experts.loads;
}

std::optional<ExpertState> read_expert_state(const std::string& text, const std::string& where, size_t layers,
                                             int64_t experts) {
  const auto state = nlohmann::json::parse(text, nullptr, false);
  if (!state.is_object() || !state.contains("expert_slots")) return std::nullopt;
  const auto lists = [&](const char* key) {
    std::vector<std::vector<int64_t>> found;
    try {
      found = state.value(key, found);
    } catch (const nlohmann::json::exception&) {
      found.clear();
    }
    const bool right =
        found.size() == layers && std::all_of(found.begin(), found.end(),
                                              [&](const auto& list) { return std::ssize(list) == experts; });
    if (!right) {
      fail(Fault::kData, where, ": ", key, " is not ", layers, " lists of ", experts, " numbers");
    }
    return found;
  };
  ExpertState experts_at{lists("expert_slots"), lists("expert_loads")};
  for (const Slots& slots : experts_at.slots) {
    if (!is_permutation(slots))
      fail(Fault::kData, where, ": expert_slots: an expert is missing or stands twice");
  }
  return experts_at;
}

void drop_later_samples(const std::filesystem::path& samples, int64_t last_step) {
  std::vector<std::filesystem::path> later;
  for (const auto& entry : std::filesystem::directory_iterator(samples)) {
    if (step_of_sample(entry.path().filename().string()) > last_step) later.push_back(entry.path());
  }
  for (const auto& path : later) {
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error) fail_writing(path, error.value());
  }
}

}  // namespace switchyard
