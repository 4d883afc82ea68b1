// Device guard, current stream, launch and launch check: one way to run a kernel body (device.cuh).
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/device.cuh"
#include "common/torch_stable.h"

namespace resnet_cuda {

// One index per call, for what is not worth more: `body(index)` for every index below `count`.
template <typename Body>
struct ForEachIndex {
  static constexpr int kThreads = 256;
  int64_t count;
  Body body;

  RESNET_CUDA_BODY void operator()() const {
    const int64_t step = device::blocks() * kThreads;
    for (int64_t index = device::block() * kThreads + device::thread(); index < count; index += step) {
      body(index);
    }
  }
};

#if !defined(RESNET_CUDA_EMULATE)

namespace device {

// How many blocks of a body a multiprocessor is to hold at least, which bounds the registers: 4 (64 registers for 256
// threads) where the body has no `kBlocksPerMultiprocessor`.
template <typename Body, typename = void>
struct BlocksPerMultiprocessor {
  static constexpr int value = Body::kThreads > 256 ? 1 : 4;
};
template <typename Body>
struct BlocksPerMultiprocessor<Body, std::enable_if_t<(Body::kBlocksPerMultiprocessor > 0)>> {
  static constexpr int value = Body::kBlocksPerMultiprocessor;
};

template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, BlocksPerMultiprocessor<Body>::value)
    run_body(const __grid_constant__ Body body) {
  body();
}

}  // namespace device

#endif

// Makes the tensor's device current for its lifetime and launches on that device's current stream.
class Launcher {
 public:
#if defined(RESNET_CUDA_EMULATE)
  explicit Launcher(const torch::stable::Tensor&) {
  }
#else
  explicit Launcher(const torch::stable::Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    RESNET_CUDA_TORCH_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    int index = 0;
    cudaGetDevice(&index);
    cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, index);
  }
#endif

  // Runs `body` in every thread of `blocks` blocks with so many bytes of shared memory each, at most 48 KB.
  template <typename Body>
  void launch(int64_t blocks, int shared_bytes, const Body& body) const {
    static_assert(Body::kThreads % device::kWarp == 0 && Body::kThreads <= 1024);
    constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
    if (blocks > kMostBlocks || shared_bytes > (48 << 10)) {
      throw std::runtime_error(
          "resnet_cuda: a launch of " + std::to_string(blocks) + " blocks with " + std::to_string(shared_bytes) +
          " bytes of shared memory");
    }
    if (blocks <= 0) {
      return;
    }
#if defined(RESNET_CUDA_EMULATE)
    device::emulate_launch(blocks, Body::kThreads, shared_bytes, [&] { body(); });
#else
    device::run_body<Body><<<static_cast<unsigned int>(blocks), Body::kThreads, shared_bytes, stream_>>>(body);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
#endif
  }

  template <typename Body>
  void run(int64_t count, const Body& body) const {
    constexpr int64_t kMostBlocks = int64_t{1} << 30;
    const int64_t blocks = ceil_div(count, ForEachIndex<Body>::kThreads);
    launch(smaller(blocks, kMostBlocks), 0, ForEachIndex<Body>{count, body});
  }

  // Of the device: how many blocks it takes to keep all of it busy.
  int multiprocessors() const {
#if defined(RESNET_CUDA_EMULATE)
    return device::emulated_multiprocessors();
#else
    return multiprocessors_;
#endif
  }

#if !defined(RESNET_CUDA_EMULATE)

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 1;
#endif
};

}  // namespace resnet_cuda
