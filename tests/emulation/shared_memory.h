// A block's shared memory with a shadow of every 4-byte word: whether it was set, and which threads accessed it since
// which barrier.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "fault.h"

namespace resnet_cuda {
namespace emulation {

constexpr int kWarp = 32;  // threads

// Two accesses to a word, at least one of them a write, by different threads race unless something orders them: a
// block barrier in between or, for threads of one warp, a warp barrier or shuffle.
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

  SharedMemory(int bytes, int threads)
      : bytes_(bytes),
        warps_(threads / kWarp),
        data_(bytes > 0 ? new unsigned char[bytes] : nullptr),
        written_(bytes / 4),
        read_(static_cast<std::size_t>(bytes / 4) * warps_) {
  }

  int bytes() const {
    return bytes_;
  }

  // Poisons the memory: 0xFF bytes are NaN as any floating-point type.
  void begin_block() {
    begin_epoch_ = ++epoch_;
    if (bytes_ > 0) {
      std::memset(data_.get(), 0xFF, bytes_);
    }
  }

  void pass_block_barrier() {
    ++epoch_;
  }

  void load(void* target, int begin, int bytes, const Access& access) {
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      check_read(word, access);
    }
    std::memcpy(target, data_.get() + begin, bytes);
  }

  // Atomically: may meet other threads' additions to the word, but no other access, before the next block barrier.
  void add(int begin, int value, const Access& access) {
    const int word = begin / 4;
    const Written& written = written_[word];
    if (written.epoch < begin_epoch_) {
      fail("adds to word ", word, " of shared memory in ", access.line, ", which no thread has set");
    }
    if (!written.by_addition) {
      check_against_write(word, access, "adds to");
    }
    check_against_reads(word, access, "adds to");
    written_[word] = {epoch_, access.warp_epoch, access.thread, access.line, true};
    int sum;
    std::memcpy(&sum, data_.get() + begin, sizeof(sum));
    sum += value;
    std::memcpy(data_.get() + begin, &sum, sizeof(sum));
  }

  void store(int begin, const void* source, int bytes, const Access& access) {
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      check_write(word, access);
    }
    std::memcpy(data_.get() + begin, source, bytes);
  }

 private:
  struct Written {
    uint32_t epoch = 0;
    uint32_t warp_epoch = 0;
    int thread = -1;
    Line line;
    bool by_addition = false;
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
  }

  void check_write(int word, const Access& access) {
    check_against_write(word, access, "writes");
    check_against_reads(word, access, "writes");
    written_[word] = {epoch_, access.warp_epoch, access.thread, access.line, false};
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
      if (lanes != 0) {
        const int reader = other * kWarp + __builtin_ctz(lanes);
        report_race(word, access, what, reader, "read", read.line);
      }
    }
  }

  void check_against_write(int word, const Access& access, const char* what) const {
    const Written& written = written_[word];
    // Other threads may have added besides the one that is noted.
    if (written.epoch != epoch_ || (written.thread == access.thread && !written.by_addition)) {
      return;
    }
    const bool one_warp = !written.by_addition && written.thread / kWarp == access.thread / kWarp;
    if (!one_warp || written.warp_epoch == access.warp_epoch) {
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
  int warps_;
  std::unique_ptr<unsigned char[]> data_;  // exactly as large as asked for, for AddressSanitizer
  std::vector<Written> written_;           // [words]
  std::vector<Read> read_;                 // [words, warps]
  uint32_t epoch_ = 0;
  uint32_t begin_epoch_ = 0;
};

}  // namespace emulation
}  // namespace resnet_cuda
