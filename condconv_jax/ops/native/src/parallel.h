// Tasks on XLA's own threads.

#ifndef CONDCONV_PARALLEL_H_
#define CONDCONV_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace condconv {

// Runs task(0) ... task(count - 1), each once, and returns when all have ended. The calling thread
// takes part until every thread of the pool has begun, so all is done even when none of them is
// free: the caller may be one of the pool itself. As many are woken as there are, not one less: a
// single one the kernel may put on the caller's own core, and leave it there for milliseconds.
template <typename Task>
void ParallelFor(xla::ffi::ThreadPool& pool, int64_t count, const Task& task) {
  const int64_t threads = pool.num_threads(), helpers = std::min(threads, count - 1);
  if (threads < 2 || helpers < 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  struct State {
    std::atomic<int64_t> next{0}, ended{0}, begun{0};
    std::mutex mutex;
    std::condition_variable done;
  };
  // Shared: a helper that starts after the return finds no task left, but looks for one.
  auto state = std::make_shared<State>();
  auto run_next = [state, count, run = &task] {
    const int64_t i = state->next.fetch_add(1);
    if (i >= count) return false;
    (*run)(i);
    if (state->ended.fetch_add(1) + 1 == count) {
      std::lock_guard<std::mutex> lock(state->mutex);
      state->done.notify_one();
    }
    return true;
  };
  auto help = [state, run_next] {
    state->begun.fetch_add(1);
    while (run_next()) {
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(help)(help));
  while (state->begun.load() < threads && run_next()) {
  }
  // To sleep and be woken takes longer than the last task of a small convolution.
  constexpr int kPatience = 200;
  for (int i = 0; i < kPatience && state->ended.load() < count; ++i) std::this_thread::yield();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->done.wait(lock, [&] { return state->ended.load() == count; });
}

}  // namespace condconv

#endif  // CONDCONV_PARALLEL_H_
