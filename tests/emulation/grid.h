// Runs the threads of a grid on the launching thread: one block at a time, one fiber per CUDA thread, in an order that
// a seed permutes anew at every step; barriers and shuffles are meetings of fibers. Between two steps bulk copies end.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "async_block.h"
#include "clocks.h"
#include "fault.h"
#include "fiber.h"
#include "seed.h"
#include "shared_memory.h"

namespace resnet_cuda {
namespace emulation {

class Grid {
 public:
  // `registers`: that the launch gives a thread, of a body written against warpgroup.cuh; 0 of others.
  Grid(std::string kernel, int64_t blocks, int threads, int shared_bytes, int registers, std::function<void()> body)
      : kernel_(std::move(kernel)),
        blocks_(blocks),
        threads_(threads),
        body_(std::move(body)),
        clocks_(registers > 0 ? std::make_unique<Clocks>(threads, PhaseBarriers::kMost) : nullptr),
        shared_(shared_bytes, threads, clocks_.get()),
        async_(registers > 0 ? std::make_unique<AsyncBlock>(*clocks_, shared_, threads, registers) : nullptr),
        thread_(threads),
        warp_(threads / kWarp),
        warpgroup_(threads / (4 * kWarp)) {
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
      if (clocks_) {
        clocks_->meet(0, threads_);
      }
      make_ready(0, threads_);
    }
    pause();
  }

  void sync_warp(const Line& line) {
    meet_warp({"warp barrier", line});
  }

  // --- of warpgroup.cuh

  void make_barrier(int place, int arrivals, const Line& line) {
    const int words[2] = {0, 0};
    shared_.store(place, words, sizeof(words), access(line));
    async().barriers.init(place, arrivals, running_, shared_.epoch(), line);
    shared_.async().reserve_barrier(place);
  }

  void publish_barriers() {
    async().barriers.publish(running_);
  }

  void arrive_at(int place, int bytes, const Line& line) {
    async().barriers.arrive(find_barrier(place, line), running_, bytes, line);
    wake();
  }

  void wait_at(int place, int parity, const Line& line) {
    const int number = find_barrier(place, line);
    const int64_t phase = async().barriers.asked_phase(number, running_, parity, line);
    while (!async().barriers.ended(number, phase)) {
      thread_[running_].waits_at = {"phase barrier", line};
      thread_[running_].barrier = number;
      async().barriers.add_waiter(number, running_);
      pause();
      thread_[running_].barrier = -1;
    }
    async().barriers.pass(number, running_, phase, line);
  }

  void copy(int place, const void* source, int bytes, int barrier, const Line& line) {
    async().copy(place, source, bytes, find_barrier(barrier, line), access(line));
  }

  void fence_async_proxy() {
    async();
    shared_.async().fence(running_);
    clocks_->tick(running_);
  }

  // A barrier of some of the block's threads.
  void sync_threads(int number, int threads, const Line& line) {
    if (number < 1 || number > 15 || threads < kWarp || threads > threads_ || threads % kWarp != 0) {
      fail("syncs ", threads, " threads at barrier ", number, " in ", line);
    }
    async();
    Named& named = named_[number];
    if (!named.threads.empty() && named.count != threads) {
      fail("syncs ", threads, " threads at barrier ", number, " in ", line, ", where ", named.count, " are expected");
    }
    named.count = threads;
    named.threads.push_back(running_);
    if (arrive(named.meeting, threads, {"named barrier", line})) {
      clocks_->meet(named.threads);
      ready_.insert(ready_.end(), named.threads.begin(), named.threads.end());
      named.threads.clear();
    }
    pause();
  }

  void set_registers(int count, bool raise, const Line& line) {
    const int warp = running_ / kWarp;
    meet_warp({"setmaxnreg", line}, [] {});
    if (running_ % kWarp == 0) {
      while (!async().set_registers(warp, count, raise, line)) {
        thread_[running_].waits_at = {"setmaxnreg, for registers that others have,", line};
        register_waiters_.push_back(running_);
        pause();
      }
      ready_.insert(ready_.end(), register_waiters_.begin(), register_waiters_.end());
      register_waiters_.clear();
    }
    meet_warp({"setmaxnreg", line}, [] {});
  }

  // What each thread of a warpgroup passes to wgmma.
  struct Multiply {
    uint64_t a, b;
    bool accumulate;
    float* sums;
  };

