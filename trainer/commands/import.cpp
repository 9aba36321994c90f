#include <fmt/format.h>

#include "trainer/checkpoint/manifest.h"
#include "trainer/commands/commands.h"
#include "trainer/export/import_hf.h"

namespace switchyard {
namespace {

// A checkpoint or a run of ours.
bool is_ours(const fs::path& path) {
  return !fs::exists(path / "config.json") &&
         (fs::exists(path / kManifestName) || fs::exists(path / "checkpoints"));
}

}  // namespace

int run_import(const ImportArgs& args) {
  std::optional<UpcycleOptions> upcycle;
  if (!args.upcycle.empty()) upcycle = parse_upcycle(args.upcycle);
  if (!is_ours(args.from)) {
    import_hf(args.from, args.to, upcycle);
  } else if (upcycle) {
    upcycle_checkpoint(args.from, args.to, *upcycle);
  } else {
    fail(Fault::kUsage, args.from, ": is a checkpoint already; with --upcycle a dense one becomes a mixture");
  }
  fmt::print("{} imported to {}\n", args.from, args.to);
  return 0;
}

}  // namespace switchyard
