// Deformable convolution on the CPU: threads and allocation around the loops of deform_conv_cpu.h; registers CPU.

#include "deform_conv/deform_conv_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/checks.h"
#include "common/cpu_dispatch.h"
#include "deform_conv/deform_conv.h"

namespace resnet_cuda {
namespace {

using namespace deform_conv_cpu;

// The CPU kernels read channels_last images, contiguous weights, and positions in Real.
DeformConvArguments laid_out(const DeformConvArguments& arguments) {
  const auto real = compute_dtype(arguments.input.scalar_type());
  const auto positions = [&](const Tensor& dense) { return as_dense(dense, real, output_memory_format(dense)); };
  DeformConvArguments result{
      arguments.shape,
      torch::stable::contiguous(arguments.input, MemoryFormat::ChannelsLast),
      torch::stable::contiguous(arguments.weight),
      positions(arguments.offset),
      std::nullopt};
  if (arguments.mask) {
    result.mask = positions(*arguments.mask);
  }
  return result;
}

// What the kernels accumulate into: Real, the input's channels_last, positions as the arguments'.
DeformConvGradients zeroed_accumulators(const DeformConvArguments& arguments, const DeformConvNeeds& needs) {
  const auto real = compute_dtype(arguments.input.scalar_type());
  const auto zeros_like = [&](bool needed, const Tensor& tensor, MemoryFormat format) {
    return needed ? std::optional<Tensor>(zeros_beside(tensor, size_of(tensor), real, format)) : std::nullopt;
  };
  DeformConvGradients gradients;
  gradients.input = zeros_like(needs.input, arguments.input, MemoryFormat::ChannelsLast);
  gradients.weight = zeros_like(needs.weight, arguments.weight, MemoryFormat::Contiguous);
  gradients.offset = zeros_like(needs.offset, arguments.offset, output_memory_format(arguments.offset));
  if (needs.mask) {
    gradients.mask = zeros_like(true, *arguments.mask, output_memory_format(*arguments.mask));
  }
  if (needs.bias) {
    gradients.bias = zeros_beside(arguments.input, {arguments.shape.out_channels}, real);
  }
  return gradients;
}

struct SlabList {
  std::vector<Slab> slabs;
  std::vector<int64_t> offset_group_of_slice;
  int64_t padded_columns = 0;
};

// Cuts the columns of every weight group into slabs of at most `most_channels` channels and kSlabTaps taps.
SlabList cut_into_slabs(const DeformConvShape& shape, int64_t most_channels) {
  SlabList list;
  const int64_t slab_taps = std::min(shape.taps(), kSlabTaps);
  const int64_t slab_channels = std::min(most_channels, kSlabColumns / slab_taps / 16 * 16);
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t group_begin = group * shape.group_channels();
    const int64_t group_end = group_begin + shape.group_channels();
    int64_t column = 0;
    for (int64_t begin = group_begin; begin < group_end;) {
      const int64_t offset_group = begin / shape.offset_group_channels();
      const int64_t end = std::min(group_end, (offset_group + 1) * shape.offset_group_channels());
      const auto first_slice = static_cast<int64_t>(list.offset_group_of_slice.size());
      list.offset_group_of_slice.resize(first_slice + ceil_div(end - begin, slab_channels), offset_group);
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
          slab.column_begin = column;
          slab.padded_begin = list.padded_columns;
          slab.slice = slice;
          column += slab.columns();
          list.padded_columns += slab.padded_columns();
          list.slabs.push_back(slab);
        }
      }
      begin = end;
    }
  }
  return list;
}

Plane<const void*> plane_of(const Tensor& dense) {
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
  task.offset = plane_of(arguments.offset);
  if (arguments.mask) {
    task.mask = plane_of(*arguments.mask);
  }
  task.zeros = zeros;
  return task;
}

int64_t padded_group_outputs(const DeformConvShape& shape, const Kernels& kernels) {
  const int64_t panel = kernels.panel_for(shape.group_out_channels());
  return ceil_div(shape.group_out_channels(), panel) * panel;
}

// The slices that one thread owns.
struct SliceRange {
  int64_t begin;
  int64_t end;
};

