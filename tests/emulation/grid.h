// Runs the threads of a grid on the launching thread: one block at a time, in an order that a seed permutes;
// scheduler.h chooses the thread that runs. Barriers and shuffles are meetings of threads. Between two steps bulk
// copies end.
#pragma once

#include <cstdint>
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
#include "scheduler.h"
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
        scheduler_(threads, std::move(body)),
        clocks_(registers > 0 ? std::make_unique<Clocks>(threads, PhaseBarriers::kMost) : nullptr),
        shared_(shared_bytes, threads, clocks_.get()),
        async_(registers > 0 ? std::make_unique<AsyncBlock>(*clocks_, shared_, threads, registers) : nullptr),
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
    return running();
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
    return {running(), warp_[running() / kWarp].epoch, line};
  }

  void sync_block(const Line& line) {
    if (scheduler_.arrive(block_meeting_, threads_, {"block barrier", line})) {
      shared_.pass_block_barrier();
      if (clocks_) {
        clocks_->meet(0, threads_);
      }
      scheduler_.make_ready(0, threads_);
    }
    scheduler_.pause();
  }

  void sync_warp(const Line& line) {
    meet_warp({"warp barrier", line});
  }

  // --- of warpgroup.cuh

  void make_barrier(int place, int arrivals, const Line& line) {
    const int words[2] = {0, 0};
    shared_.store(place, words, sizeof(words), access(line));
    async().barriers.init(place, arrivals, running(), shared_.epoch(), line);
    shared_.async().reserve_barrier(place);
  }

  void publish_barriers() {
    async().barriers.publish(running());
  }

  void arrive_at(int place, int bytes, const Line& line) {
    async().barriers.arrive(find_barrier(place, line), running(), bytes, line);
    wake();
  }

  void wait_at(int place, int parity, const Line& line) {
    const int number = find_barrier(place, line);
    const int64_t phase = async().barriers.asked_phase(number, running(), parity, line);
    while (!async().barriers.ended(number, phase)) {
      async().barriers.add_waiter(number, running());
      scheduler_.wait({"phase barrier", line}, number);
    }
    async().barriers.pass(number, running(), phase, line);
  }

  void copy(int place, const void* source, int bytes, int barrier, const Line& line) {
    async().copy(place, source, bytes, find_barrier(barrier, line), access(line));
  }

  void fence_async_proxy() {
    async();
    shared_.async().fence(running());
    clocks_->tick(running());
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
    named.threads.push_back(running());
    if (scheduler_.arrive(named.meeting, threads, {"named barrier", line})) {
      clocks_->meet(named.threads);
      scheduler_.make_ready(named.threads);
      named.threads.clear();
    }
    scheduler_.pause();
  }

  void set_registers(int count, bool raise, const Line& line) {
    const int warp = running() / kWarp;
    meet_warp({"setmaxnreg", line}, [] {});
    if (running() % kWarp == 0) {
      while (!async().set_registers(warp, count, raise, line)) {
        register_waiters_.push_back(running());
        scheduler_.wait({"setmaxnreg, for registers that others have,", line});
      }
      scheduler_.make_ready(register_waiters_);
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
    const int index = running() / (4 * kWarp);
    async();
    if (index >= static_cast<int>(warpgroup_.size())) {
      fail("wgmma in ", line, " by threads of no whole warpgroup");
    }
    Warpgroup& its = warpgroup_[index];
    its.operand[running() % (4 * kWarp)] = mine;
    if (scheduler_.arrive(its.meeting, 4 * kWarp, {"wgmma", line})) {
      for (const Multiply& other : its.operand) {
        if (other.a != mine.a || other.b != mine.b || other.accumulate != mine.accumulate) {
          fail("wgmma in ", line, " with different operands in different threads");
        }
      }
      const int first = index * 4 * kWarp;
      async_->add_product(first / kWarp, product(first, its.operand), line);
      scheduler_.make_ready(first, first + 4 * kWarp);
    }
    scheduler_.pause();
  }

  void fence_products(const Line& line) {
    async();
    meet_warp({"begin_products", line});
  }
  void commit_products(const Line& line) {
    meet_warp({"commit_products", line}, [this] { async().commit(running() / kWarp); });
  }
  void wait_products(int pending, const Line& line) {
    meet_warp({"wait_products", line}, [this, pending] { async().wait(running() / kWarp, pending); });
  }
  int64_t products() {
    return async().products(running() / kWarp);
  }
  int64_t products_done() {
    return async().done(running() / kWarp);
  }

  // The bits that lane `source` passes in the same shuffle.
  uint64_t shuffle(uint64_t bits, int source, const Line& line) {
    Warp& warp = warp_[running() / kWarp];
    const int lane = running() % kWarp;
    warp.operand[lane] = bits;
    warp.source[lane] = source;
    meet_warp({"shuffle", line});
    return warp.result[lane];
  }

  // Bit i: what lane i passes in the same ballot.
  uint32_t ballot(bool predicate, const Line& line) {
    Warp& warp = warp_[running() / kWarp];
    warp.operand[running() % kWarp] = predicate ? 1 : 0;
    meet_warp({"ballot", line});
    return warp.ballot;
  }

  // Lets other threads run first, or not, as the seed has it.
  void yield() {
    scheduler_.make_ready(running(), running() + 1);
    scheduler_.pause();
  }

 private:
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

  std::string block_described() const {
    return "resnet_cuda emulation: kernel " + kernel_ + ", block " + std::to_string(block_);
  }
  int running() const {
    return scheduler_.running();
  }

  AsyncBlock& async() {
    if (!async_) {
      fail("uses warpgroup.cuh, but its body has no kWarpgroups");
    }
    return *async_;
  }

  int find_barrier(int place, const Line& line) {
    return async().barriers.find(place, running(), shared_.epoch(), line);
  }

  // Those who wait for phases that have ended.
  void wake() {
    scheduler_.make_ready(async_->barriers.take_woken());
  }

  // Now and then a copy ends; where nobody can go on, as many as that takes.
  void end_copies(Random& random) {
    if (async_ && async_->copying() && (scheduler_.none_is_ready() || random.below(kStepsPerCopy) == 0)) {
      do {
        async_->end_copy(random);
        wake();
      } while (scheduler_.none_is_ready() && async_->copying());
    }
  }

  void run_block(int64_t block, Random random) {
    block_ = block;
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
    scheduler_.begin_block();
    try {
      run_threads(random);
    } catch (...) {
      scheduler_.abandon();
      throw;
    }
    if (async_) {
      reported([&] { async_->end_block(); });
    }
  }

  void run_threads(Random& random) {
    while (!scheduler_.all_ended()) {
      reported([&] { end_copies(random); });
      if (scheduler_.none_is_ready()) {
        const auto described = [this](int barrier) { return async_->barriers.described(barrier); };
        throw std::runtime_error(block_described() + ": " + scheduler_.deadlock(described));
      }
      try {
        scheduler_.step(random);
      } catch (const Fault& fault) {
        throw std::runtime_error(block_described() + ", thread " + std::to_string(running()) + ": " + fault.message);
      }
    }
  }

  // A fault in what no thread does.
  template <typename Step>
  void reported(const Step& step) {
    try {
      step();
    } catch (const Fault& fault) {
      throw std::runtime_error(block_described() + ": " + fault.message);
    }
  }

  void meet_warp(const Site& site) {
    meet_warp(site, [] {});
  }

  // `then` is called once, before anyone continues.
  template <typename Then>
  void meet_warp(const Site& site, const Then& then) {
    const int index = running() / kWarp;
    Warp& warp = warp_[index];
    if (scheduler_.arrive(warp.meeting, kWarp, site)) {
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
      scheduler_.make_ready(index * kWarp, (index + 1) * kWarp);
    }
    scheduler_.pause();
  }

  std::string kernel_;
  int64_t blocks_;
  int threads_;
  Scheduler scheduler_;
  std::unique_ptr<Clocks> clocks_;  // of bodies that use warpgroup.cuh, as async_
  SharedMemory shared_;
  std::unique_ptr<AsyncBlock> async_;
  std::vector<Warp> warp_;
  std::vector<Warpgroup> warpgroup_;
  std::map<int, Named> named_;
  std::vector<int> register_waiters_;
  Meeting block_meeting_;
  int64_t block_ = 0;
};

}  // namespace emulation
}  // namespace resnet_cuda
