// The number of threads of a pass over memory, and which tensors its 32-bit indices can hold.
#pragma once

#include <cstddef>

#include "common/host_device.h"

namespace resnet_cuda {
namespace frozen_bn_cuda {

constexpr int kThreads = 256;
// Packs that a thread loads before it uses the first.
constexpr int kInFlight = 4;
// The same where every pack has constants of its own, which take registers: half as many of 2 tensors (3 of each were
// slower on an H200) and of float64.
constexpr int in_flight_with_constants(int tensors, std::size_t bytes_of_a_constant) {
  return bytes_of_a_constant > 4 || tensors > 1 ? kInFlight / 2 : kInFlight;
}
// Blocks that run at once on a multiprocessor, whatever the kernel: launch.cuh bounds the registers to 64. On the 132
// multiprocessors of an H200 such a wave loads 8.6 MB of a tensor at once, 64 KiB on each. By Little's law the memory
// needs about 20 KB on each: 3 TB/s of reads / 132 x a latency of 0.9 us, which is assumed.
constexpr int kResidentBlocks = 4;
// A tensor that one wave covers in at most this many rounds gets one wave: a second one would repeat the launch of its
// thread blocks, the index arithmetic and the loads of the constants, in series. Larger tensors get kWaves, since
// multiprocessors differ in speed and the next free one takes the next block.
constexpr int kOneWaveRounds = 4;
constexpr int kWaves = 2;
static_assert(
    kInFlight > 1 && kResidentBlocks > 0 && kOneWaveRounds > 0 && kWaves > 0,
    "a thread takes packs, a multiprocessor blocks");

// One pack per thread while that does not fill a wave, several beyond. At least one block: the tail, elements after
// the last whole pack, needs it.
inline int64_t blocks_for(int64_t packs, int in_flight, int multiprocessors) {
  const int64_t wave = int64_t{multiprocessors} * kResidentBlocks;
  const int64_t most = packs <= wave * kThreads * in_flight * kOneWaveRounds ? wave : wave * kWaves;
  const int64_t wanted = ceil_div(packs, kThreads);
  return wanted < 1 ? 1 : smaller(wanted, most);
}

// Whether 32 bits hold the indices of `packs` packs and of the channels: a thread's last round counts up to
// packs + (2 * kInFlight - 1) strides, a stride is at most the number of channels or of threads (below 2^27 up to
// 65,535 multiprocessors), and the first element of a thread is below 8 strides.
constexpr int64_t kMostPacks = int64_t{1} << 30;
constexpr int64_t kMostChannels = int64_t{1} << 27;
static_assert(
    kMostPacks + (2 * kInFlight - 1) * kMostChannels < (int64_t{1} << 31) && 8 * kMostChannels < (int64_t{1} << 31),
    "indices in 32 bits");

inline bool indices_fit(int64_t packs, int64_t channels) {
  return packs <= kMostPacks && channels <= kMostChannels;
}

}  // namespace frozen_bn_cuda
}  // namespace resnet_cuda
