// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A value is a function of (key,
// counter) alone, so it does not depend on ranks, threads or the order of drawing.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/tensor.h"

namespace switchyard {

// Four 32-bit words for the counter under the key.
std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// A key from a seed and a name (FNV-1a, then a finalising mix):
// "model.layers.3.mlp.experts.17.down_proj.weight".
uint64_t key_of(uint64_t seed, std::string_view name);

// In [0, 1), 24 bits.
inline float uniform_of(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// Standard normal from the first two words (Box-Muller).
double normal_of(const std::array<uint32_t, 4>& words);

// Element i of a tensor named by `key`: normal with the given standard deviation, cut at three of them.
void fill_normal(const Tensor& host, uint64_t key, double stddev);

}  // namespace switchyard
