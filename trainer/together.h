// How the ranks of a job fail and stop as one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace switchyard {

// Thrown on every rank after an error of any rank; carries the message of the first that failed.
class FailedTogether : public Error {
 public:
  FailedTogether(Fault fault, const std::string& message) : Error(fault, message) {}
};

// Runs f on every rank (every std::exception of f is caught), then agrees: if any rank failed, all throw
// FailedTogether with the first failing rank's fault and message. f must not call collectives that a failing
// rank would miss.
void together(const Group& world, const std::function<void()>& f);

// Whether `says` (null: never) is true on any rank.
bool any_rank(Communicator& world, const std::function<bool()>& says);

// Every rank's text, in rank order, on every rank.
std::vector<std::string> gather_texts(const Group& world, const std::string& text);
// Rank 0's text on every rank.
std::string text_of_root(Communicator& world, const std::string& text);

// "switchyard: warning: MESSAGE" on stderr.
void warn(const std::string& message);

// SIGTERM, SIGINT and SIGUSR1 ask for a checkpoint and the end, by a flag; a second SIGINT ends the process.
void catch_stop_signals();
bool stop_asked();

// The one place that decides which fault an exception of the standard library is: memory and disk that ran
// out, paths that cannot be used, or a bug of ours.
Error as_error(const std::exception& e);

}  // namespace switchyard
