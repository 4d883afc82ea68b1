// resnet_cuda._C: build facts and this machine's instruction sets. Importing it loads the library whose static
// initialisers register the operators; tensors cross only through the dispatcher.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "common/instruction_sets.h"
#include "common/streaming.h"

namespace {

std::vector<std::string> usable_instruction_sets() {
  std::vector<std::string> names;
  for (const auto set : resnet_cuda::kInstructionSets) {
    if (resnet_cuda::is_usable(set)) {
      names.emplace_back(resnet_cuda::name_of(set));
    }
  }
  return names;
}

}  // namespace

// Nothing here or in the operators needs the GIL: what they keep between calls is constant once it is initialised, or
// atomic.
PYBIND11_MODULE(_C, module, pybind11::mod_gil_not_used()) {
  module.doc() = "Build information of resnet_cuda; importing it registers torch.ops.resnet_cuda.*";
  module.def(
      "build_info",
      [] {
        return std::map<std::string, std::string>{
            {"version", RESNET_CUDA_VERSION},
            {"sources", RESNET_CUDA_BUILD_SOURCES},
            {"torch", RESNET_CUDA_BUILD_TORCH},
            {"cuda", RESNET_CUDA_BUILD_CUDA},
            {"architectures", RESNET_CUDA_BUILD_ARCHS},
            {"compiler", RESNET_CUDA_BUILD_COMPILER}};
      },
      "Versions that the extension was built with: resnet_cuda, the digest of its sources, torch (its headers), CUDA "
      "('none' without one), the GPU architectures and the C++ compiler.");
  module.def(
      "cpu_capability",
      [] { return usable_instruction_sets().back(); },
      "The name of the best instruction set that the CPU kernels can use on this machine, such as 'avx2'.");
  module.def(
      "cpu_capabilities",
      &usable_instruction_sets,
      "The names of all of them, the best last; RESNET_CUDA_CPU_CAPABILITY leaves one and those that it extends.");
  module.def(
      "worth_streaming",
      [](int64_t moved, uintptr_t result, int64_t result_bytes, int64_t threads) {
        return resnet_cuda::worth_streaming(moved, reinterpret_cast<const void*>(result), result_bytes, threads);
      },
      pybind11::arg("moved"),
      pybind11::arg("result"),
      pybind11::arg("result_bytes"),
      pybind11::arg("threads"),
      "Whether a CPU kernel that moves so many bytes with so many threads uses streaming (non-temporal) stores for its "
      "result at that address. Nothing is read from the address.");
}
