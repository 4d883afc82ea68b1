// Deformable convolution on the CPU: threads and allocation around the loops of deform_conv_cpu.h; registers CPU.

#include <algorithm>

#include "common/aligned_buffer.h"
#include "common/torch_stable.h"
#include "deform_conv/cpu_task.h"

namespace resnet_cuda {

void deform_conv2d_kernel(
    const DeformConvArguments& dense,
    const std::optional<Tensor>& bias,
    bool relu,
    const Tensor& output) {
  using namespace deform_conv_cpu;
  const DeformConvArguments arguments = in_kernel_layout(dense);
  const DeformConvShape& shape = arguments.shape;
  const Kernels& kernels = choose_kernels(arguments.input.scalar_type(), kKernelsOfSets);
  const int64_t real_size = arguments.input.scalar_type() == ScalarType::Double ? sizeof(double) : sizeof(float);
  const SlabList list = cut_into_slabs(shape, kSlabColumns * kernels.column_channels, kernels.column_channels);
  const AlignedBuffer zeros(shape.channels * real_size, true);
  const AlignedBuffer packed(list.columns * padded_group_outputs(shape, kernels) * real_size);

  auto task = task_of<ForwardTask>(arguments, list, zeros.data());
  task.packed = packed.data();
  task.bias = bias ? bias->const_data_ptr() : nullptr;
  task.relu = relu;
  const auto strides = pixel_strides(output, output_memory_format(output) == MemoryFormat::ChannelsLast);
  task.output = {output.mutable_data_ptr(), strides.image, strides.channel, strides.pixel};

  const int64_t panels =
      shape.groups * ceil_div(shape.group_out_channels(), kernels.panel_for(shape.group_out_channels()));
  torch::stable::parallel_for(
      0, panels, 1, [&](int64_t begin, int64_t end) { kernels.pack_forward(task, begin, end, packed.data()); });
  const int64_t pixels = shape.batch * shape.out_pixels();
  // In smaller steps than tiles, of which small images have too few to balance the threads.
  torch::stable::parallel_for(0, ceil_div(pixels, kPixelStep), 1, [&](int64_t begin, int64_t end) {
    const AlignedBuffer workspace(kernels.forward_workspace(shape));
    kernels.forward(task, begin * kPixelStep, std::min(end * kPixelStep, pixels), workspace.data());
  });
}

}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda, CPU, m) {
  m.impl("deform_conv2d", RESNET_CUDA_BOX(&resnet_cuda::deform_conv2d));
  m.impl("deform_conv2d_relu", RESNET_CUDA_BOX(&resnet_cuda::deform_conv2d_relu));
  m.impl("deform_conv2d_backward", RESNET_CUDA_BOX(&resnet_cuda::deform_conv2d_backward));
}
