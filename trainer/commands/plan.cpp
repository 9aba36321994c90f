#include "trainer/job/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/commands/commands.h"
#include "trainer/data/training_data.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

// A plan can be made before the data are.
bool is_there(const DataSetOptions& set) { return TokenFile::exists(set.path); }

// What a rank maps of the training data: its samples, each with what the kernel maps around it.
int64_t mapped_bytes(const TrainingData& data, const Config& config, int64_t world) {
  constexpr double kAround = 64 << 10;
  const auto whole = static_cast<double>(data.bytes());
  const double width = whole / static_cast<double>(std::max<int64_t>(data.tokens(), 1));
  const double sample = static_cast<double>(config.train.sequence_length) * width;
  const double samples = static_cast<double>(config.train.steps) *
                         static_cast<double>(config.train.global_batch_size) / static_cast<double>(world);
  if (!config.data.shuffle) return static_cast<int64_t>(std::min(whole, samples * sample));
  return whole == 0 ? 0 : static_cast<int64_t>(whole * (1 - std::exp(-samples * (sample + kAround) / whole)));
}

}  // namespace

int run_plan(const PlanArgs& args) {
  Config config = load_config(args.config, args.sets, args.merges);
  if (!config.train.init_from.empty()) {
    CheckpointReader reader(resolve_checkpoint(config.train.init_from, warn));
    adopt_model(config, read_model_options(reader));
  }
  int64_t data_bytes = 0;
  const std::vector<DataSetOptions> sets = config.data.sets();
  if (!sets.empty() && std::all_of(sets.begin(), sets.end(), is_there)) {
    const TrainingData data(sets);
    if (config.model.vocab_size == 0) config.model.vocab_size = data.vocab_size();
    data_bytes = mapped_bytes(data, config, args.world);
  }
  if (config.model.vocab_size == 0) {
    fail(Fault::kUsage, "model.vocab_size is not set, and the data (", sets.empty() ? "none" : sets[0].path,
         ") are not there to tell");
  }
  check_model(config.model, "model");
  Plan plan = make_plan(config, args.world);
  if (config.device == Device::kCpu) plan.program += data_bytes;
  const std::string text = args.json ? to_json(plan) + "\n" : to_text(plan);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace switchyard
