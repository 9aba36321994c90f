// Ranks on nodes of their own may have been given other copies of the config or of the data than rank 0. They
// would train on, and neither the lines nor the checkpoint would be of any run that was asked for.
#pragma once

#include "parallel/comm/communicator.h"
#include "trainer/config.h"
#include "trainer/data/training_data.h"

namespace switchyard {

// All ranks; FailedTogether naming the first rank that differs from rank 0 and, of a config, the first line
// that does. Only `threads` may differ.
void check_same_config(const Group& world, Config config);
void check_same_data(const Group& world, const TrainingData& data);

}  // namespace switchyard
