// Switching between stacks of one host thread.
#pragma once

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_emulator {

struct Stack {
  void* memory = nullptr;  // the host thread's own: known after the first switch, for AddressSanitizer
  size_t bytes = 0;
#ifdef __x86_64__
  void* top = nullptr;  // while another stack runs: where its registers lie
#else
  ucontext_t context;
#endif
};

// The first switch to `stack` calls `entry`, which must begin with arrived_on() and never returns.
void start_on(Stack& stack, void* memory, size_t bytes, void (*entry)());
void switch_stack(Stack& from, Stack& to);
void arrived_on(Stack& here, Stack& from);
// Before the memory is given back: some of its frames may never have ended.
void forget(Stack& stack);

}  // namespace cuda_emulator
