#pragma once

#include <gtest/gtest.h>

#include "core/device/stream.h"

namespace switchyard {

// A test that needs a GPU skips where there is none.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU";
    use_cuda_device(0, 1);
  }
};

}  // namespace switchyard
