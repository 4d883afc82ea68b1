// Numbers from the environment, and the order that follows from a seed.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace resnet_cuda {
namespace emulation {

inline int64_t environment_number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoll(text, nullptr, 10);
}

// splitmix64: any seed does.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {
  }
  // In [0, end).
  std::size_t below(std::size_t end) {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<std::size_t>((z ^ (z >> 31)) % end);
  }

 private:
  uint64_t state_;
};

}  // namespace emulation
}  // namespace resnet_cuda
