#include "trainer/config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "configs/schema/experiment.pb.h"
#include "parallel/expert/shadows.h"
#include "trainer/config/conflicts.h"
#include "trainer/config/overrides.h"
#include "trainer/config/source.h"
#include "trainer/config/visitors.h"

namespace switchyard {
namespace {

using config::Conflict;
using config::Experiment;
using config::Source;

using Sources = std::vector<std::unique_ptr<Source>>;

// Reads into a scratch Config, so that a bad value is reported where this source has it.
void check_values(const Source& source) {
  Config scratch;
  config::read(source.root(), scratch, [&](const std::string& path, int index, const std::string& message) {
    source.fail_field(path, index, message);
  });
  for (size_t i = 0; i < scratch.data.blend.size(); ++i) {
    const std::string set = concat("data.blend[", i, "]");
    if (scratch.data.blend[i].path.empty()) source.fail_field(set, 0, set + ".path is missing");
  }
}

// At the field in the source that had the last word on it, else by the config's name.
[[noreturn]] void fail_conflict(const Conflict& conflict, const Sources& sources, const std::string& where) {
  const auto last =
      std::find_if(sources.rbegin(), sources.rend(), [&](const auto& s) { return s->has(conflict.path); });
  if (last != sources.rend()) (*last)->fail_field(conflict.path, 0, conflict.message);
  fail(Fault::kUsage, where, ": ", conflict.message);
}

// Defaults that depend on other fields. `given` is what the user wrote.
void derive_moe(MoeOptions& moe, const config::Moe& given) {
  if (moe.aux_loss_coeff > 0 && moe.balance.empty() && given.balance_size() == 0 &&
      given.has_aux_loss_coeff()) {
    moe.balance = {Balance::kAux};
  }
  if (moe.bias_update_rate > 0 && given.has_bias_update_rate() && !given.has_expert_bias())
    moe.expert_bias = true;
}

void derive_model(ModelOptions& model, const config::Model& given) {
  if (model.num_key_value_heads == 0) model.num_key_value_heads = model.num_attention_heads;
  const bool divides = model.num_attention_heads > 0 && model.hidden_size % model.num_attention_heads == 0;
  if (model.head_dim == 0 && divides) model.head_dim = model.hidden_size / model.num_attention_heads;
  if (model.moe) derive_moe(*model.moe, given.moe());
}

// With CUDA copies were not measured.
void derive_shadow_pairs(Config& config) {
  if (config.given->parallel().has_shadow_pairs() || config.device == Device::kCuda || !config.model.moe)
    return;
  config.parallel.shadow_pairs =
      shadow_pairs_that_pay(config.model.hidden_size, config.model.moe->moe_intermediate_size);
}

std::string read_file(const std::string& path) {
  constexpr size_t kMostBytes = 1 << 20;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    fail(Fault::kUsage, path, ": a directory, not a config file");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(Fault::kUsage, path, ": ", std::strerror(errno));
  std::string text(kMostBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) fail(Fault::kUsage, path, ": ", std::strerror(errno));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMostBytes) fail(Fault::kUsage, path, ": more than ", kMostBytes, " bytes are no config");
  return text;
}

Config combine(Sources sources, const Experiment& merged, const std::string& where) {
  for (const auto& source : sources) check_values(*source);
  const auto fail_at = [&](const std::string& path, int, const std::string& message) {
    fail_conflict({path, message}, sources, where);
  };
  Config config;
  config::read(merged, config, fail_at);
  config.given = std::make_shared<Experiment>(merged);
  config.schedule.steps = config.train.steps;
  if (config.train.init_from.empty()) {
    derive_model(config.model, merged.model());
    // One choice divided by itself would be the constant 1.
    const bool one_choice = config.model.moe && config.model.moe->top_k == 1;
    if (one_choice && !merged.model().moe().has_normalize_topk()) config.model.moe->normalize_topk = false;
    if (const auto conflict = config::find_conflict(config.model)) fail_conflict(*conflict, sources, where);
    if (const auto conflict = config::find_dead_router(config.model))
      fail_conflict(*conflict, sources, where);
    if (const auto conflict = config::find_layout_conflict(config)) fail_conflict(*conflict, sources, where);
  }
  if (const auto conflict = config::find_conflict(config)) fail_conflict(*conflict, sources, where);
  derive_shadow_pairs(config);
  return config;
}

// A field given against a checkpoint that has another tensor there.
void refuse_other_shapes(const ModelOptions& mine, const ModelOptions& checkpoint, const std::string& where) {
  for (const FieldDifference& difference : model_differences(mine, checkpoint)) {
    if (!difference.fixes_shape) continue;
    fail(Fault::kUsage, where, ": ", difference.field, " is ", difference.first, ", but ", difference.second,
         " in the checkpoint, and a tensor's shape depends on it");
  }
}

}  // namespace

