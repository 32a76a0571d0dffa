// Tasks on XLA's own threads.

#ifndef CONDCONV_PARALLEL_H_
#define CONDCONV_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace condconv {

// Runs task(0) ... task(count - 1), each once, and returns when all have ended. The calling thread
// takes part, so all is done even when no other thread is free: it may be one of the pool itself.
template <typename Task>
void ParallelFor(xla::ffi::ThreadPool& pool, int64_t count, const Task& task) {
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  if (helpers < 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  struct State {
    std::atomic<int64_t> next{0}, ended{0};
  };
  // Shared: a helper that starts after the return finds no task left, but looks for one.
  auto state = std::make_shared<State>();
  auto work = [state, count, run = &task] {
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      (*run)(i);
      state->ended.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(work)(work));
  work();
  while (state->ended.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

}  // namespace condconv

#endif  // CONDCONV_PARALLEL_H_
