#include "trainer/job/plan.h"

#include <cstdio>
#include <filesystem>

#include "trainer/checkpoint/runs.h"
#include "trainer/commands/commands.h"
#include "trainer/data/token_file.h"

namespace switchyard {

int run_plan(const PlanArgs& args) {
  Config config = load_config(args.config, args.sets, args.merges);
  if (!config.train.init_from.empty()) {
    CheckpointReader reader(resolve_checkpoint(config.train.init_from, [](const std::string&) {}));
    adopt_model(config, model_from_text(reader.text("model.txtpb"), reader.directory().string() + "/model.txtpb"));
  }
  int64_t data_bytes = 0;
  if (std::filesystem::exists(config.data.train + ".idx")) {
    const TokenFile file = TokenFile::open(config.data.train);
    if (config.model.vocab_size == 0) {
      config.model.vocab_size = file.sidecar() ? file.sidecar()->vocab_size : file.max_token() + 1;
    }
    data_bytes = file.tokens() * size_of(file.type());
  }
  if (config.model.vocab_size == 0) {
    fail(Fault::kUsage, "model.vocab_size is not set, and data.train (", config.data.train, ") is not there to tell");
  }
  check_model(config.model, "model");
  Plan plan = make_plan(config, args.world);
  if (config.device == Device::kCpu) plan.program += data_bytes;
  const std::string text = args.json ? to_json(plan) + "\n" : to_text(plan);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace switchyard
