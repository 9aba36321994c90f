// Who wants to know when an op's work has been enqueued: profiles. Per thread; costs a
// test of a pointer otherwise.
#pragma once

#include <functional>

namespace switchyard {

// `name`: of the op, as it was recorded; `backward`: its closure has run, else the op itself.
using OpObserver = std::function<void(const char* name, bool backward)>;

// Null: nobody. The observer must outlive its use.
void set_op_observer(const OpObserver* observer);

}  // namespace switchyard
