// Scratch memory of the CPU kernels, aligned to a cache line.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#include "common/cache_line.h"

namespace resnet_cuda {

class AlignedBuffer {
 public:
  // `bytes` may be 0: data() is then null.
  explicit AlignedBuffer(int64_t bytes, bool zeroed = false)
      : data_(bytes > 0 ? ::operator new(static_cast<size_t>(bytes), kAlignment) : nullptr) {
    if (zeroed && data_ != nullptr) {
      std::memset(data_, 0, static_cast<size_t>(bytes));
    }
  }
  ~AlignedBuffer() {
    ::operator delete(data_, kAlignment);
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  void* data() const {
    return data_;
  }

 private:
  static constexpr std::align_val_t kAlignment{kCacheLine};
  void* data_;
};

}  // namespace resnet_cuda
