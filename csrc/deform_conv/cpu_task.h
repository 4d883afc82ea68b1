// Shared by the CPU's forward and backward: the choice of kernels, layouts, slabs.
#pragma once

#include <algorithm>
#include <vector>

#include "common/checks.h"
#include "common/cpu_dispatch.h"
#include "deform_conv/deform_conv.h"
#include "deform_conv/deform_conv_cpu.h"

namespace resnet_cuda {
namespace deform_conv_cpu {

inline constexpr KernelsFor<Kernels> kKernelsOfSets[] = {
    portable_kernels,
    RESNET_CUDA_ON_X86(avx2_kernels, avx512_kernels, avx512_bf16_kernels)};

// The CPU kernels read channels_last images, contiguous weights, and positions in Real.
inline DeformConvArguments in_kernel_layout(const DeformConvArguments& arguments) {
  const auto real = compute_dtype(arguments.input.scalar_type());
  const auto positions = [&](const Tensor& dense) { return as_dense(dense, real, output_memory_format(dense)); };
  DeformConvArguments result{
      arguments.shape,
      as_dense(arguments.input, MemoryFormat::ChannelsLast),
      as_dense(arguments.weight, MemoryFormat::Contiguous),
      positions(arguments.offset),
      std::nullopt};
  if (arguments.mask) {
    result.mask = positions(*arguments.mask);
  }
  return result;
}

// All slabs of the same channels.
struct Slice {
  int64_t channel_begin, channel_end;
  int64_t offset_group;
};

struct SlabList {
  std::vector<Slab> slabs;
  std::vector<Slice> slices;  // in ascending order of channels
  int64_t columns = 0;
  int64_t padded_columns = 0;
};

// Cuts the columns, of `column_channels` channels each, of every weight group into slabs of at most `most_channels`
// channels, kSlabTaps taps and kSlabColumns columns.
inline SlabList cut_into_slabs(const DeformConvShape& shape, int64_t most_channels, int64_t column_channels) {
  SlabList list;
  const int64_t slab_taps = std::min(shape.taps(), kSlabTaps);
  const int64_t slab_channels = std::min(most_channels, kSlabColumns / slab_taps / 16 * 16 * column_channels);
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t group_begin = group * shape.group_channels();
    const int64_t group_end = group_begin + shape.group_channels();
    for (int64_t begin = group_begin; begin < group_end;) {
      const int64_t offset_group = begin / shape.offset_group_channels();
      const int64_t end = std::min(group_end, (offset_group + 1) * shape.offset_group_channels());
      const auto first_slice = static_cast<int64_t>(list.slices.size());
      for (int64_t channel = begin; channel < end; channel += slab_channels) {
        list.slices.push_back({channel, std::min(channel + slab_channels, end), offset_group});
      }
      for (int64_t tap = 0; tap < shape.taps(); tap += slab_taps) {
        int64_t slice = first_slice;
        for (int64_t channel = begin; channel < end; channel += slab_channels, ++slice) {
          Slab slab{};
          slab.group = group;
          slab.offset_group = offset_group;
          slab.channel_begin = channel;
          slab.channel_count = std::min(slab_channels, end - channel);
          slab.tap_begin = tap;
          slab.tap_count = std::min(slab_taps, shape.taps() - tap);
          slab.tap_columns = ceil_div(slab.channel_count, column_channels);
          slab.column_begin = list.columns;
          slab.padded_begin = list.padded_columns;
          slab.slice = slice;
          list.columns += slab.columns();
          list.padded_columns += slab.padded_columns();
          list.slabs.push_back(slab);
        }
      }
      begin = end;
    }
  }
  return list;
}

inline StridedImages<const void*> strided_images(const Tensor& dense) {
  const PixelStrides strides = pixel_strides(dense, output_memory_format(dense) == MemoryFormat::ChannelsLast);
  return {dense.const_data_ptr(), strides.image, strides.channel, strides.pixel};
}

template <typename Task>
Task task_of(const DeformConvArguments& arguments, const SlabList& list, const void* zeros) {
  Task task{};
  task.shape = arguments.shape;
  task.slabs = list.slabs.data();
  task.slab_count = static_cast<int64_t>(list.slabs.size());
  task.input = arguments.input.const_data_ptr();
  task.weight = arguments.weight.const_data_ptr();
  task.offset = strided_images(arguments.offset);
  if (arguments.mask) {
    task.mask = strided_images(*arguments.mask);
  }
  task.zeros = zeros;
  return task;
}

inline int64_t padded_group_outputs(const DeformConvShape& shape, const Kernels& kernels) {
  const int64_t panel = kernels.panel_for(shape.group_out_channels());
  return ceil_div(shape.group_out_channels(), panel) * panel;
}

}  // namespace deform_conv_cpu
}  // namespace resnet_cuda
