// The size of a cache line.
#pragma once

#include <cstdint>

namespace resnet_cuda {

// In bytes; also the widest vector.
constexpr int64_t kCacheLine = 64;

}  // namespace resnet_cuda
