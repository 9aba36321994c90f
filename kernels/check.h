// Errors. A user's mistake, damaged data and an outside failure all arrive at main() as one Error that knows
// its exit code; a library never exits.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace switchyard {

// What went wrong; the value is the program's exit code.
enum class Fault {
  kInternal = 1,   // a bug of ours
  kUsage = 2,      // command line or config
  kData = 3,       // data or checkpoint missing, damaged or of the wrong shape
  kNonFinite = 4,  // the loss is NaN or infinite
  kPeer = 5,       // a rank hangs or is lost
  kResource = 6,   // out of memory or disk
};

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& message) : std::runtime_error(message), fault_(fault) {}
  Fault fault() const { return fault_; }
  int exit_code() const { return static_cast<int>(fault_); }

 private:
  Fault fault_;
};

// Joins the values with << into one string.
template <class... Values>
std::string concat(const Values&... values) {
  std::ostringstream out;
  (out << ... << values);
  return out.str();
}

// fail(Fault::kData, path, ": 12 bytes expected, ", n, " found")
template <class... Values>
[[noreturn]] void fail(Fault fault, const Values&... values) {
  throw Error(fault, concat(values...));
}

template <class... Values>
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const Values&... values) {
  throw Error(Fault::kInternal, concat(file, ":", line, ": ", condition, " does not hold. ", values...));
}

}  // namespace switchyard

// A condition that only a bug can break: CHECK(a.rows == b.rows, "rows: ", a.rows, " and ", b.rows).
#define CHECK(condition, ...)                                                                \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::switchyard::check_failed(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
  } while (0)
