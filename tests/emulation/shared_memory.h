// A block's shared memory with a shadow of every 4-byte word: whether it was set, and which threads accessed it since
// which barrier. For kernels of warpgroups also what is known by other barriers, and what wgmma and bulk copies do.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "async_memory.h"
#include "clocks.h"
#include "fault.h"

namespace resnet_cuda {
namespace emulation {

constexpr int kWarp = 32;  // threads

// A data race: two threads access a word, at least one writes, and nothing orders the accesses. They are ordered by a
// block barrier in between, within a warp also by a warp barrier or shuffle, and with `clocks` by the vector clocks.
//
// epoch_: +1 per block barrier and per block, so nothing need be cleared. An access older than begin_epoch_ belongs to
// another block. warp_epoch: +1 per warp barrier and shuffle.
class SharedMemory {
 public:
  struct Access {
    int thread;
    uint32_t warp_epoch;
    Line line;
  };

  // `clocks` is null for kernels that have only the barriers of blocks and warps.
  SharedMemory(int bytes, int threads, const Clocks* clocks)
      : bytes_(bytes),
        threads_(threads),
        warps_(threads / kWarp),
        data_(bytes > 0 ? new unsigned char[bytes] : nullptr),
        written_(bytes / 4),
        read_(static_cast<std::size_t>(bytes / 4) * warps_),
        clocks_(clocks) {
    if (clocks != nullptr) {
      async_ = std::make_unique<AsyncMemory>(bytes, threads, *clocks);
      read_time_.reset(new uint32_t[static_cast<std::size_t>(bytes / 4) * threads]);
    }
  }

  int bytes() const {
    return bytes_;
  }

  // Poisons the memory: 0xFF bytes are NaN as any floating-point type.
  void begin_block() {
    begin_epoch_ = ++epoch_;
    if (async_) {
      async_->begin_block();
    }
    if (bytes_ > 0) {
      std::memset(data_.get(), 0xFF, bytes_);
    }
  }

  void pass_block_barrier() {
    ++epoch_;
  }

  uint32_t epoch() const {
    return epoch_;
  }
  AsyncMemory& async() {
    return *async_;
  }

  void load(void* target, int begin, int bytes, const Access& access) {
    if (async_) {
      async_->check(begin, bytes, access.thread, access.line, "reads", false);
    }
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      check_read(word, access);
    }
    std::memcpy(target, data_.get() + begin, bytes);
  }

  // Atomically: may meet other threads' additions to the word, but no other access, before the next block barrier.
  void add(int begin, int value, const Access& access) {
    if (async_) {
      async_->check(begin, static_cast<int>(sizeof(value)), access.thread, access.line, "adds to", true);
    }
    const int word = begin / 4;
    const Written& written = written_[word];
    if (written.epoch < begin_epoch_) {
      fail("adds to word ", word, " of shared memory in ", access.line, ", which no thread has set");
    }
    if (!written.by_addition) {
      check_against_write(word, access, "adds to");
    }
    check_against_reads(word, access, "adds to");
    written_[word] = {epoch_, access.warp_epoch, access.thread, access.line, true, time_of(access.thread)};
    int sum;
    std::memcpy(&sum, data_.get() + begin, sizeof(sum));
    sum += value;
    std::memcpy(data_.get() + begin, &sum, sizeof(sum));
  }

  void store(int begin, const void* source, int bytes, const Access& access) {
    if (async_) {
      async_->check(begin, bytes, access.thread, access.line, "writes", true);
    }
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      check_write(word, access);
    }
    std::memcpy(data_.get() + begin, source, bytes);
  }

