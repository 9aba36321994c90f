// A Hugging Face model folder becomes a checkpoint.
#pragma once

#include <optional>

#include "trainer/export/upcycle.h"
#include "trainer/files/files.h"

namespace switchyard {

// Reads config.json and the weights under `from`, checks that there is exactly what the architecture asks
// for, and writes the checkpoint `to` (float32 weights, step 0, the tokenizer where there is one that is
// known), which must not exist or be an empty directory. On failure nothing is left at or beside `to`.
// `upcycle`: a dense model is stored as a mixture of its copies.
void import_hf(const fs::path& from, const fs::path& to,
               const std::optional<UpcycleOptions>& upcycle = std::nullopt);

}  // namespace switchyard
