// Backward of the deformable convolution on the CPU: threads, allocation and the results' layouts around the loops of
// deform_conv_cpu.h.

#include <algorithm>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/cache_line.h"
#include "common/checks.h"
#include "common/torch_stable.h"
#include "deform_conv/cpu_task.h"
#include "deform_conv/input_gradient_blocks.h"

namespace resnet_cuda {
namespace {

using namespace deform_conv_cpu;

// The tensors that the kernels accumulate into, of type Real. The input's gradient is channels_last; the gradients of
// offset and mask have the arguments' layouts. All are zeroed here but two: each thread zeroes its own part of the
// input's gradient, and the weight's gradient is overwritten.
DeformConvGradients accumulators(const DeformConvArguments& arguments, const DeformConvNeeds& needs) {
  const auto real = compute_dtype(arguments.input.scalar_type());
  const auto zeros_like = [&](const Tensor& tensor) {
    return zeros_beside(tensor, size_of(tensor), real, output_memory_format(tensor));
  };
  DeformConvGradients gradients;
  if (needs.input) {
    gradients.input = empty_beside(arguments.input, size_of(arguments.input), real, MemoryFormat::ChannelsLast);
  }
  if (needs.weight) {
    gradients.weight = empty_beside(arguments.weight, size_of(arguments.weight), real);
  }
  if (needs.offset) {
    gradients.offset = zeros_like(arguments.offset);
  }
  if (needs.mask) {
    gradients.mask = zeros_like(*arguments.mask);
  }
  if (needs.bias) {
    gradients.bias = zeros_beside(arguments.input, {arguments.shape.out_channels}, real);
  }
  return gradients;
}

// The slices in as many ranges as there are threads, or slices if fewer.
std::vector<ThreadChannels> divide(const std::vector<Slice>& slices, int64_t threads) {
  const auto slice_count = static_cast<int64_t>(slices.size());
  const int64_t count = std::min(slice_count, threads);
  std::vector<ThreadChannels> ranges;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * slice_count / count;
    const int64_t end = (i + 1) * slice_count / count;
    const Slice& first = slices[begin];
    const Slice& last = slices[end - 1];
    ranges.push_back({begin, end, first.channel_begin, last.channel_end, first.offset_group, last.offset_group + 1});
  }
  return ranges;
}

// Sums the ranges' gradients for the positions, in the order of the ranges, so that the result does not depend on
// timing.
template <typename Real>
void write_position_gradients(const BackwardTask& task, const DeformConvGradients& gradients) {
  const DeformConvShape& shape = task.shape;
  const int64_t taps = shape.taps();
  const auto plane = [](const std::optional<Tensor>& tensor) {
    return tensor ? strided_images(*tensor) : StridedImages<const void*>{};
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
      for (int64_t range = 0; range < task.range_count; ++range) {
        const ThreadChannels& own = task.ranges[range];
        for (int64_t group = own.offset_group_begin; group < own.offset_group_end; ++group) {
          const Real* source = sums + ((range * shape.offset_groups + group) * kBandPixels + pixel) * taps * 3;
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

// Transposes from the slabs' order to (O, C/groups, kh, kw) in blocks of a few channels and outputs: otherwise each
// element read, or each one written, would be in another cache line.
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

template <typename Real>
void clear_input_gradient(const BackwardTask& task, const ThreadChannels& range) {
  const int64_t pixels = task.shape.batch * task.shape.height * task.shape.width;
  for (int64_t begin = 0; begin < pixels; begin += kGradientBlock) {
    const int64_t first = gradient_block_element(begin, pixels, task.shape.channels, range);
    const int64_t count = gradient_block_size(begin, pixels) * range.channels();
    std::fill_n(static_cast<Real*>(task.grad_input) + first, count, Real(0));
  }
}

// From the order of input_gradient_blocks.h to channels_last, in place.
template <typename Real>
void order_input_gradient(const BackwardTask& task) {
  const int64_t channels = task.shape.channels;
  const int64_t pixels = task.shape.batch * task.shape.height * task.shape.width;
  auto* gradient = static_cast<Real*>(task.grad_input);
  torch::stable::parallel_for(0, ceil_div(pixels, kGradientBlock), 1, [&](int64_t begin, int64_t end) {
    const AlignedBuffer buffer(kGradientBlock * channels * sizeof(Real));
    auto* block = static_cast<Real*>(buffer.data());
    for (int64_t first = begin * kGradientBlock; first < std::min(end * kGradientBlock, pixels);
         first += kGradientBlock) {
      const int64_t count = gradient_block_size(first, pixels);
      std::copy_n(gradient + first * channels, count * channels, block);
      for (int64_t range = 0; range < task.range_count; ++range) {
        const ThreadChannels& own = task.ranges[range];
        const Real* source = block + own.channel_begin * count;
        Real* target = gradient + first * channels + own.channel_begin;
        for (int64_t pixel = 0; pixel < count; ++pixel) {
          std::copy_n(source + pixel * own.channels(), own.channels(), target + pixel * channels);
        }
      }
    }
  });
}

template <typename Real>
void backward_in_bands(const DeformConvArguments& arguments, const Tensor& grad, const DeformConvGradients& gradients) {
  const DeformConvShape& shape = arguments.shape;
  const Kernels& kernels = choose_kernels(arguments.input.scalar_type(), kKernelsOfSets);
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  // The channels divided among the threads, in multiples of 16; cut_into_slabs takes fewer where kSlabColumns is less.
  const int64_t slice_channels = std::max<int64_t>(16, ceil_div(ceil_div(shape.channels, threads), 16) * 16);
  const SlabList list = cut_into_slabs(shape, slice_channels, 1);
  const int64_t padded_outputs = padded_group_outputs(shape, kernels);
  const bool needs_positions = gradients.offset || gradients.mask;
  const bool needs_columns = needs_positions || gradients.input || gradients.weight;

  const AlignedBuffer zeros(shape.channels * sizeof(Real), true);
  const AlignedBuffer packed(list.padded_columns * shape.group_out_channels() * sizeof(Real));
  const AlignedBuffer grad_weight(gradients.weight ? list.padded_columns * padded_outputs * sizeof(Real) : 0, true);
  const std::vector<ThreadChannels> ranges = divide(list.slices, threads);
  const auto range_count = static_cast<int64_t>(ranges.size());
  const int64_t position_bytes = range_count * shape.offset_groups * kBandPixels * shape.taps() * 3 * sizeof(Real);
  const AlignedBuffer grad_position(needs_positions ? position_bytes : 0);
  const int64_t workspace_bytes = ceil_div(kernels.backward_workspace(shape), kCacheLine) * kCacheLine;
  const AlignedBuffer workspaces(range_count * workspace_bytes);

  auto task = task_of<BackwardTask>(arguments, list, zeros.data());
  if (!needs_columns) {
    task.slab_count = 0;  // the bias alone
  }
  task.packed = packed.data();
  task.grad = strided_images(grad);
  task.ranges = ranges.data();
  task.range_count = range_count;
  task.grad_input = gradients.input ? gradients.input->mutable_data_ptr() : nullptr;
  task.grad_weight = grad_weight.data();
  task.grad_position = grad_position.data();
  task.grad_bias = gradients.bias ? gradients.bias->mutable_data_ptr() : nullptr;
  const auto for_each_range = [&](const auto& visit) {
    torch::stable::parallel_for(0, range_count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t range = begin; range < end; ++range) {
        visit(range);
      }
    });
  };

  if (gradients.input || needs_positions) {
    torch::stable::parallel_for(0, task.slab_count, 1, [&](int64_t begin, int64_t end) {
      kernels.pack_backward(task, begin, end, packed.data());
    });
  }
  if (gradients.input) {
    for_each_range([&](int64_t range) { clear_input_gradient<Real>(task, ranges[range]); });
  }
  const int64_t pixels = shape.batch * shape.out_pixels();
  for (task.band_begin = 0; task.band_begin < pixels; task.band_begin += kBandPixels) {
    task.band_count = std::min(kBandPixels, pixels - task.band_begin);
    for_each_range([&](int64_t range) {
      kernels.backward(task, range, static_cast<char*>(workspaces.data()) + range * workspace_bytes);
    });
    if (needs_positions) {
      write_position_gradients<Real>(task, gradients);
    }
  }
  if (gradients.input && range_count > 1) {
    order_input_gradient<Real>(task);
  }
  if (gradients.weight) {
    write_weight_gradient<Real>(task, padded_outputs, *gradients.weight);
  }
}

}  // namespace

DeformConvGradients
deform_conv2d_backward_kernel(const DeformConvArguments& dense, const Tensor& grad, const DeformConvNeeds& needs) {
  const DeformConvArguments arguments = in_kernel_layout(dense);
  const DeformConvGradients gradients = accumulators(arguments, needs);
  if (arguments.input.scalar_type() == ScalarType::Double) {
    backward_in_bands<double>(arguments, grad, gradients);
  } else {
    backward_in_bands<float>(arguments, grad, gradients);
  }
  return gradients;
}

}  // namespace resnet_cuda
