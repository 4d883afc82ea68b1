// FrozenBatchNorm + residual + ReLU on the CPU: threads around the loops of frozen_bn_cpu.h; registers CPU.

#include "frozen_bn/frozen_bn_cpu.h"

#include "common/aligned_buffer.h"
#include "common/cache_line.h"
#include "common/cpu_dispatch.h"
#include "common/streaming.h"
#include "common/torch_stable.h"
#include "frozen_bn/frozen_bn.h"

namespace resnet_cuda {
namespace {

// Elements per thread, at least.
constexpr int64_t kGrain = 32768;

const void* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

int64_t bytes_of(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->numel() * static_cast<int64_t>(tensor->element_size()) : 0;
}

// Whether a pass that moves `moved` bytes may stream this one of its results; true for an absent one. In channels_last
// each pixel must begin at a cache line.
bool may_stream(const std::optional<Tensor>& result, int64_t moved, const FrozenBnLayout& layout) {
  if (!result) {
    return true;
  }
  const auto row = layout.channels * static_cast<int64_t>(result->element_size());
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  return (layout.plane != 1 || row % kCacheLine == 0) &&
         worth_streaming(moved, result->const_data_ptr(), bytes_of(result), threads);
}

// Calls run(begin, end) in several threads with ranges of elements: whole pixels in channels_last.
template <typename Run>
void parallel_for_elements(const FrozenBnLayout& layout, const Run& run) {
  const int64_t unit = layout.plane == 1 ? layout.channels : 1;
  torch::stable::parallel_for(0, layout.elements / unit, (kGrain + unit - 1) / unit, [&](int64_t begin, int64_t end) {
    run(begin * unit, end * unit);
  });
}

// Scale and shift of all channels: as given, or computed from the layer's buffers.
class ChannelConstants {
 public:
  ChannelConstants(const FrozenBnConstants& given, const FrozenBnLayout& layout, const frozen_bn_cpu::Kernels& kernels)
      : computed_scale_(given.statistics && !given.scale ? bytes_of(given.weight) : 0),
        computed_shift_(given.statistics ? bytes_of(given.bias) : 0),
        scale_(given.weight.const_data_ptr()),
        shift_(given.bias.const_data_ptr()) {
    if (given.statistics) {
      void* scale = given.scale ? given.scale->mutable_data_ptr() : computed_scale_.data();
      kernels.constants(
          {layout.channels,
           scale_,
           shift_,
           given.statistics->mean.const_data_ptr(),
           given.statistics->variance.const_data_ptr(),
           given.statistics->eps,
           scale,
           computed_shift_.data()});
      scale_ = scale;
      shift_ = computed_shift_.data();
    }
  }

  const void* scale() const {
    return scale_;
  }
  const void* shift() const {
    return shift_;
  }

 private:
  AlignedBuffer computed_scale_;
  AlignedBuffer computed_shift_;
  const void* scale_;
  const void* shift_;
};

// An array of constants, `bytes` in all, as the loops read it: deinterleaved where they need that.
class LoopConstants {
 public:
  LoopConstants(
      const void* constants,
      int64_t bytes,
      const FrozenBnLayout& layout,
      const frozen_bn_cpu::Kernels& kernels)
      : constants_(constants), deinterleaved_(layout.plane == 1 && kernels.deinterleave != nullptr ? bytes : 0) {
    if (deinterleaved_.data() != nullptr) {
      kernels.deinterleave(constants_, layout.channels, deinterleaved_.data());
    }
  }

  const void* data() const {
    return deinterleaved_.data() != nullptr ? deinterleaved_.data() : constants_;
  }

 private:
  const void* constants_;
  AlignedBuffer deinterleaved_;
};

constexpr KernelsFor<frozen_bn_cpu::Kernels> kKernelsOfSets[] = {
    frozen_bn_cpu::portable_kernels,
    RESNET_CUDA_ON_X86(frozen_bn_cpu::avx2_kernels, frozen_bn_cpu::avx512_kernels, frozen_bn_cpu::avx512_bf16_kernels)};

}  // namespace

void frozen_bn_relu_kernel(
    const FrozenBnLayout& layout,
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output) {
  const auto& kernels = choose_kernels(input.scalar_type(), kKernelsOfSets);
  const ChannelConstants channel(constants, layout, kernels);
  // In place, the line has just been read into the cache.
  const bool in_place = output.const_data_ptr() == input.const_data_ptr();
  const int64_t moved = bytes_of(input) + bytes_of(residual) + bytes_of(output);
  const int64_t bytes = bytes_of(constants.weight);
  const LoopConstants loop_scale(channel.scale(), bytes, layout, kernels);
  const LoopConstants loop_shift(channel.shift(), bytes, layout, kernels);
  const frozen_bn_cpu::ForwardTask task{
      layout.channels,
      layout.plane,
      input.const_data_ptr(),
      loop_scale.data(),
      loop_shift.data(),
      data_or_null(residual),
      output.mutable_data_ptr(),
      relu,
      !in_place && may_stream(output, moved, layout)};
  parallel_for_elements(layout, [&](int64_t begin, int64_t end) { kernels.forward(task, begin, end); });
}

void frozen_bn_relu_backward_kernel(
    const FrozenBnLayout& layout,
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    const std::optional<Tensor>& grad_input,
    const std::optional<Tensor>& grad_residual) {
  const auto& kernels = choose_kernels(grad.scalar_type(), kKernelsOfSets);
  const int64_t moved = bytes_of(grad) + bytes_of(output) + bytes_of(grad_input) + bytes_of(grad_residual);
  const LoopConstants loop_scale(scale.const_data_ptr(), bytes_of(scale), layout, kernels);
  const frozen_bn_cpu::BackwardTask task{
      layout.channels,
      layout.plane,
      grad.const_data_ptr(),
      loop_scale.data(),
      data_or_null(output),
      grad_input ? grad_input->mutable_data_ptr() : nullptr,
      grad_residual ? grad_residual->mutable_data_ptr() : nullptr,
      may_stream(grad_input, moved, layout) && may_stream(grad_residual, moved, layout)};
  parallel_for_elements(layout, [&](int64_t begin, int64_t end) { kernels.backward(task, begin, end); });
}

}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda, CPU, m) {
  m.impl("frozen_bn_relu", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu));
  m.impl("frozen_bn_relu_", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu_));
  m.impl("frozen_batch_norm", RESNET_CUDA_BOX(&resnet_cuda::frozen_batch_norm));
  m.impl("frozen_batch_norm_", RESNET_CUDA_BOX(&resnet_cuda::frozen_batch_norm_));
  m.impl("frozen_bn_relu_backward", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu_backward));
}
