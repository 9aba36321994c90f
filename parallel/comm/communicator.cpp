#include "parallel/comm/communicator.h"

#include <utility>

namespace switchyard {
namespace {

std::string& label_of_this_thread() {
  thread_local std::string label;
  return label;
}

}  // namespace

CommLabel::CommLabel(std::string label)
    : previous_(std::exchange(label_of_this_thread(), std::move(label))) {}
CommLabel::~CommLabel() { label_of_this_thread() = std::move(previous_); }
const std::string& CommLabel::current() { return label_of_this_thread(); }

}  // namespace switchyard
