#include <fmt/format.h>

#include <cstdio>

#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/commands/commands.h"
#include "trainer/export/export_gguf.h"
#include "trainer/export/export_hf.h"
#include "trainer/together.h"

namespace switchyard {

int run_export(const ExportArgs& args) {
  const fs::path checkpoint = resolve_checkpoint(args.checkpoint, warn);
  const std::string arch = args.arch.empty() ? "auto" : args.arch;
  const DType dtype = args.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  const std::string chosen =
      args.format == "gguf"
          ? export_gguf(
                {.checkpoint = checkpoint, .out = args.out, .arch = arch, .dtype = dtype, .warn = warn})
          : export_hf({.checkpoint = checkpoint, .out = args.out, .arch = arch, .dtype = dtype});
  CheckpointReader reader(checkpoint);
  const ModelOptions model = read_model_options(reader);
  if (model.moe && model.moe->noisy_gate)
    fmt::print("left out, since training alone has noise: mlp.gate.noise_weight (model.moe.noisy_gate)\n");
  if (model.moe && model.moe->eval_capacity_factor > 0)
    fmt::print("other programs drop no choices: model.moe.eval_capacity_factor ({}) is left out\n",
               model.moe->eval_capacity_factor);
  if (model.moe && model.moe->force_balance)
    fmt::print("other programs ask the router: model.moe.force_balance is left out\n");
  fmt::print("{} exported as {} to {}\n", checkpoint.string(), chosen, args.out);
  return 0;
}

}  // namespace switchyard
