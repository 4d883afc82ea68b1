// Runs the threads of a grid on the launching thread: one block at a time, one fiber per CUDA thread, in an order that
// a seed permutes anew at every step; barriers and shuffles are meetings of fibers.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "fault.h"
#include "fiber.h"
#include "seed.h"
#include "shared_memory.h"

namespace resnet_cuda {
namespace emulation {

class Grid {
 public:
  Grid(std::string kernel, int64_t blocks, int threads, int shared_bytes, std::function<void()> body)
      : kernel_(std::move(kernel)),
        blocks_(blocks),
        threads_(threads),
        body_(std::move(body)),
        shared_(shared_bytes, threads),
        thread_(threads),
        warp_(threads / kWarp) {
  }

  // Throws what a thread threw or, as a std::runtime_error, what was found wrong.
  void run() {
    const auto seed = static_cast<uint64_t>(environment_number("RESNET_CUDA_EMULATION_SEED", 0));
    std::vector<int64_t> order(static_cast<std::size_t>(blocks_));
    std::iota(order.begin(), order.end(), int64_t{0});
    Random random(seed);
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[random.below(i)]);
    }
    Grid* outer = current();
    current() = this;
    try {
      for (const int64_t block : order) {
        run_block(block, Random(seed + static_cast<uint64_t>(block + 1) * 0xD1342543DE82EF95u));
      }
    } catch (...) {
      current() = outer;
      throw;
    }
    current() = outer;
  }

  // The grid that runs on this thread, or null.
  static Grid*& current() {
    static thread_local Grid* grid = nullptr;
    return grid;
  }

  static Grid& here() {
    if (current() == nullptr) {
      throw std::runtime_error("resnet_cuda emulation: a device function was called outside a kernel");
    }
    return *current();
  }

  int thread() const {
    return running_;
  }
  int64_t block() const {
    return block_;
  }
  int64_t blocks() const {
    return blocks_;
  }
  SharedMemory& shared() {
    return shared_;
  }
  SharedMemory::Access access(const Line& line) const {
    return {running_, warp_[running_ / kWarp].epoch, line};
  }

  void sync_block(const Line& line) {
    if (arrive(block_meeting_, threads_, {"block barrier", line})) {
      shared_.pass_block_barrier();
      make_ready(0, threads_);
    }
    pause();
  }

  void sync_warp(const Line& line) {
    meet_warp({"warp barrier", line});
  }

  // The bits that lane `source` passes in the same shuffle.
  uint64_t shuffle(uint64_t bits, int source, const Line& line) {
    Warp& warp = warp_[running_ / kWarp];
    const int lane = running_ % kWarp;
    warp.operand[lane] = bits;
    warp.source[lane] = source;
    meet_warp({"shuffle", line});
    return warp.result[lane];
  }

  // Bit i: what lane i passes in the same ballot.
  uint32_t ballot(bool predicate, const Line& line) {
    Warp& warp = warp_[running_ / kWarp];
    warp.operand[running_ % kWarp] = predicate ? 1 : 0;
    meet_warp({"ballot", line});
    return warp.ballot;
  }

  // Lets other threads run first, or not, as the seed has it.
  void yield() {
    ready_.push_back(running_);
    pause();
  }

 private:
  struct Site {
    const char* what = "";
    Line line;
  };
  struct Thread {
    bool begun = false;
    bool ended = false;
    Site waits_at;
  };
  struct Meeting {
    int arrived = 0;
    int first = 0;
    Site site;
  };
  struct Warp {
    Meeting meeting;
    uint32_t epoch = 0;
    uint64_t operand[kWarp];
    int source[kWarp];
    uint64_t result[kWarp];
    uint32_t ballot;
  };
  // Thrown in a thread that waits when another has failed: unwinds its stack.
  struct Abandoned {};

  // Stacks, kept from block to block and from launch to launch.
  static std::deque<Fiber>& fibers() {
    static thread_local std::deque<Fiber> pool;
    return pool;
  }

  static void run_threads(void* index) {
    const auto thread = static_cast<std::size_t>(reinterpret_cast<intptr_t>(index));
    while (true) {
      current()->run_thread();
      fibers()[thread].suspend();
    }
  }

