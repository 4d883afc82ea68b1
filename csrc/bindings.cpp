// resnet_cuda._C: build facts and what this machine can use. Importing it loads the library whose static initialisers
// register the operators; tensors cross only through the dispatcher.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "common/cpu_capability.h"
#include "common/streaming.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "Build information of resnet_cuda; importing it registers torch.ops.resnet_cuda.*";
  module.def(
      "build_info",
      [] {
        return std::map<std::string, std::string>{
            {"version", RESNET_CUDA_VERSION},
            {"torch", RESNET_CUDA_BUILD_TORCH},
            {"cuda", RESNET_CUDA_BUILD_CUDA},
            {"architectures", RESNET_CUDA_BUILD_ARCHS},
            {"compiler", RESNET_CUDA_BUILD_COMPILER}};
      },
      "Versions that the extension was built with: resnet_cuda, torch (its headers), CUDA ('none' without one), the "
      "GPU architectures and the C++ compiler.");
  module.def(
      "cpu_capability",
      [] { return std::string(resnet_cuda::cpu_capability_name()); },
      "The instruction set that the CPU kernels use on this machine: 'avx512_bf16', 'avx512', 'avx2' or 'portable'.");
  module.def(
      "worth_streaming",
      [](int64_t moved, uintptr_t result, int64_t result_bytes, int64_t threads) {
        return resnet_cuda::worth_streaming(moved, reinterpret_cast<const void*>(result), result_bytes, threads);
      },
      pybind11::arg("moved"),
      pybind11::arg("result"),
      pybind11::arg("result_bytes"),
      pybind11::arg("threads"),
      "Whether a CPU kernel that moves so many bytes with so many threads stores its result, at that address, past the "
      "caches. Nothing is read from the address.");
}
