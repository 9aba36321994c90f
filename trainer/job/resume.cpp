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
       " in the config, and samples are counted by it; another name, or --resume never, starts a new run "
       "(train.init_from: with these weights)");
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

ExpertState read_layer(const nlohmann::json& layer, const std::string& where, int64_t experts) {
  const auto numbers = [&](const char* key) {
    std::vector<int64_t> found;
    try {
      layer.at(key).get_to(found);
    } catch (const nlohmann::json::exception&) {
      found.clear();
    }
    if (std::ssize(found) != experts) fail(Fault::kData, where, ".", key, " is not ", experts, " numbers");
    return found;
  };
  const auto slots = [&](const char* key) {
    Slots found = numbers(key);
    if (!is_permutation(found)) fail(Fault::kData, where, ".", key, ": an expert is missing or stands twice");
    return found;
  };
  ExpertState state{slots("slots"), {numbers("loads"), slots("tried")}};
  if (!layer.contains("spared") || !layer["spared"].is_number_integer())
    fail(Fault::kData, where, ".spared is not a whole number");
  state.trial.spared = layer["spared"];
  return state;
}

}  // namespace

void check_same_run(CheckpointReader& reader, const Config& config, uint64_t data_fingerprint,
                    const Warn& warn) {
  if (!reader.has_text(kStateText)) return;
  const auto state = nlohmann::json::parse(reader.text(kStateText), nullptr, false);
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
  if (state.contains("shuffle") && state["shuffle"] != config.data.shuffle)
    warn(where + ": data.shuffle was another: samples go on in an order as if it had been so from the start");
  if (state.contains("data_fingerprint") && state["data_fingerprint"] != hex_of(data_fingerprint))
    warn(where + ": was trained on other data than this config names");
}

void put(nlohmann::ordered_json& state, const std::vector<ExpertState>& layers) {
  auto& list = state["experts"] = nlohmann::ordered_json::array();
  for (const auto& [slots, trial] : layers)
    list.push_back(
        {{"slots", slots}, {"loads", trial.loads}, {"tried", trial.tried}, {"spared", trial.spared}});
}

std::vector<ExpertState> read_expert_state(const std::string& text, const std::string& where, size_t layers,
                                           int64_t experts) {
  const auto state = nlohmann::json::parse(text, nullptr, false);
  if (!state.is_object() || !state.contains("experts")) return {};
  const auto& list = state["experts"];
  if (!list.is_array() || list.size() != layers)
    fail(Fault::kData, where, ": experts is not a list of ", layers, " layers");
  std::vector<ExpertState> found;
  for (size_t i = 0; i < layers; ++i)
    found.push_back(read_layer(list[i], where + ": experts[" + std::to_string(i) + "]", experts));
  return found;
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