  void run_thread() {
    try {
      body_();
    } catch (const Abandoned&) {
    } catch (const Fault& fault) {
      failure_ = std::make_exception_ptr(std::runtime_error(described(fault)));
    } catch (...) {
      failure_ = std::current_exception();
    }
    thread_[running_].ended = true;
    ++ended_;
  }

  std::string described(const Fault& fault) const {
    return "resnet_cuda emulation: kernel " + kernel_ + ", block " + std::to_string(block_) + ", thread " +
           std::to_string(running_) + ": " + fault.message;
  }

  void run_block(int64_t block, Random random) {
    std::deque<Fiber>& pool = fibers();
    while (pool.size() < static_cast<std::size_t>(threads_)) {
      pool.emplace_back(&Grid::run_threads, reinterpret_cast<void*>(static_cast<intptr_t>(pool.size())));
    }
    block_ = block;
    ended_ = 0;
    thread_.assign(threads_, Thread{});
    block_meeting_ = Meeting{};
    for (Warp& warp : warp_) {
      warp.meeting = Meeting{};
    }
    shared_.begin_block();
    make_ready(0, threads_);
    while (ended_ < threads_) {
      if (ready_.empty()) {
        const std::string report = stall();
        abandon();
        throw std::runtime_error(report);
      }
      const std::size_t chosen = random.below(ready_.size());
      running_ = ready_[chosen];
      ready_[chosen] = ready_.back();
      ready_.pop_back();
      thread_[running_].begun = true;
      pool[running_].resume();
      if (failure_) {
        abandon();
        std::rethrow_exception(failure_);
      }
    }
  }

  // Unwinds the threads that are in the middle of the body.
  void abandon() {
    abandoning_ = true;
    for (running_ = 0; running_ < threads_; ++running_) {
      if (thread_[running_].begun && !thread_[running_].ended) {
        fibers()[running_].resume();
      }
    }
  }

  void make_ready(int begin, int end) {
    for (int thread = begin; thread < end; ++thread) {
      ready_.push_back(thread);
    }
  }

  // Back to the scheduler until this thread is chosen again.
  void pause() {
    fibers()[running_].suspend();
    if (abandoning_) {
      throw Abandoned{};
    }
  }

  // Returns true once all `expected` threads have arrived, in the last one; then the caller releases them.
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

  void meet_warp(const Site& site) {
    const int index = running_ / kWarp;
    Warp& warp = warp_[index];
    if (arrive(warp.meeting, kWarp, site)) {
      // Now, before a lane continues and overwrites its operand.
      for (int lane = 0; lane < kWarp; ++lane) {
        warp.result[lane] = warp.operand[warp.source[lane]];
      }
      warp.ballot = 0;
      for (int lane = 0; lane < kWarp; ++lane) {
        warp.ballot |= static_cast<uint32_t>(warp.operand[lane] & 1) << lane;
      }
      ++warp.epoch;
      make_ready(index * kWarp, (index + 1) * kWarp);
    }
    pause();
  }

  // The report of a deadlock: which threads wait where.
  std::string stall() const {
    std::vector<int> ended;
    std::vector<std::pair<Site, std::vector<int>>> waiting;
    for (int thread = 0; thread < threads_; ++thread) {
      if (thread_[thread].ended) {
        ended.push_back(thread);
        continue;
      }
      const Site& site = thread_[thread].waits_at;
      auto group = waiting.begin();
      while (group != waiting.end() && !(group->first.line == site.line)) {
        ++group;
      }
      if (group == waiting.end()) {
        group = waiting.insert(group, {site, {}});
      }
      group->second.push_back(thread);
    }
    std::ostringstream text;
    text << "resnet_cuda emulation: kernel " << kernel_ << ", block " << block_ << ": deadlock: ";
    for (const auto& [site, threads] : waiting) {
      text << thread_ranges(threads) << " at the " << site.what << " in " << site.line << "; ";
    }
    text << (ended.empty() ? "none has ended" : thread_ranges(ended) + " ended without it");
    return text.str();
  }

  std::string kernel_;
  int64_t blocks_;
  int threads_;
  std::function<void()> body_;
  SharedMemory shared_;
  std::vector<Thread> thread_;
  std::vector<Warp> warp_;
  Meeting block_meeting_;
  std::vector<int> ready_;
  std::exception_ptr failure_;
  int64_t block_ = 0;
  int running_ = 0;
  int ended_ = 0;
  bool abandoning_ = false;
};

}  // namespace emulation
}  // namespace resnet_cuda
