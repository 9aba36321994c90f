// How an error ends the program: one line on stderr and an exit code.
#pragma once

#include <exception>

namespace switchyard {

// As as_error() (trainer/together.h) decides: 2 usage or config, 3 data or checkpoint, 4 non-finite loss, 5
// hang or lost peer, 6 memory or disk, 1 a bug of ours.
int exit_code_of(const std::exception&);

// "switchyard: MESSAGE" on stderr where `speak` is set, and the exit code. With several ranks one speaks.
int report_and_exit_code(const std::exception&, bool speak = true);

// The same for an error that every rank of the job most likely meets alike: rank 0 speaks, and the launcher
// ends the whole job when it leaves. A rank that is still there some seconds later was alone, and speaks.
int report_once(const std::exception&, int rank);

}  // namespace switchyard
