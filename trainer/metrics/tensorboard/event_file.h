// One file of TensorBoard events, as one start of a run writes it.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace switchyard {

namespace tensorboard {
class Event;
class Summary;
}  // namespace tensorboard

class EventFile {
 public:
  // A new file in `folder`, named so that it sorts behind the event files there whatever the clock says. It
  // takes over at `first_step`: what those have of this step and later ones is shown no more.
  EventFile(const std::filesystem::path& folder, int64_t first_step);

  // One record, flushed: a reader of a file that was cut passes over the record that is not whole.
  void write(int64_t step, tensorboard::Summary summary);

  const std::filesystem::path& path() const { return path_; }

 private:
  void append(tensorboard::Event& event);

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace switchyard
