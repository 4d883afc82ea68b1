// The memory that the processor moves in one go.
#pragma once

#include <cstdint>

namespace resnet_cuda {

// In bytes. Also the widest vector, and what stores past the caches fill whole, one behind the other.
constexpr int64_t kCacheLine = 64;

}  // namespace resnet_cuda
