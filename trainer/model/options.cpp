#include "trainer/model/options.h"

#include <algorithm>

namespace switchyard {

bool ModelOptions::is_moe(int64_t layer) const {
  return moe.has_value() && layer >= first_dense_layers && (layer + 1) % moe_layer_interval == 0 &&
         std::find(dense_layers.begin(), dense_layers.end(), layer) == dense_layers.end();
}

int64_t ModelOptions::moe_layers() const {
  int64_t n = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) n += is_moe(layer);
  return n;
}

bool ModelOptions::dense_layers_first() const {
  for (int64_t layer = 0; layer < num_layers - moe_layers(); ++layer)
    if (is_moe(layer)) return false;
  return true;
}

int64_t ModelOptions::rotary_dim() const {
  return static_cast<int64_t>(static_cast<double>(head_dim) * partial_rotary_factor);
}

}  // namespace switchyard
