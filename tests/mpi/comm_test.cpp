#include <gtest/gtest.h>

#include "tests/mpi/world.h"
#include "tests/support/comm_conformance.h"

namespace switchyard {
namespace {

// Groups of every size up to the world's, as parts of it.
struct Mpi {
  static std::vector<int> sizes() {
    std::vector<int> sizes(mpi_world()->size());
    std::iota(sizes.begin(), sizes.end(), 1);
    return sizes;
  }
  static void run(int ranks, const std::function<void(Group)>& body) {
    const Group part = mpi_world()->split(mpi_world()->rank() < ranks, 0, "part");
    if (mpi_world()->rank() < ranks) body(part);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Mpi, CommConformance, Mpi);

}  // namespace
}  // namespace switchyard
