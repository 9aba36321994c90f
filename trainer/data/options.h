// Which tokens a job trains on.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

// One of the data sets of a blend.
struct DataSetOptions {
  std::string path;   // as data.train
  double weight = 1;  // its share of the samples is weight / the sum of all weights
};

struct DataOptions {
  std::string train;                  // prefix of .bin and .idx, or a .bin of its own kind; empty: `blend`
  std::vector<DataSetOptions> blend;  // in place of `train`
  std::string validation;             // as `train`; empty: none
  bool shuffle = true;

  // What to train on: `blend`, or `train` as a blend of one. Empty where neither is given.
  std::vector<DataSetOptions> sets() const {
    if (!blend.empty() || train.empty()) return blend;
    return {{.path = train}};
  }
};

}  // namespace switchyard