bool Config::is_given(std::string_view path) const { return given && config::has_field(*given, path); }

Config load_config(const std::string& path, const std::vector<std::string>& sets,
                   const std::vector<std::string>& merges) {
  Config config = parse_config(read_file(path), path, sets, merges);
  const std::string stem = std::filesystem::path(path).stem().string();
  const bool usable = config::complaint("name", stem, {.text = config::Rule::Text::kName}).empty();
  if (!config.is_given("name") && usable) config.name = stem;
  return config;
}

Config parse_config(std::string_view text, const std::string& where, const std::vector<std::string>& sets,
                    const std::vector<std::string>& merges) {
  Sources sources;
  Experiment merged;
  const auto add_text = [&](const std::string& name, std::string content) {
    auto source =
        std::make_unique<Source>(name, std::move(content), std::make_unique<Experiment>(), Fault::kUsage);
    source->parse();
    merged.MergeFrom(source->root());
    sources.push_back(std::move(source));
  };
  add_text(where, std::string(text));
  for (const std::string& merge : merges) add_text("--merge", merge);
  for (const std::string& set : sets) {
    config::Override change = config::parse_override(set);
    config::apply(change, merged);
    sources.push_back(std::make_unique<Source>("--set " + set, std::move(change.value)));
  }
  return combine(std::move(sources), merged, where);
}

void adopt_model(Config& config, const ModelOptions& checkpoint) {
  CHECK(config.given, "adopt_model needs a parsed config");
  const auto bad = [](const std::string&, int, const std::string& message) { fail(Fault::kUsage, message); };
  ModelOptions model = checkpoint;
  config::read_model(config.given->model(), model, bad);
  if (model.vocab_size == 0) model.vocab_size = checkpoint.vocab_size;
  derive_model(model, config.given->model());
  refuse_other_shapes(model, checkpoint, "train.init_from " + config.train.init_from);
  check_model(model, "train.init_from " + config.train.init_from);
  config.model = std::move(model);
  if (const auto conflict = config::find_dead_router(config.model)) fail(Fault::kUsage, conflict->message);
  if (const auto conflict = config::find_layout_conflict(config)) fail(Fault::kUsage, conflict->message);
  if (const auto conflict = config::find_conflict(config)) fail(Fault::kUsage, conflict->message);
  derive_shadow_pairs(config);
}

void check_world(const Config& config, int64_t world) {
  const int64_t expert = config.parallel.expert, global = config.train.global_batch_size;
  const int64_t micro = config.train.micro_batch_size;
  if (world % expert != 0) {
    fail(Fault::kUsage, "parallel.expert (", expert, ") must divide the world size (", world, ")",
         world == 1 ? ": start as many processes (scripts/launch N, mpirun -n N), or --set parallel.expert=1"
                    : "");
  }
  if (global % (micro * world) != 0) {
    fail(Fault::kUsage, "train.global_batch_size (", global,
         ") must be a multiple of train.micro_batch_size (", micro, ") times the world size (", world, ")");
  }
}

void check_data(const Config& config) {
  if (config.data.sets().empty()) {
    fail(Fault::kUsage, "data.train is missing: the prefix of a .bin and .idx file (or data.blend: several)");
  }
  if (config.eval.every_steps > 0 && config.data.validation.empty()) {
    fail(Fault::kUsage, "eval.every_steps (", config.eval.every_steps, ") needs data.validation");
  }
}

void check_model(const ModelOptions& model, const std::string& where, Fault fault) {
  if (const auto conflict = config::find_conflict(model)) fail(fault, where, ": ", conflict->message);
}

void check_device(const ModelOptions& model, Device device, const std::string& where) {
  if (const auto conflict = config::find_device_conflict(model, device))
    fail(Fault::kUsage, where, ": ", conflict->message);
}

}  // namespace switchyard
