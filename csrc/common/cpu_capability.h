// Which of the CPU kernels this machine can run.
#pragma once

namespace resnet_cuda {

enum class CpuCapability { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

// The best that this build holds and this machine runs. The environment variable RESNET_CUDA_CPU_CAPABILITY (portable,
// avx2, avx512, avx512_bf16) lowers it, for tests and comparisons; it is read once.
CpuCapability cpu_capability();

const char* cpu_capability_name();

}  // namespace resnet_cuda