std::vector<SliceRange> divide(int64_t slices, int64_t threads) {
  const int64_t count = std::min(slices, threads);
  std::vector<SliceRange> ranges;
  for (int64_t i = 0; i < count; ++i) {
    ranges.push_back({i * slices / count, (i + 1) * slices / count});
  }
  return ranges;
}

// The ranges' gradients for the positions, summed in the order of the ranges so that the result does not depend on
// timing.
template <typename Real>
void write_position_gradients(
    const BackwardTask& task,
    const SlabList& list,
    const std::vector<SliceRange>& ranges,
    const DeformConvGradients& gradients) {
  const DeformConvShape& shape = task.shape;
  const int64_t taps = shape.taps();
  const auto plane = [](const std::optional<Tensor>& tensor) {
    return tensor ? plane_of(*tensor) : Plane<const void*>{};
  };
  const auto offset = plane(gradients.offset);
  const auto mask = plane(gradients.mask);
  auto* offset_data = gradients.offset ? gradients.offset->mutable_data_ptr<Real>() : nullptr;
  auto* mask_data = gradients.mask ? gradients.mask->mutable_data_ptr<Real>() : nullptr;
  const auto* sums = static_cast<const Real*>(task.grad_position);
  torch::stable::parallel_for(0, task.band_count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const int64_t image = (task.band_begin + pixel) / shape.out_pixels();
      const int64_t in_image = (task.band_begin + pixel) % shape.out_pixels();
      for (size_t range = 0; range < ranges.size(); ++range) {
        // Slices come in the order of their channels, so a range's offset groups are consecutive.
        const int64_t first_group = list.offset_group_of_slice[ranges[range].begin];
        const int64_t last_group = list.offset_group_of_slice[ranges[range].end - 1];
        for (int64_t group = first_group; group <= last_group; ++group) {
          const Real* source =
              sums + ((static_cast<int64_t>(range) * shape.offset_groups + group) * kBandPixels + pixel) * taps * 3;
          for (int64_t tap = group * taps; tap < (group + 1) * taps; ++tap, source += 3) {
            if (offset_data != nullptr) {
              Real* target = offset_data + image * offset.image + in_image * offset.pixel;
              target[2 * tap * offset.channel] += source[0];
              target[(2 * tap + 1) * offset.channel] += source[1];
            }
            if (mask_data != nullptr) {
              mask_data[image * mask.image + in_image * mask.pixel + tap * mask.channel] += source[2];
            }
          }
        }
      }
    }
  });
}

// From the slabs' order to (O, C/groups, kh, kw), by way of a block of a few channels of some outputs: either order
// alone would touch another cache line with every number.
template <typename Real>
void write_weight_gradient(const BackwardTask& task, int64_t padded_outputs, const Tensor& grad_weight) {
  constexpr int64_t kChannels = 4;
  constexpr int64_t kOutputs = 16;
  const DeformConvShape& shape = task.shape;
  const int64_t taps = shape.taps();
  const int64_t group_outputs = shape.group_out_channels();
  const int64_t group_columns = shape.group_channels() * taps;
  auto* target = grad_weight.mutable_data_ptr<Real>();

  const auto write_block = [&](const Slab& slab, int64_t first_channel, int64_t first_output) {
    const int64_t channels = std::min(kChannels, slab.channel_count - first_channel);
    const int64_t outputs = std::min(kOutputs, group_outputs - first_output);
    const Real* source = static_cast<const Real*>(task.grad_weight) + slab.padded_begin * padded_outputs + first_output;
    Real block[kOutputs][kChannels][kSlabTaps];
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t tap = 0; tap < slab.tap_count; ++tap) {
        const Real* column = source + (tap * slab.channel_count + first_channel + c) * padded_outputs;
        for (int64_t out = 0; out < outputs; ++out) {
          block[out][c][tap] = column[out];
        }
      }
    }
    for (int64_t out = 0; out < outputs; ++out) {
      Real* row = target + (slab.group * group_outputs + first_output + out) * group_columns +
                  (slab.channel_begin - slab.group * shape.group_channels() + first_channel) * taps + slab.tap_begin;
      for (int64_t c = 0; c < channels; ++c) {
        std::copy_n(block[out][c], slab.tap_count, row + c * taps);
      }
    }
  };

  torch::stable::parallel_for(0, task.slab_count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      for (int64_t channel = 0; channel < task.slabs[s].channel_count; channel += kChannels) {
        for (int64_t out = 0; out < group_outputs; out += kOutputs) {
          write_block(task.slabs[s], channel, out);
        }
      }
    }
  });
}

