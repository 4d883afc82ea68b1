#include <cstdlib>
#include <cstring>

#include "common/cpu_capability.h"

namespace resnet_cuda {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512", "avx512_bf16"};

CpuCapability best() {
#if defined(RESNET_CUDA_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      return __builtin_cpu_supports("avx512bf16") ? CpuCapability::kAvx512Bf16 : CpuCapability::kAvx512;
    }
    return CpuCapability::kAvx2;
  }
#endif
  return CpuCapability::kPortable;
}

CpuCapability chosen() {
  const CpuCapability available = best();
  const char* asked = std::getenv("RESNET_CUDA_CPU_CAPABILITY");
  if (asked != nullptr) {
    for (int level = 0; level < static_cast<int>(available); ++level) {
      if (std::strcmp(asked, kNames[level]) == 0) {
        return static_cast<CpuCapability>(level);
      }
    }
  }
  return available;
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability capability = chosen();
  return capability;
}

const char* cpu_capability_name() {
  return kNames[static_cast<int>(cpu_capability())];
}

}  // namespace resnet_cuda
