// Device guard, current stream, grid, launch and launch check: one way to run a kernel body over a range of indices.
//
// A kernel body is a struct with `operator()(int64_t index) const`, written for host and device. With
// RESNET_CUDA_EMULATE defined this header runs it in a loop on the CPU, so that the tests run the very bodies, and the
// host code around them, on a machine without a GPU.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>

#include "common/host_device.h"

#if !defined(RESNET_CUDA_EMULATE)
#include <cuda_runtime.h>
#endif

namespace resnet_cuda {

#if defined(RESNET_CUDA_EMULATE)

class Launcher {
 public:
  explicit Launcher(const torch::stable::Tensor&) {
  }

  template <typename Body>
  void run(int64_t count, const Body& body) const {
    for (int64_t index = 0; index < count; ++index) {
      body(index);
    }
  }
};

template <typename Real>
RESNET_CUDA_HOST_DEVICE void atomic_add(Real* target, Real value) {
  *target += value;
}

#else

constexpr int kThreadsPerBlock = 256;

template <typename Body>
__global__ void __launch_bounds__(kThreadsPerBlock) for_each_index(int64_t count, const Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreadsPerBlock;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreadsPerBlock + threadIdx.x; index < count;
       index += step) {
    body(index);
  }
}

// Makes the tensor's device current for its lifetime and launches on that device's current stream.
class Launcher {
 public:
  explicit Launcher(const torch::stable::Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <typename Body>
  void run(int64_t count, const Body& body) const {
    if (count == 0) {
      return;
    }
    constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
    const auto blocks = static_cast<unsigned int>(smaller(ceil_div(count, kThreadsPerBlock), kMostBlocks));
    for_each_index<Body><<<blocks, kThreadsPerBlock, 0, stream_>>>(count, body);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// Only kernel bodies call it; the host branch exists because they compile for the host too.
template <typename Real>
RESNET_CUDA_HOST_DEVICE void atomic_add(Real* target, Real value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(target, value);
#else
  *target += value;
#endif
}

#endif

}  // namespace resnet_cuda
