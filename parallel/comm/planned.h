// A group whose peers do not exist: its collectives leave memory as it is. For
// plans, where nothing is computed.
#pragma once

#include "parallel/comm/communicator.h"

namespace switchyard {

Group make_planned(int rank, int size, std::string name);

}  // namespace switchyard
