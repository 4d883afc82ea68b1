// The threads of one block as fibers: one runs at a time, until it waits; which one is next is up to a seed. Where all
// wait, a report says who waits where.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "fault.h"
#include "fiber.h"
#include "seed.h"

namespace resnet_cuda {
namespace emulation {

// What a thread waits at, and where.
struct Site {
  const char* what = "";
  Line line;
};

// Some threads that wait for each other at one site.
struct Meeting {
  int arrived = 0;
  int first = 0;  // the thread that arrived first
  Site site;
};

class Scheduler {
 public:
  Scheduler(int threads, std::function<void()> body) : threads_(threads), body_(std::move(body)), thread_(threads) {
  }

  // All threads at the beginning of the body, ready to run.
  void begin_block() {
    while (fibers().size() < static_cast<std::size_t>(threads_)) {
      fibers().emplace_back(&Scheduler::run_threads, reinterpret_cast<void*>(static_cast<intptr_t>(fibers().size())));
    }
    ended_ = 0;
    thread_.assign(threads_, Thread{});
    make_ready(0, threads_);
  }

  bool all_ended() const {
    return ended_ == threads_;
  }
  bool none_is_ready() const {
    return ready_.empty();
  }

  // Runs one of the threads that are ready until it waits or ends. Throws what it threw.
  void step(Random& random) {
    const std::size_t chosen = random.below(ready_.size());
    running_ = ready_[chosen];
    ready_[chosen] = ready_.back();
    ready_.pop_back();
    thread_[running_].begun = true;
    active() = this;
    fibers()[running_].resume();
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

  // Unwinds the threads that are in the middle of the body.
  void abandon() {
    abandoning_ = true;
    active() = this;
    for (running_ = 0; running_ < threads_; ++running_) {
      if (thread_[running_].begun && !thread_[running_].ended) {
        fibers()[running_].resume();
      }
    }
  }

  // The report of a deadlock: which threads wait where. `describe(barrier)` names a barrier in shared memory.
  template <typename Describe>
  std::string deadlock(const Describe& describe) const {
    std::vector<int> ended;
    struct Waiting {
      Site site;
      int barrier;
      std::vector<int> threads;
    };
    std::vector<Waiting> waiting;
    for (int thread = 0; thread < threads_; ++thread) {
      if (thread_[thread].ended) {
        ended.push_back(thread);
        continue;
      }
      const Site& site = thread_[thread].waits_at;
      const int barrier = thread_[thread].barrier;
      auto group = waiting.begin();
      while (group != waiting.end() && !(group->site.line == site.line && group->barrier == barrier)) {
        ++group;
      }
      if (group == waiting.end()) {
        group = waiting.insert(group, {site, barrier, {}});
      }
      group->threads.push_back(thread);
    }
    std::ostringstream text;
    text << "deadlock: ";
    for (const Waiting& group : waiting) {
      const std::string what = group.barrier < 0 ? group.site.what : describe(group.barrier);
      text << thread_ranges(group.threads) << " at the " << what << " in " << group.site.line << "; ";
    }
    text << (ended.empty() ? "none has ended" : thread_ranges(ended) + " ended without it");
    return text.str();
  }

  // --- of the thread that runs

  int running() const {
    return running_;
  }

  // Back to the launching thread until this one is chosen again.
  void pause() {
    fibers()[running_].suspend();
    if (abandoning_) {
      throw Abandoned{};
    }
  }

  // Waits for what is no meeting: until another thread makes this one ready. `barrier`: in shared memory, or -1.
  void wait(const Site& site, int barrier = -1) {
    thread_[running_].waits_at = site;
    thread_[running_].barrier = barrier;
    pause();
    thread_[running_].barrier = -1;
  }

  // Returns true once all `expected` threads have arrived, in the last one; then the caller makes them ready.
  bool arrive(Meeting& meeting, int expected, const Site& site) {
    if (meeting.arrived == 0) {
      meeting.first = running_;
      meeting.site = site;
    } else if (!(meeting.site.line == site.line)) {
      fail(
          "reached the ",
          site.what,
          " in ",
          site.line,
          " while thread ",
          meeting.first,
          " waits at the ",
          meeting.site.what,
          " in ",
          meeting.site.line);
    }
    thread_[running_].waits_at = site;
    if (++meeting.arrived < expected) {
      return false;
    }
    meeting.arrived = 0;
    return true;
  }

  void make_ready(int begin, int end) {
    for (int thread = begin; thread < end; ++thread) {
      ready_.push_back(thread);
    }
  }
  void make_ready(const std::vector<int>& threads) {
    ready_.insert(ready_.end(), threads.begin(), threads.end());
  }

 private:
  struct Thread {
    bool begun = false;
    bool ended = false;
    Site waits_at;
    int barrier = -1;
  };

  // Thrown in a thread that waits when another has failed: unwinds its stack.
  struct Abandoned {};

  // The one whose threads run.
  static Scheduler*& active() {
    static thread_local Scheduler* scheduler = nullptr;
    return scheduler;
  }

  // Stacks, kept from block to block and from launch to launch.
  static std::deque<Fiber>& fibers() {
    static thread_local std::deque<Fiber> pool;
    return pool;
  }

  static void run_threads(void* index) {
    const auto thread = static_cast<std::size_t>(reinterpret_cast<intptr_t>(index));
    while (true) {
      active()->run_thread();
      fibers()[thread].suspend();
    }
  }

  void run_thread() {
    try {
      body_();
    } catch (const Abandoned&) {
    } catch (...) {
      failure_ = std::current_exception();
    }
    thread_[running_].ended = true;
    ++ended_;
  }

  int threads_;
  std::function<void()> body_;
  std::vector<Thread> thread_;
  std::vector<int> ready_;
  std::exception_ptr failure_;
  int running_ = 0;
  int ended_ = 0;
  bool abandoning_ = false;
};

}  // namespace emulation
}  // namespace resnet_cuda
