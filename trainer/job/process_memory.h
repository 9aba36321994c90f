// What this process holds and may hold of the machine's memory, in bytes.
#pragma once

#include <cstdint>

namespace switchyard {

int64_t resident_bytes();       // now
int64_t peak_resident_bytes();  // the most so far
int64_t available_bytes();      // of the machine or of the container, whichever has less
int64_t address_space_limit();  // the largest number where there is none

}  // namespace switchyard
