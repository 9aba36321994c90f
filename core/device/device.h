// Where memory lives.
#pragma once

#include <cstdint>

namespace switchyard {

enum class Device : uint8_t {
  kCpu,
  kCuda,
  kMeta,  // nowhere: sizes are counted, nothing is computed. `switchyard plan` runs a step on it.
};

constexpr const char* name_of(Device device) {
  switch (device) {
    case Device::kCpu: return "CPU";
    case Device::kCuda: return "CUDA";
    case Device::kMeta: return "META";
  }
  return "?";
}

}  // namespace switchyard
