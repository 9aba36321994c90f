// Settings of the emulator for tests.
#pragma once

namespace cuda_emulator {

// The order in which the threads of a block, and the blocks, get their turns between two barriers. Results of
// a kernel with all its barriers in place do not depend on it.
enum class Order { kForward, kBackward };
void set_order(Order order);

}  // namespace cuda_emulator
