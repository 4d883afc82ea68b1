// Division by an invariant divisor as a multiplication and a shift: a GPU has no instruction for integer division.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {

// Exact for every numerator in [0, 2^63) (Granlund and Montgomery, "Division by invariant integers using
// multiplication", 1994): with 2^shift the first power of 2 from the divisor on, numerator / divisor is
// (high 64 bits of numerator * multiplier + numerator) >> shift, whose sum stays below 2^64.
class FastDivision {
 public:
  FastDivision() = default;

  // `divisor` is positive.
  explicit FastDivision(int64_t divisor) : divisor_(divisor) {
    const auto unsigned_divisor = static_cast<uint64_t>(divisor);
    while ((uint64_t{1} << shift_) < unsigned_divisor) {
      ++shift_;
    }
    const uint64_t above = (uint64_t{1} << shift_) - unsigned_divisor;
    multiplier_ = static_cast<uint64_t>((static_cast<Wide>(above) << 64) / unsigned_divisor + 1);
  }

  RESNET_CUDA_HOST_DEVICE int64_t quotient(int64_t numerator) const {
    const auto bits = static_cast<uint64_t>(numerator);
    return static_cast<int64_t>((multiply_high(bits, multiplier_) + bits) >> shift_);
  }

  RESNET_CUDA_HOST_DEVICE int64_t remainder(int64_t numerator) const {
    return numerator - quotient(numerator) * divisor_;
  }

  RESNET_CUDA_HOST_DEVICE int64_t divisor() const {
    return divisor_;
  }

 private:
  __extension__ typedef unsigned __int128 Wide;

  RESNET_CUDA_HOST_DEVICE static uint64_t multiply_high(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)
    return __umul64hi(a, b);
#else
    return static_cast<uint64_t>((static_cast<Wide>(a) * b) >> 64);
#endif
  }

  int64_t divisor_ = 1;
  uint64_t multiplier_ = 1;
  int shift_ = 0;
};

// The same for numerators and divisors below 2^31, in fewer instructions: multiplier = ceil(2^(31 + s) / divisor) with
// 2^s the first power of 2 from the divisor on. It exceeds the exact quotient by less than 1, so the result by less
// than numerator / 2^(31 + s) < 1 / divisor: too little to reach the next whole number.
class FastDivision32 {
 public:
  FastDivision32() = default;

  // `divisor` is positive.
  explicit FastDivision32(int divisor) : divisor_(divisor) {
    while ((int64_t{1} << (shift_ - 31)) < divisor) {
      ++shift_;
    }
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << shift_) + static_cast<uint64_t>(divisor) - 1) / divisor);
  }

  RESNET_CUDA_HOST_DEVICE int quotient(int numerator) const {
    return static_cast<int>((static_cast<uint64_t>(static_cast<uint32_t>(numerator)) * multiplier_) >> shift_);
  }

  RESNET_CUDA_HOST_DEVICE int remainder(int numerator) const {
    return numerator - quotient(numerator) * divisor_;
  }

  RESNET_CUDA_HOST_DEVICE int divisor() const {
    return divisor_;
  }

 private:
  int divisor_ = 1;
  uint32_t multiplier_ = uint32_t{1} << 31;
  int shift_ = 31;
};

}  // namespace resnet_cuda
