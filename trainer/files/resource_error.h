// Errors of files that are the machine's, not the file's.
#pragma once

namespace switchyard {

// Whether this errno says that the machine lacks something: space, memory,
// descriptors, threads, a sound disk.
bool is_resource_error(int error);

}  // namespace switchyard
