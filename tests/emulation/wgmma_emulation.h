// wgmma on the CPU. Operands are found by decoding the bit fields of their descriptors.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "fault.h"
#include "shared_memory.h"

namespace resnet_cuda {
namespace emulation {

// Where shared memory begins, as descriptors have it: not at 0, so that a place is not taken for an address.
constexpr uint32_t kSharedAddress = 1024;

// k of one product: 32 bytes of a row.
template <typename T>
constexpr int kProductDepth = 32 / static_cast<int>(sizeof(T));

// To nearest even, with 10 bits behind the point.
inline float rounded_to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7f800000) == 0x7f800000) {
    return value;  // infinite, or NaN
  }
  bits += 0x0fff + (bits >> 13 & 1);  // past half of the last bit, or at half where that is odd: carries into it
  bits &= ~uint32_t{0x1fff};
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// wgmma would drop the lower 13 bits of a float32, so that the result would be off by up to a bit of TF32's.
inline void check_rounded(float value, const Line& line) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x1fff) != 0 && value == value) {
    fail("wgmma in ", line, " reads ", value, ", which was not rounded to TF32");
  }
}

// A descriptor, taken apart again. PTX ISA, "Matrix Descriptor Format" and "Strides" of wgmma.
class Operand {
 public:
  Operand(uint64_t bits, bool side_major, const char* name, const Line& line) : side_major_(side_major) {
    start_ = static_cast<int>(bits & 0x3fff) << 4;
    leading_ = static_cast<int>(bits >> 16 & 0x3fff) << 4;
    stride_ = static_cast<int>(bits >> 32 & 0x3fff) << 4;
    const uint64_t unused = uint64_t{3} << 14 | uint64_t{3} << 30 | uint64_t{7} << 46 | uint64_t{0x3ff} << 52;
    if ((bits & unused) != 0) {
      fail("wgmma in ", line, ": ", name, "'s descriptor sets bits that are not used");
    }
    if (bits >> 62 != 1) {
      fail("wgmma in ", line, ": ", name, "'s swizzle is ", bits >> 62, "; only 1, of 128 bytes, is emulated");
    }
    // The pattern begins at multiples of 1024 bytes: the base offset is 0, and the first row an atom's first.
    const int in_row = start_ % 128;
    if ((bits >> 49 & 7) != 0 || start_ % 1024 != in_row || (side_major ? in_row != 0 : in_row + 32 > 128)) {
      fail("wgmma in ", line, ": ", name, " begins at address ", start_, ", which is not in an atom's first row");
    }
  }

  // The byte of an element of `bytes` bytes, `side` of m or n and `depth` of k, in shared memory. Of m or n in a row
  // there are only 16-bit elements.
  int place(int side, int depth, int bytes) const {
    const int address = side_major_
                            ? start_ + side % 64 * 2 + side / 64 * leading_ + depth % 8 * 128 + depth / 8 * stride_
                            : start_ + side % 8 * 128 + side / 8 * stride_ + depth * bytes;
    return (address ^ (address >> 7 & 7) << 4) - static_cast<int>(kSharedAddress);
  }

 private:
  bool side_major_;
  int start_;
  int leading_;
  int stride_;
};

// The elements of an operand, [sides][kProductDepth<T>], for the warpgroup whose first thread is `first`. The 16 bytes
// that hold them go to `units`.
template <typename T>
std::vector<float> read_operand(
    SharedMemory& shared,
    const Operand& operand,
    int sides,
    int first,
    const Line& line,
    std::vector<int>& units) {
  constexpr int kDepth = kProductDepth<T>;
  std::vector<float> elements(static_cast<std::size_t>(sides) * kDepth);
  std::vector<const unsigned char*> seen((shared.bytes() + 15) / 16, nullptr);
  for (int side = 0; side < sides; ++side) {
    for (int depth = 0; depth < kDepth; ++depth) {
      const int place = operand.place(side, depth, sizeof(T));
      const bool inside = place >= 0 && place / 16 < static_cast<int>(seen.size());
      const unsigned char* unit = inside ? seen[place / 16] : nullptr;
      if (unit == nullptr) {
        unit = shared.operand(place < 0 ? place : place / 16 * 16, first, line);
        seen[place / 16] = unit;
        units.push_back(place / 16);
      }
      T element;
      std::memcpy(&element, unit + place % 16, sizeof(element));
      elements[static_cast<std::size_t>(side) * kDepth + depth] = static_cast<float>(element);
      if constexpr (sizeof(T) == 4) {
        check_rounded(element, line);
      }
    }
  }
  return elements;
}

// Which thread has which sum: element `index` of `thread`'s. PTX ISA, figure "accumulator D" of wgmma: a warp has 16
// rows, whose first and second eight alternate in pairs of elements; four threads share a row, with two columns of
// every eight. Written the other way round than result_row and result_column of warpgroup.cuh, so that these can be
// wrong.
struct Holder {
  int thread;
  int index;
};
inline Holder holder_of(int row, int column) {
  return {(row >> 4) * 32 + (row & 7) * 4 + (column & 7) / 2, (column >> 3) * 4 + (row & 8) / 4 + (column & 1)};
}

// Products are exact in float32 and added in the order of k; a GPU adds with fewer bits than that.
inline float dot(const float* a, const float* b, int depths, float sum) {
  for (int depth = 0; depth < depths; ++depth) {
    sum += a[depth] * b[depth];
  }
  return sum;
}

}  // namespace emulation
}  // namespace resnet_cuda
