// Data sets under a model: their losses, and which experts their tokens are given to.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard {

struct DataSet {
  struct Layer {
    int64_t number;
    std::vector<double> shares;  // of each expert; 1 is an even one
  };
  std::string name;
  double tokens = 0, loss = 0, bits_per_byte = 0;  // NaN: unknown
  std::vector<Layer> layers;
};

// What `switchyard eval` printed: the last line of `text`, with one data set or several. Error{kData}.
std::vector<DataSet> read_evaluation(const std::filesystem::path& file, std::string_view text);

std::string data_sets_html(const std::vector<DataSet>& data);

}  // namespace switchyard