// In blocks of pixels, so that rounding errors grow with the number of blocks and not of pixels.
template <typename Real>
void add_bias_gradient(const BackwardTask& task, const Tensor& grad_bias) {
  constexpr int64_t kBlock = 24;
  constexpr int64_t kOutputs = 64;
  auto* target = grad_bias.mutable_data_ptr<Real>();
  const int64_t outputs = task.shape.out_channels;
  const Real* rows = static_cast<const Real*>(task.grad_rows);
  torch::stable::parallel_for(0, ceil_div(outputs, kOutputs), 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kOutputs; first < std::min(end * kOutputs, outputs); first += kOutputs) {
      const int64_t count = std::min(kOutputs, outputs - first);
      Real band[kOutputs] = {};
      for (int64_t block_begin = 0; block_begin < task.band_count; block_begin += kBlock) {
        Real block[kOutputs] = {};
        for (int64_t pixel = block_begin; pixel < std::min(block_begin + kBlock, task.band_count); ++pixel) {
          for (int64_t out = 0; out < count; ++out) {
            block[out] += rows[pixel * outputs + first + out];
          }
        }
        for (int64_t out = 0; out < count; ++out) {
          band[out] += block[out];
        }
      }
      for (int64_t out = 0; out < count; ++out) {
        target[first + out] += band[out];
      }
    }
  });
}

template <typename Real>
void backward_in_bands(const DeformConvArguments& arguments, const Tensor& grad, const DeformConvGradients& gradients) {
  const DeformConvShape& shape = arguments.shape;
  const Kernels& kernels = RESNET_CUDA_CHOOSE_KERNELS(arguments.input.scalar_type(), deform_conv_cpu);
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  // As wide as the cache likes, but so that every thread has a slice where the channels allow it.
  const int64_t slice_channels = std::max<int64_t>(16, ceil_div(ceil_div(shape.channels, threads), 16) * 16);
  const SlabList list = cut_into_slabs(shape, slice_channels);
  const auto slices = static_cast<int64_t>(list.offset_group_of_slice.size());
  const int64_t padded_outputs = padded_group_outputs(shape, kernels);
  const bool needs_positions = gradients.offset || gradients.mask;
  const bool needs_columns = needs_positions || gradients.input || gradients.weight;

  const AlignedBuffer zeros(shape.channels * sizeof(Real), true);
  const AlignedBuffer packed(list.padded_columns * shape.group_out_channels() * sizeof(Real));
  const AlignedBuffer grad_rows(kBandPixels * shape.out_channels * sizeof(Real));
  const AlignedBuffer grad_panels(kBandPixels * shape.groups * padded_outputs * sizeof(Real));
  const AlignedBuffer grad_weight(gradients.weight ? list.padded_columns * padded_outputs * sizeof(Real) : 0, true);
  const std::vector<SliceRange> ranges = divide(slices, threads);
  const int64_t range_count = static_cast<int64_t>(ranges.size());
  const int64_t position_bytes = range_count * shape.offset_groups * kBandPixels * shape.taps() * 3 * sizeof(Real);
  const AlignedBuffer grad_position(needs_positions ? position_bytes : 0);

  auto task = task_of<BackwardTask>(arguments, list, zeros.data());
  task.packed = packed.data();
  task.grad = plane_of(grad);
  task.grad_rows = grad_rows.data();
  task.grad_panels = grad_panels.data();
  task.grad_input = gradients.input ? gradients.input->mutable_data_ptr() : nullptr;
  task.grad_weight = grad_weight.data();
  task.grad_position = grad_position.data();

  if (gradients.input || needs_positions) {
    torch::stable::parallel_for(0, task.slab_count, 1, [&](int64_t begin, int64_t end) {
      kernels.pack_backward(task, begin, end, packed.data());
    });
  }
  const int64_t pixels = shape.batch * shape.out_pixels();
  for (task.band_begin = 0; task.band_begin < pixels; task.band_begin += kBandPixels) {
    task.band_count = std::min(kBandPixels, pixels - task.band_begin);
    const int64_t laid_out = ceil_div(task.band_count, kTilePixels) * kTilePixels;
    torch::stable::parallel_for(
        0, laid_out, 16, [&](int64_t begin, int64_t end) { kernels.backward_rows(task, begin, end); });
    if (needs_positions) {
      std::memset(grad_position.data(), 0, position_bytes);
    }
    if (needs_columns) {
      torch::stable::parallel_for(0, range_count, 1, [&](int64_t begin, int64_t end) {
        const AlignedBuffer workspace(kernels.backward_workspace(shape));
        for (int64_t range = begin; range < end; ++range) {
          kernels.backward(task, range, ranges[range].begin, ranges[range].end, workspace.data());
        }
      });
    }
    if (needs_positions) {
      write_position_gradients<Real>(task, list, ranges, gradients);
    }
    if (gradients.bias) {
      add_bias_gradient<Real>(task, *gradients.bias);
    }
  }
  if (gradients.weight) {
    write_weight_gradient<Real>(task, padded_outputs, *gradients.weight);
  }
}

}  // namespace

