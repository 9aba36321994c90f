#include <fmt/format.h>

#include "trainer/commands/commands.h"
#include "trainer/export/import_hf.h"

namespace switchyard {

int run_import(const ImportArgs& args) {
  std::optional<UpcycleOptions> upcycle;
  if (!args.upcycle.empty()) upcycle = parse_upcycle(args.upcycle);
  import_hf(args.from, args.to, upcycle);
  fmt::print("{} imported to {}\n", args.from, args.to);
  return 0;
}

}  // namespace switchyard
