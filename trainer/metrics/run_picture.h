// What `inspect` draws of a run.
#pragma once

#include <filesystem>
#include <string>

namespace switchyard {

// The loss curve and the load of each expert over the last steps, from metrics.jsonl. Empty where there is
// none; lines that are not whole or not JSON are passed over.
std::string run_picture(const std::filesystem::path& metrics);

}  // namespace switchyard
