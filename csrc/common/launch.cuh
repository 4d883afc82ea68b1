// Device guard, current stream, launch and launch check: one way to run a kernel body (device.cuh).
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/device.cuh"
#include "common/torch_stable.h"

namespace resnet_cuda {

namespace device {

// `kBlocksPerMultiprocessor` of the body, 0 where it has none: see LaunchedBlocks.
template <typename Body, typename = void>
struct BlocksPerMultiprocessor {
  static constexpr int value = 0;
};
template <typename Body>
struct BlocksPerMultiprocessor<Body, std::enable_if_t<(Body::kBlocksPerMultiprocessor > 0)>> {
  static constexpr int value = Body::kBlocksPerMultiprocessor;
};

}  // namespace device

// `body(index)` for every index below `count`, in a grid-stride loop.
template <typename Body>
struct ForEachIndex {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = device::BlocksPerMultiprocessor<Body>::value;
  int64_t count;
  Body body;

  RESNET_CUDA_BODY void operator()() const {
    const int64_t step = device::blocks() * kThreads;
    for (int64_t index = device::block() * kThreads + device::thread(); index < count; index += step) {
      body(index);
    }
  }
};

namespace device {

// Shared memory of a block: `kSharedBytes` of the body, 0 where it has none.
template <typename Body, typename = void>
struct SharedBytes {
  static constexpr int value = 0;
};
template <typename Body>
struct SharedBytes<Body, std::enable_if_t<(Body::kSharedBytes > 0)>> {
  static constexpr int value = Body::kSharedBytes;
};

// `kWarpgroups` of the body, 0 where it has none: a body written against warpgroup.cuh.
template <typename Body, typename = void>
struct Warpgroups {
  static constexpr int value = 0;
};
template <typename Body>
struct Warpgroups<Body, std::enable_if_t<(Body::kWarpgroups > 0)>> {
  static constexpr int value = Body::kWarpgroups;
  static_assert(Body::kThreads == Body::kWarpgroups * 128, "a warpgroup has 128 threads");
};

#if !defined(RESNET_CUDA_EMULATE)

// Threads that a multiprocessor can hold: 1024 on Turing, 1536 or 2048 on all later ones.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kMultiprocessorThreads = 1024;
#else
constexpr int kMultiprocessorThreads = 1536;
#endif

// The second argument of __launch_bounds__: the thread blocks that must be resident on a multiprocessor, which limits
// the registers per thread. 4 (64 registers for 256 threads) unless the body sets `kBlocksPerMultiprocessor`; 1 above
// 256 threads; never more than fit. To allow more registers, set kBlocksPerMultiprocessor and raise the kernel's row in
// tests/compile_gate/limits.py.
template <typename Body>
struct LaunchedBlocks {
  static constexpr int kFit = kMultiprocessorThreads / Body::kThreads;
  static constexpr int kOwn = BlocksPerMultiprocessor<Body>::value;
  static constexpr int kWanted = kOwn > 0 ? kOwn : Body::kThreads > 256 ? 1 : 4;
  static constexpr int value = kWanted <= kFit ? kWanted : kFit;
};

template <typename Body>
__global__ void __launch_bounds__(Body::kThreads, LaunchedBlocks<Body>::value)
    run_body(const __grid_constant__ Body body) {
  body();
}

#endif

}  // namespace device

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
    device_ = tensor.get_device_index();
    multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount);
  }
