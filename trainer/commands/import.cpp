#include <fmt/format.h>

#include "trainer/checkpoint/manifest.h"
#include "trainer/commands/commands.h"
#include "trainer/export/import_hf.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

// A checkpoint or a run of ours.
bool is_ours(const fs::path& path) {
  std::error_code ignored;
  return !fs::exists(path / "config.json", ignored) &&
         (fs::exists(path / kManifestName, ignored) || fs::exists(path / "checkpoints", ignored));
}

}  // namespace

int run_import(const ImportArgs& args) {
  std::optional<UpcycleOptions> upcycle;
  if (!args.upcycle.empty()) upcycle = parse_upcycle(args.upcycle);
  if (upcycle && upcycle->top_k == 1)
    warn(
        "--upcycle: of one choice the weight is 1 and the router learns nothing; train refuses such a model");
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