  // A bulk copy that access.thread starts: its bytes are poison until it ends.
  void begin_copy(int begin, int bytes, const Access& access) {
    if (begin < 0 || begin > bytes_ - bytes) {
      fail("copies to bytes ", begin, " to ", begin + bytes, " of ", bytes_, " in ", access.line);
    }
    async_->check(begin, bytes, access.thread, access.line, "copies to", true);
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      check_against_write(word, access, "copies to");
      check_against_reads(word, access, "copies to");
      check_passed_on(word, access.thread, "copies to", access.line);
    }
    std::memset(data_.get() + begin, 0xFF, bytes);
    async_->begin_copy(begin, bytes, access.line);
  }

  // `copier` and `time` as PhaseBarriers gives them.
  void end_copy(int begin, const void* source, int bytes, int copier, uint32_t time, const Line& line) {
    async_->end_copy(begin, bytes);
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      written_[word] = {epoch_, 0, copier, line, false, time};
    }
    std::memcpy(data_.get() + begin, source, bytes);
  }

  // 16 bytes of an operand of wgmma, for the warpgroup whose first thread is `first`.
  const unsigned char* operand(int begin, int first, const Line& line) {
    if (begin < 0 || begin > bytes_ - 16) {
      fail("wgmma in ", line, " reads bytes ", begin, " to ", begin + 16, " of ", bytes_, " bytes of shared memory");
    }
    async_->check_operand(begin / 16, line);
    for (int word = begin / 4; word < begin / 4 + 4; ++word) {
      for (int reader = first; reader < first + 4 * kWarp; reader += kWarp) {
        const Access access{reader, 0, line};
        const Written& written = written_[word];
        if (written.epoch < begin_epoch_) {
          fail("wgmma in ", line, " reads word ", word, " of shared memory, which nobody has set");
        }
        if (!clocks_->saw(reader, written.thread, written.time)) {
          report_unknown(word, access, "reads, by wgmma,");
        }
        check_passed_on(word, reader, "reads, by wgmma,", line);
      }
    }
    return data_.get() + begin;
  }

 private:
  struct Written {
    uint32_t epoch = 0;
    uint32_t warp_epoch = 0;
    int thread = -1;  // or, from the number of threads on, a bulk copy
    Line line;
    bool by_addition = false;
    uint32_t time = 0;  // on the clock of `thread`
  };
  // By the threads of one warp since its latest barrier.
  struct Read {
    uint32_t epoch = 0;
    uint32_t warp_epoch = 0;
    uint32_t lanes = 0;
    Line line;
  };

  void check_read(int word, const Access& access) {
    const Written& written = written_[word];
    if (written.epoch < begin_epoch_) {
      fail("reads word ", word, " of shared memory in ", access.line, ", which no thread has set");
    }
    check_against_write(word, access, "reads");
    const int warp = access.thread / kWarp;
    Read& read = read_[static_cast<std::size_t>(word) * warps_ + warp];
    if (read.epoch != epoch_ || read.warp_epoch != access.warp_epoch) {
      read = {epoch_, access.warp_epoch, 0, access.line};
    }
    read.lanes |= uint32_t{1} << access.thread % kWarp;
    if (clocks_ != nullptr) {
      read_time(word, access.thread) = time_of(access.thread);
    }
  }

  uint32_t time_of(int thread) const {
    return clocks_ == nullptr ? 0 : clocks_->now(thread);
  }
  uint32_t& read_time(int word, int thread) const {
    return read_time_[static_cast<std::size_t>(word) * threads_ + thread];
  }

  // What threads wrote, wgmma and bulk copies see only after a fence, of the writer or of the reader.
  void check_passed_on(int word, int reader, const char* what, const Line& line) const {
    const Written& written = written_[word];
    const bool by_thread = written.epoch >= begin_epoch_ && written.thread < threads_;
    if (by_thread && !async_->passed_on(written.thread, written.time, reader)) {
      fail(
          what,
          " word ",
          word,
          " of shared memory in ",
          line,
          ", which thread ",
          written.thread,
          " wrote in ",
          written.line,
          ", without a fence_async_proxy() in between");
    }
  }

  [[noreturn]] void report_unknown(int word, const Access& access, const char* what) const {
    const Written& written = written_[word];
    if (written.thread < threads_) {
      report_race(word, access, what, written.thread, "wrote", written.line);
    }
    fail(
        what,
        " word ",
        word,
        " of shared memory in ",
        access.line,
        ": thread ",
        access.thread,
        " has not waited for the copy of ",
        written.line);
  }

  void check_write(int word, const Access& access) {
    check_against_write(word, access, "writes");
    check_against_reads(word, access, "writes");
    written_[word] = {epoch_, access.warp_epoch, access.thread, access.line, false, time_of(access.thread)};
  }

  void check_against_reads(int word, const Access& access, const char* what) const {
    const int warp = access.thread / kWarp;
    for (int other = 0; other < warps_; ++other) {
      const Read& read = read_[static_cast<std::size_t>(word) * warps_ + other];
      if (read.epoch != epoch_) {
        continue;
      }
      uint32_t lanes = read.lanes;
      if (other == warp) {
        lanes = read.warp_epoch == access.warp_epoch ? lanes & ~(uint32_t{1} << access.thread % kWarp) : 0;
      }
      for (; lanes != 0; lanes &= lanes - 1) {
        const int reader = other * kWarp + __builtin_ctz(lanes);
        if (clocks_ == nullptr || !clocks_->saw(access.thread, reader, read_time(word, reader))) {
          report_race(word, access, what, reader, "read", read.line);
        }
      }
    }
  }

  void check_against_write(int word, const Access& access, const char* what) const {
    const Written& written = written_[word];
    if (written.thread >= threads_ && written.epoch >= begin_epoch_) {
      if (!clocks_->saw(access.thread, written.thread, written.time)) {
        report_unknown(word, access, what);
      }
      return;
    }
    // Other threads may have added besides the one that is noted.
    if (written.epoch != epoch_ || (written.thread == access.thread && !written.by_addition)) {
      return;
    }
    const bool one_warp = !written.by_addition && written.thread / kWarp == access.thread / kWarp;
    if (!one_warp || written.warp_epoch == access.warp_epoch) {
      if (clocks_ != nullptr && !written.by_addition && clocks_->saw(access.thread, written.thread, written.time)) {
        return;
      }
      report_race(word, access, what, written.thread, "wrote", written.line);
    }
  }

  [[noreturn]] static void report_race(
      int word,
      const Access& access,
      const char* what,
      int other,
      const char* other_what,
      const Line& other_line) {
    fail(
        "race on word ",
        word,
        " of shared memory: thread ",
        access.thread,
        ' ',
        what,
        " it in ",
        access.line,
        ", thread ",
        other,
        ' ',
        other_what,
        " it in ",
        other_line,
        ", and no barrier lies between");
  }

  int bytes_;
  int threads_;
  int warps_;
  std::unique_ptr<unsigned char[]> data_;  // exactly as large as asked for, for AddressSanitizer
  std::vector<Written> written_;           // [words]
  std::vector<Read> read_;                 // [words, warps]
  const Clocks* clocks_;
  std::unique_ptr<AsyncMemory> async_;
  std::unique_ptr<uint32_t[]> read_time_;  // [words, threads], of the reads in read_
  uint32_t epoch_ = 0;
  uint32_t begin_epoch_ = 0;
};

}  // namespace emulation
}  // namespace resnet_cuda
