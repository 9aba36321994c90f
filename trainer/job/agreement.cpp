#include "trainer/job/agreement.h"

#include <algorithm>

#include "trainer/files/files.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

// The line of `text` in which `at` lies, without its indentation.
std::string line_at(const std::string& text, size_t at) {
  const size_t begin = at == 0 ? 0 : text.rfind('\n', at - 1) + 1;
  const std::string line = text.substr(begin, text.find('\n', begin) - begin);
  return line.substr(std::min(line.find_first_not_of(' '), line.size()));
}

}  // namespace

void check_same_config(const Group& world, Config config) {
  config.threads = 0;  // nodes may have other processors
  const std::string own = resolved_text(config), root = text_of_root(*world, own);
  together(world, [&] {
    if (own == root) return;
    const auto [mine, theirs] = std::mismatch(own.begin(), own.end(), root.begin(), root.end());
    fail(Fault::kUsage, "rank ", world->rank(),
         " has another config than rank 0: ", shown(line_at(own, mine - own.begin())), ", where rank 0 has ",
         shown(line_at(root, theirs - root.begin())));
  });
}

void check_same_data(const Group& world, const TrainingData& data) {
  const std::string own = hex_of(data.fingerprint()), root = text_of_root(*world, own);
  together(world, [&] {
    if (own != root)
      fail(Fault::kData, data.sets()[0].path, data.sets().size() > 1 ? " or another set of data.blend" : "",
           ": rank ", world->rank(), " has other data there than rank 0");
  });
}

}  // namespace switchyard
