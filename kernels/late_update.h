// An update of weights that waits for the product that reads them next. The optimizer alone is bound by
// memory and a product by the multipliers: what the update reads arrives while the product computes
// (kernels/cpu/update_ahead.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/adamw.h"

namespace switchyard::kernels {

class LateUpdate {
 public:
  virtual ~LateUpdate() = default;
  LateUpdate() = default;
  LateUpdate(const LateUpdate&) = delete;
  LateUpdate& operator=(const LateUpdate&) = delete;

  // Elements [begin, begin + n), on the calling thread. Every element once, in any order.
  virtual void update(int64_t begin, int64_t n) const = 0;
  virtual void update_all() const = 0;  // what is not finished, by all threads

  // The weights are matrices of one size, and some may be needed before the others.
  virtual void finish(int64_t matrix) const = 0;  // all of it, if it is not finished
  virtual bool is_finished(int64_t matrix) const = 0;

  // What of the memory an update needs.
  struct Array {
    const char* first;      // of element 0
    int64_t element_bytes;  // of one element
  };
  virtual std::span<const Array> arrays() const = 0;
};

// What run() does with the same arguments, later, to so many matrices. The arrays have to stay as they are
// until then; the clip is read now. Instantiated for float and BF16, with M as run() has it.
template <class T, class M>
std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<T, M>&, int64_t matrices);

}  // namespace switchyard::kernels
