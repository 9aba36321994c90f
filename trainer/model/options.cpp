#include "trainer/model/options.h"

#include <algorithm>

namespace switchyard {

bool ModelOptions::is_moe(int64_t layer) const {
  return moe.has_value() && layer >= first_dense_layers && (layer + 1) % moe_layer_interval == 0 &&
         std::find(dense_layers.begin(), dense_layers.end(), layer) == dense_layers.end();
}

}  // namespace switchyard