void deform_conv2d_kernel(const DeformConvArguments& dense, const std::optional<Tensor>& bias, const Tensor& output) {
  const DeformConvArguments arguments = laid_out(dense);
  const DeformConvShape& shape = arguments.shape;
  const Kernels& kernels = RESNET_CUDA_CHOOSE_KERNELS(arguments.input.scalar_type(), deform_conv_cpu);
  const int64_t real_size = arguments.input.scalar_type() == ScalarType::Double ? sizeof(double) : sizeof(float);
  const SlabList list = cut_into_slabs(shape, kSlabColumns);
  const AlignedBuffer zeros(shape.channels * real_size, true);
  const AlignedBuffer packed(shape.channels * shape.taps() * padded_group_outputs(shape, kernels) * real_size);

  auto task = task_of<ForwardTask>(arguments, list, zeros.data());
  task.packed = packed.data();
  task.bias = bias ? bias->const_data_ptr() : nullptr;
  const auto strides = pixel_strides(output, output_memory_format(output) == MemoryFormat::ChannelsLast);
  task.output = {output.mutable_data_ptr(), strides.image, strides.channel, strides.pixel};

  const int64_t panels =
      shape.groups * ceil_div(shape.group_out_channels(), kernels.panel_for(shape.group_out_channels()));
  torch::stable::parallel_for(
      0, panels, 1, [&](int64_t begin, int64_t end) { kernels.pack_forward(task, begin, end, packed.data()); });
  const int64_t pixels = shape.batch * shape.out_pixels();
  // Not in whole tiles, of which small images have too few to share out evenly.
  torch::stable::parallel_for(0, ceil_div(pixels, kPixelStep), 1, [&](int64_t begin, int64_t end) {
    const AlignedBuffer workspace(kernels.forward_workspace(shape));
    kernels.forward(task, begin * kPixelStep, std::min(end * kPixelStep, pixels), workspace.data());
  });
}

DeformConvGradients
deform_conv2d_backward_kernel(const DeformConvArguments& dense, const Tensor& grad, const DeformConvNeeds& needs) {
  const DeformConvArguments arguments = laid_out(dense);
  const DeformConvGradients gradients = zeroed_accumulators(arguments, needs);
  if (arguments.input.scalar_type() == ScalarType::Double) {
    backward_in_bands<double>(arguments, grad, gradients);
  } else {
    backward_in_bands<float>(arguments, grad, gradients);
  }
  return gradients;
}

}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda, CPU, m) {
  m.impl("deform_conv2d", TORCH_BOX(&resnet_cuda::deform_conv2d));
  m.impl("deform_conv2d_backward", TORCH_BOX(&resnet_cuda::deform_conv2d_backward));
}