#endif

  // Runs `body` in every thread of `blocks` blocks.
  template <typename Body>
  void launch(int64_t blocks, const Body& body) const {
    static_assert(
        Body::kThreads > 0 && Body::kThreads % device::kWarp == 0 && Body::kThreads <= 1024,
        "a block has whole warps and at most 1024 threads");
    constexpr int kSharedBytes = device::SharedBytes<Body>::value;
    constexpr int kMostSharedBytes =
        device::Warpgroups<Body>::value > 0 ? device::kMostSharedBytesSm90 : device::kMostSharedBytes;
    static_assert(kSharedBytes <= kMostSharedBytes, "a block has at most 48 KiB of shared memory, on sm_90 227 KiB");
    if (blocks > kMostInt32) {
      throw std::runtime_error(
          "resnet_cuda: a launch of " + std::to_string(blocks) + " blocks; CUDA allows " + std::to_string(kMostInt32));
    }
    if (blocks <= 0) {
      return;
    }
#if defined(RESNET_CUDA_EMULATE)
    constexpr int kResident = device::BlocksPerMultiprocessor<Body>::value;
    constexpr int kRegisters = device::launched_registers(Body::kThreads * (kResident > 0 ? kResident : 1));
    constexpr bool kHasWarpgroups = device::Warpgroups<Body>::value > 0;
    device::emulate_launch(blocks, Body::kThreads, kSharedBytes, kHasWarpgroups ? kRegisters : 0, [&] { body(); });
#else
    if constexpr (kSharedBytes > device::kMostSharedBytes) {
      allow_shared_bytes<Body>(kSharedBytes);
    }
    device::run_body<Body><<<static_cast<unsigned int>(blocks), Body::kThreads, kSharedBytes, stream_>>>(body);
    check_launch();
#endif
  }

  template <typename Body>
  void run(int64_t count, const Body& body) const {
    constexpr int64_t kMostBlocks = int64_t{1} << 30;
    const int64_t blocks = ceil_div(count, ForEachIndex<Body>::kThreads);
    launch(smaller(blocks, kMostBlocks), ForEachIndex<Body>{count, body});
  }

  // The device's number of multiprocessors (SMs), from which follows how many blocks keep all of it busy.
  int multiprocessors() const {
#if defined(RESNET_CUDA_EMULATE)
    return device::emulated_multiprocessors();
#else
    return multiprocessors_;
#endif
  }

  // Whether the device runs what was compiled for sm_90a: bodies with kWarpgroups.
  bool runs_warpgroups() const {
#if defined(RESNET_CUDA_EMULATE)
    return true;
#else
    return attribute(cudaDevAttrComputeCapabilityMajor) == 9 && attribute(cudaDevAttrComputeCapabilityMinor) == 0;
#endif
  }

#if !defined(RESNET_CUDA_EMULATE)

 private:
  // torch's check does not say what to do where the library has no code for this GPU.
  void check_launch() const {
    const cudaError_t error = cudaPeekAtLastError();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion) {
      static_cast<void>(cudaGetLastError());  // torch's next check is not to report it again
      const std::string capability = std::to_string(attribute(cudaDevAttrComputeCapabilityMajor)) + "." +
                                     std::to_string(attribute(cudaDevAttrComputeCapabilityMinor));
      throw std::runtime_error(
          "resnet_cuda: " + std::string(cudaGetErrorString(error)) + ". It was not built for this GPU, of compute " +
          "capability " + capability + ": build it again with TORCH_CUDA_ARCH_LIST=" + capability);
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  int attribute(cudaDeviceAttr which) const {
    int value = 0;
    const cudaError_t error = cudaDeviceGetAttribute(&value, which, device_);
    if (error != cudaSuccess) {
      throw std::runtime_error(
          "resnet_cuda: attribute " + std::to_string(which) + " of GPU " + std::to_string(device_) + ": " +
          cudaGetErrorString(error));
    }
    return value;
  }

  // Once per kernel and device.
  template <typename Body>
  void allow_shared_bytes(int bytes) const {
    static std::atomic<uint64_t> allowed{0};
    const uint64_t device = device_ < 64 ? uint64_t{1} << device_ : 0;
    if ((allowed.load() & device) != 0) {
      return;
    }
    const cudaError_t error =
        cudaFuncSetAttribute(device::run_body<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
      throw std::runtime_error(
          "resnet_cuda: " + std::to_string(bytes) + " bytes of shared memory: " + cudaGetErrorString(error));
    }
    allowed.fetch_or(device);
  }

  int device_ = 0;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 1;
#endif
};

}  // namespace resnet_cuda
