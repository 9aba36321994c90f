// The values that TensorBoard shows, each under a tag.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trainer/metrics/png.h"

namespace switchyard {

struct Config;

namespace tensorboard {
class Summary;

void add_scalar(Summary& to, const std::string& tag, double value);
// A histogram with a bar from i to i + 1 for counts[i].
void add_bars(Summary& to, const std::string& tag, const std::vector<int64_t>& counts,
              const std::string& description);
void add_image(Summary& to, const std::string& tag, const Image& image, const std::string& description);
// Shown as it is, in one typeface.
void add_text(Summary& to, const std::string& tag, std::string_view text);

// Every field of the configuration that has one value, by its path, and the tags that stand for what a run
// reached: the columns of TensorBoard's table of runs.
void add_hparams(Summary& to, const Config& config, const std::vector<std::string>& metric_tags);

}  // namespace tensorboard
}  // namespace switchyard