  // Calls multiply(first thread, what all 128 threads pass) once all have arrived; it gives the 16 bytes that are read.
  template <typename Product>
  void multiply(const Multiply& mine, const Line& line, const Product& product) {
    const int index = running_ / (4 * kWarp);
    async();
    if (index >= static_cast<int>(warpgroup_.size())) {
      fail("wgmma in ", line, " by threads of no whole warpgroup");
    }
    Warpgroup& its = warpgroup_[index];
    its.operand[running_ % (4 * kWarp)] = mine;
    if (arrive(its.meeting, 4 * kWarp, {"wgmma", line})) {
      for (const Multiply& other : its.operand) {
        if (other.a != mine.a || other.b != mine.b || other.accumulate != mine.accumulate) {
          fail("wgmma in ", line, " with different operands in different threads");
        }
      }
      const int first = index * 4 * kWarp;
      async_->add_product(first / kWarp, product(first, its.operand), line);
      make_ready(first, first + 4 * kWarp);
    }
    pause();
  }

  void fence_products(const Line& line) {
    async();
    meet_warp({"begin_products", line});
  }
  void commit_products(const Line& line) {
    meet_warp({"commit_products", line}, [this] { async().commit(running_ / kWarp); });
  }
  void wait_products(int pending, const Line& line) {
    meet_warp({"wait_products", line}, [this, pending] { async().wait(running_ / kWarp, pending); });
  }
  int64_t products() {
    return async().products(running_ / kWarp);
  }
  int64_t products_done() {
    return async().done(running_ / kWarp);
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
    int barrier = -1;  // in shared memory, that it waits at
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
  struct Warpgroup {
    Meeting meeting;
    Multiply operand[4 * kWarp];
  };
  struct Named {
    Meeting meeting;
    int count = 0;
    std::vector<int> threads;
  };
  static constexpr std::size_t kStepsPerCopy = 200;  // between the ends of two bulk copies, on average

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

  std::string block_described() const {
    return "resnet_cuda emulation: kernel " + kernel_ + ", block " + std::to_string(block_);
  }
  std::string described(const Fault& fault) const {
    return block_described() + ", thread " + std::to_string(running_) + ": " + fault.message;
  }

  AsyncBlock& async() {
    if (!async_) {
      fail("uses warpgroup.cuh, but its body has no kWarpgroups");
    }
    return *async_;
  }

  int find_barrier(int place, const Line& line) {
    return async().barriers.find(place, running_, shared_.epoch(), line);
  }

  // Those who wait for phases that have ended.
  void wake() {
    const std::vector<int> woken = async_->barriers.take_woken();
    ready_.insert(ready_.end(), woken.begin(), woken.end());
  }

  // Now and then a copy ends; where nobody can go on, as many as that takes.
  void end_copies(Random& random) {
    if (async_ && async_->copying() && (ready_.empty() || random.below(kStepsPerCopy) == 0)) {
      do {
        async_->end_copy(random);
        wake();
      } while (ready_.empty() && async_->copying());
    }
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
    for (Warpgroup& warpgroup : warpgroup_) {
      warpgroup.meeting = Meeting{};
    }
    named_.clear();
    register_waiters_.clear();
    if (async_) {
      async_->begin_block();
    }
    shared_.begin_block();
    make_ready(0, threads_);
    while (ended_ < threads_) {
      try {
        end_copies(random);
      } catch (const Fault& fault) {
        const std::string report = block_described() + ": " + fault.message;
        abandon();
        throw std::runtime_error(report);
      }
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
    if (async_) {
      try {
        async_->end_block();
      } catch (const Fault& fault) {
        throw std::runtime_error(block_described() + ": " + fault.message);
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
    meet_warp(site, [] {});
  }

  // `then` is called once, before anyone continues.
  template <typename Then>
  void meet_warp(const Site& site, const Then& then) {
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
      if (clocks_) {
        clocks_->meet(index * kWarp, (index + 1) * kWarp);
      }
      then();
      make_ready(index * kWarp, (index + 1) * kWarp);
    }
    pause();
  }

  // The report of a deadlock: which threads wait where.
  std::string stall() const {
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
    text << block_described() << ": deadlock: ";
    for (const Waiting& group : waiting) {
      const std::string what = group.barrier < 0 ? group.site.what : async_->barriers.described(group.barrier);
      text << thread_ranges(group.threads) << " at the " << what << " in " << group.site.line << "; ";
    }
    text << (ended.empty() ? "none has ended" : thread_ranges(ended) + " ended without it");
    return text.str();
  }

  std::string kernel_;
  int64_t blocks_;
  int threads_;
  std::function<void()> body_;
  std::unique_ptr<Clocks> clocks_;  // of bodies that use warpgroup.cuh, as async_
  SharedMemory shared_;
  std::unique_ptr<AsyncBlock> async_;
  std::vector<Thread> thread_;
  std::vector<Warp> warp_;
  std::vector<Warpgroup> warpgroup_;
  std::map<int, Named> named_;
  std::vector<int> register_waiters_;
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
