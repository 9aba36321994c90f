#include "trainer/job/plan.h"

#include <algorithm>
#include <cstdio>

#include "trainer/checkpoint/runs.h"
#include "trainer/commands/commands.h"
#include "trainer/data/training_data.h"

namespace switchyard {
namespace {

// A plan can be made before the data are.
bool is_there(const DataSetOptions& set) { return TokenFile::exists(set.path); }

}  // namespace

int run_plan(const PlanArgs& args) {
  Config config = load_config(args.config, args.sets, args.merges);
  if (!config.train.init_from.empty()) {
    CheckpointReader reader(resolve_checkpoint(config.train.init_from, [](const std::string&) {}));
    adopt_model(config, model_from_text(reader.text("model.txtpb"), reader.directory().string() + "/model.txtpb"));
  }
  int64_t data_bytes = 0;
  const std::vector<DataSetOptions> sets = config.data.sets();
  if (!sets.empty() && std::all_of(sets.begin(), sets.end(), is_there)) {
    const TrainingData data(sets);
    if (config.model.vocab_size == 0) config.model.vocab_size = data.vocab_size();
    data_bytes = data.bytes();
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
