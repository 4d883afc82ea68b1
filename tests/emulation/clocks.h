// Vector clocks: how much each thread of a block can know of what the others have done (Mattern, "Virtual Time and
// Global States of Distributed Systems", 1989).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace resnet_cuda {
namespace emulation {

// Besides the threads there are `others` that do things: bulk copies, by the barrier that they arrive in.
class Clocks {
 public:
  using Clock = std::vector<uint32_t>;

  Clocks(int threads, int others) : threads_(threads), others_(others) {
  }

  void begin_block() {
    clock_.assign(threads_, empty());
    for (int thread = 0; thread < threads_; ++thread) {
      clock_[thread][thread] = 1;
    }
  }

  Clock empty() const {
    return Clock(static_cast<std::size_t>(threads_ + others_), 0);
  }
  int threads() const {
    return threads_;
  }
  const Clock& of(int thread) const {
    return clock_[thread];
  }
  uint32_t now(int thread) const {
    return clock_[thread][thread];
  }
  // Whether what `who` did at `time` comes before what `thread` does now.
  bool saw(int thread, int who, uint32_t time) const {
    return clock_[thread][who] >= time;
  }
  // What `thread` does from now on is not yet known to those who know what it did so far.
  void tick(int thread) {
    ++clock_[thread][thread];
  }
  void learn(int thread, const Clock& known) {
    join(clock_[thread], known);
  }
  // Threads begin to end - 1 have met.
  void meet(int begin, int end) {
    std::vector<int> threads;
    for (int thread = begin; thread < end; ++thread) {
      threads.push_back(thread);
    }
    meet(threads);
  }
  void meet(const std::vector<int>& threads) {
    Clock all = empty();
    for (const int thread : threads) {
      join(all, clock_[thread]);
    }
    for (const int thread : threads) {
      clock_[thread] = all;
      tick(thread);
    }
  }

  static void join(Clock& into, const Clock& from) {
    for (std::size_t i = 0; i < into.size(); ++i) {
      into[i] = into[i] < from[i] ? from[i] : into[i];
    }
  }

 private:
  int threads_;
  int others_;
  std::vector<Clock> clock_;
};

}  // namespace emulation
}  // namespace resnet_cuda
