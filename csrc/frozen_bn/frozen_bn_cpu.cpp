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

// Fewer elements than this are not worth a second thread.
constexpr int64_t kGrain = 32768;

const void* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

int64_t bytes_of(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->numel() * static_cast<int64_t>(tensor->element_size()) : 0;
}

// Of a pass that moves that many bytes, for one of its results; absent ones do not object. In channels_last each pixel
// must begin at a cache line.
bool worth_streaming_to(const std::optional<Tensor>& result, int64_t moved, const FrozenBnLayout& layout) {
  if (!result) {
    return true;
  }
  const auto row = layout.channels * static_cast<int64_t>(result->element_size());
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  return (layout.plane != 1 || row % kCacheLine == 0) &&
         worth_streaming(moved, result->const_data_ptr(), bytes_of(result), threads);
}

// Calls run(begin, end) for the threads' elements: whole pixels in channels_last.
template <typename Run>
void share_out(const FrozenBnLayout& layout, const Run& run) {
  const int64_t unit = layout.plane == 1 ? layout.channels : 1;
  torch::stable::parallel_for(0, layout.elements / unit, (kGrain + unit - 1) / unit, [&](int64_t begin, int64_t end) {
    run(begin * unit, end * unit);
  });
}

// Scale and shift of all channels: as given, or made from the layer's buffers.
class ChannelConstants {
 public:
  ChannelConstants(const FrozenBnConstants& given, const FrozenBnLayout& layout, const frozen_bn_cpu::Kernels& kernels)
      : made_scale_(given.statistics && !given.scale ? bytes_of(given.weight) : 0),
        made_shift_(given.statistics ? bytes_of(given.bias) : 0),
        scale_(given.weight.const_data_ptr()),
        shift_(given.bias.const_data_ptr()) {
    if (given.statistics) {
      void* scale = given.scale ? given.scale->mutable_data_ptr() : made_scale_.data();
      kernels.constants(
          {layout.channels,
           scale_,
           shift_,
           given.statistics->mean.const_data_ptr(),
           given.statistics->variance.const_data_ptr(),
           given.statistics->eps,
           scale,
           made_shift_.data()});
      scale_ = scale;
      shift_ = made_shift_.data();
    }
  }

  const void* scale() const {
    return scale_;
  }
  const void* shift() const {
    return shift_;
  }

 private:
  AlignedBuffer made_scale_;
  AlignedBuffer made_shift_;
  const void* scale_;
  const void* shift_;
};

// The constants of all channels as the loops want them, `bytes` in all.
class LoopConstants {
 public:
  LoopConstants(const void* natural, int64_t bytes, const FrozenBnLayout& layout, const frozen_bn_cpu::Kernels& kernels)
      : natural_(natural), ordered_(layout.plane == 1 && kernels.order != nullptr ? bytes : 0) {
    if (ordered_.data() != nullptr) {
      kernels.order(natural_, layout.channels, ordered_.data());
    }
  }

  const void* data() const {
    return ordered_.data() != nullptr ? ordered_.data() : natural_;
  }

 private:
  const void* natural_;
  AlignedBuffer ordered_;
};

const frozen_bn_cpu::Kernels& kernels_for(torch::headeronly::ScalarType dtype) {
#if defined(RESNET_CUDA_X86)
  if (dtype == torch::headeronly::ScalarType::BFloat16 && cpu_capability() == CpuCapability::kAvx512Bf16) {
    return frozen_bn_cpu::avx512_bf16_kernels();
  }
#endif
  return RESNET_CUDA_CHOOSE_KERNELS(dtype, frozen_bn_cpu);
}

}  // namespace

void frozen_bn_relu_kernel(
    const FrozenBnLayout& layout,
    const Tensor& input,
    const FrozenBnConstants& constants,
    const std::optional<Tensor>& residual,
    bool relu,
    const Tensor& output) {
  const auto& kernels = kernels_for(input.scalar_type());
  const ChannelConstants channel(constants, layout, kernels);
  // What is overwritten in place has just been read into a cache.
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
      !in_place && worth_streaming_to(output, moved, layout)};
  share_out(layout, [&](int64_t begin, int64_t end) { kernels.forward(task, begin, end); });
}

void frozen_bn_relu_backward_kernel(
    const FrozenBnLayout& layout,
    const Tensor& grad,
    const Tensor& scale,
    const std::optional<Tensor>& output,
    const std::optional<Tensor>& grad_input,
    const std::optional<Tensor>& grad_residual) {
  const auto& kernels = kernels_for(grad.scalar_type());
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
      worth_streaming_to(grad_input, moved, layout) && worth_streaming_to(grad_residual, moved, layout)};
  share_out(layout, [&](int64_t begin, int64_t end) { kernels.backward(task, begin, end); });
}

}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda, CPU, m) {
  m.impl("frozen_bn_relu", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu));
  m.impl("frozen_bn_relu_", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu_));
  m.impl("frozen_batch_norm", RESNET_CUDA_BOX(&resnet_cuda::frozen_batch_norm));
  m.impl("frozen_batch_norm_", RESNET_CUDA_BOX(&resnet_cuda::frozen_batch_norm_));
  m.impl("frozen_bn_relu_backward", RESNET_CUDA_BOX(&resnet_cuda::frozen_bn_relu_backward));
}
