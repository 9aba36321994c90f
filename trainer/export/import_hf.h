// A Hugging Face model folder becomes a checkpoint.
#pragma once

#include "trainer/checkpoint/files.h"

namespace switchyard {

// Reads config.json and the weights under `from`, checks that there is exactly what the architecture asks
// for, and writes the checkpoint `to` (float32 weights, step 0), which must not exist or be an empty
// directory. On failure nothing is left at or beside `to`.
void import_hf(const fs::path& from, const fs::path& to);

}  // namespace switchyard
