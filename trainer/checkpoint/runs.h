// The checkpoints of a run: CHECKPOINTS/step_00000100/, CHECKPOINTS/LATEST.
#pragma once

#include "trainer/checkpoint/store.h"

namespace switchyard {

fs::path step_directory(const fs::path& checkpoints, int64_t step);

using Warn = std::function<void(const std::string& message)>;

// After finish(): points LATEST at `step` (a directory of that name stays, with a warning) and, where
// keep_last > 0, removes all but the keep_last newest checkpoints up to that step. Nothing but step_*
// directories of lower steps is removed. Those of `damaged` steps, and others that are not whole, do not
// count; they stay for whoever wants to look.
void publish(const fs::path& checkpoints, int64_t step, int64_t keep_last, const Warn& warn,
             const std::vector<int64_t>& damaged = {});

// Takes the checkpoints of a run whose place another takes out of sight, so that none of them is resumed; the
// new run's first checkpoint ends them (remove_set_aside).
void set_aside(const fs::path& checkpoints);
void remove_set_aside(const fs::path& checkpoints);

// Steps that have a directory, newest first, intact or not.
std::vector<int64_t> list_steps(const fs::path& checkpoints);

// The newest intact checkpoint, found by looking at every step_* directory; a damaged or incomplete one that
// is newer is named through `warn`, and so is a LATEST that says otherwise. Nothing: there is none at all.
// None intact though some exist: Error{kData}. Reads every file.
std::optional<fs::path> find_newest(const fs::path& checkpoints, const Warn& warn);

// A checkpoint's directory as it is, unverified; a run's directory (or its checkpoints/) as
// its newest intact checkpoint.
fs::path resolve_checkpoint(const fs::path& path, const Warn& warn);

// Removes what writers that were interrupted left behind. For the one process that is about to write here.
void remove_leftovers(const fs::path& checkpoints);

}  // namespace switchyard
