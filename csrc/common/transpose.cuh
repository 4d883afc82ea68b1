// [batch, rows, columns] -> [batch, columns, rows]: between NCHW and NHWC, either way.
#pragma once

#include <type_traits>

#include "common/launch.cuh"
#include "common/pack.cuh"

namespace resnet_cuda {

// A thread block moves tiles of 32 x 32 words through shared memory: reads and writes are coalesced (128-byte lines).
// A word holds two 2-byte elements, so their tile is 64 x 64 elements; a thread transposes 2 x 2 blocks in registers:
//
//   read (one word per row)         in shared memory (one word per column)
//   row 0:  [a b]                   column 0 (even):  [a c]
//   row 1:  [c d]                   column 1 (odd):   [b d]
template <typename T>
struct Transpose {
  static constexpr int kThreads = 256;
  static constexpr int kPack = sizeof(T) == 2 ? 2 : 1;
  static constexpr int kTile = device::kWarp * kPack;
  static constexpr int kWarps = kThreads / device::kWarp;
  static_assert(device::kWarp % kWarps == 0, "the warps of a block share the 32 rows of words of a tile evenly");
  static constexpr int kSteps = device::kWarp / kWarps;  // groups of kPack rows that a warp reads
  // Padded to an odd number of words: no bank conflicts, neither along a row nor down a column.
  static constexpr int kPitch = device::kWarp + 1;
  using Word = Pack<T, kPack>;
  static constexpr int kSharedBytes = kTile * kPitch * static_cast<int>(sizeof(Word));

  const T* source;
  T* target;
  int64_t rows;
  int64_t columns;
  int64_t tiles_down;
  int64_t tiles_across;
  int64_t tiles;     // of all the batch
  bool pairs_read;   // whether two of the source's elements may be read at once
  bool pairs_write;  // whether two of the target's elements may be written at once

  RESNET_CUDA_BODY void operator()() const {
    // [columns of the tile: first all even columns, then all odd ones][groups of kPack rows]
    const device::Shared<Word> tile(0, kTile * kPitch);
    const int lane = device::thread() % device::kWarp;
    const int warp = device::thread() / device::kWarp;
    for (int64_t index = device::block(); index < tiles; index += device::blocks()) {
      const int64_t in_batch = index / tiles_across;
      const int64_t matrix = in_batch / tiles_down * rows * columns;
      const int64_t first_row = in_batch % tiles_down * kTile;
      const int64_t first_column = index % tiles_across * kTile;

      // All reads before the first write to shared memory: they are in flight together.
      Word read[kSteps][kPack];
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          const int64_t row = first_row + (step * kWarps + warp) * kPack + i;
          read[step][i] =
              row < rows ? load(source + matrix + row * columns, first_column + lane * kPack, columns) : Word{};
        }
      }
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int j = 0; j < kPack; ++j) {
          Word transposed;
#pragma unroll
          for (int i = 0; i < kPack; ++i) {
            transposed.element[i] = read[step][i].element[j];
          }
          tile.set((j * device::kWarp + lane) * kPitch + step * kWarps + warp, transposed);
        }
      }
      RESNET_CUDA_SYNC_BLOCK();

#pragma unroll
      for (int step = 0; step < kTile / kWarps; ++step) {
        const int in_tile = step * kWarps + warp;
        const int64_t column = first_column + in_tile;
        if (column < columns) {
          const int place = in_tile % kPack * device::kWarp + in_tile / kPack;
          store(target + matrix + column * rows, first_row + lane * kPack, rows, tile.get(place * kPitch + lane));
        }
      }
      RESNET_CUDA_SYNC_BLOCK();
    }
  }

 private:
  // Elements `begin` to `begin` + kPack of a line of `size`; 0 past its end.
  RESNET_CUDA_BODY Word load(const T* line, int64_t begin, int64_t size) const {
    Word word{};
    if constexpr (kPack > 1) {
      if (!pairs_read) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          if (begin + i < size) {
            word.element[i] = load_constant_pack<1>(line + begin + i).element[0];
          }
        }
        return word;
      }
    }
    if (begin < size) {
      word = load_constant_pack<kPack>(line + begin);
    }
    return word;
  }

  RESNET_CUDA_BODY void store(T* line, int64_t begin, int64_t size, const Word& word) const {
    if constexpr (kPack > 1) {
      if (!pairs_write) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          if (begin + i < size) {
            line[begin + i] = word.element[i];
          }
        }
        return;
      }
    }
    if (begin < size) {
      store_pack<kPack>(line + begin, word);
    }
  }
};

// Any type of 2, 4 or 8 bytes; `source` and `target` are dense and do not overlap.
template <typename T>
void transpose(const Launcher& launcher, const T* source, T* target, int64_t batch, int64_t rows, int64_t columns) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  using Kernel = Transpose<Bits>;
  constexpr int64_t kBlocksPerMultiprocessor = 32;
  const auto aligned = [](const void* pointer, int64_t line) {
    return line % Kernel::kPack == 0 && is_aligned(pointer, sizeof(typename Kernel::Word));
  };
  const int64_t tiles_down = ceil_div(rows, Kernel::kTile);
  const int64_t tiles_across = ceil_div(columns, Kernel::kTile);
  const int64_t tiles = batch * tiles_down * tiles_across;
  launcher.launch(
      smaller(tiles, launcher.multiprocessors() * kBlocksPerMultiprocessor),
      Kernel{
          reinterpret_cast<const Bits*>(source),
          reinterpret_cast<Bits*>(target),
          rows,
          columns,
          tiles_down,
          tiles_across,
          tiles,
          aligned(source, columns),
          aligned(target, rows)});
}

}  // namespace resnet_cuda
