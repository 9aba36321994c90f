#include <fmt/format.h>

#include <cstdio>

#include "trainer/checkpoint/runs.h"
#include "trainer/commands/commands.h"
#include "trainer/config.h"
#include "trainer/export/export_gguf.h"
#include "trainer/export/export_hf.h"

namespace switchyard {

int run_export(const ExportArgs& args) {
  const Warn warn = [](const std::string& message) {
    fmt::print(stderr, "switchyard: warning: {}\n", message);
  };
  const fs::path checkpoint = resolve_checkpoint(args.checkpoint, warn);
  const std::string arch = args.arch.empty() ? "auto" : args.arch;
  const DType dtype = args.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  const std::string chosen =
      args.format == "gguf"
          ? export_gguf(
                {.checkpoint = checkpoint, .out = args.out, .arch = arch, .dtype = dtype, .warn = warn})
          : export_hf({.checkpoint = checkpoint, .out = args.out, .arch = arch, .dtype = dtype});
  CheckpointReader reader(checkpoint);
  const ModelOptions model = model_from_text(reader.text(kModelText), (checkpoint / kModelText).string());
  if (model.moe && model.moe->noisy_gate)
    fmt::print("left out, since training alone has noise: mlp.gate.noise_weight (model.moe.noisy_gate)\n");
  fmt::print("{} exported as {} to {}\n", checkpoint.string(), chosen, args.out);
  return 0;
}

}  // namespace switchyard
