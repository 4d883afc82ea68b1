// The instruction sets that CPU kernels are compiled for, in one table; names, detection and, by
// build_native/native.py, compile flags follow from it.
#pragma once

namespace resnet_cuda {

// SET(enumerator, name, the set that it extends, the features that it adds). Rows in ascending preference: the last
// usable one is chosen. HAS(feature): as in the compiler's -m<feature>. BIT(feature): the same, where older compilers'
// __builtin_cpu_supports lacks the name; instruction_sets_cpu.cpp has its bit. Files *_<name>.cpp are compiled for the
// set.
//
// To add a set, such as AVX512-FP16 for one operator: a row here, <op>_<name>.cpp for that operator, and an element in
// every operator's kKernelsOfSets, null where the operator has no kernels for the set (a missing one does not compile).
#if defined(RESNET_CUDA_X86)
#define RESNET_CUDA_INSTRUCTION_SETS(SET, HAS, BIT)                                            \
  SET(kPortable, portable, kPortable, true)                                                    \
  SET(kAvx2, avx2, kPortable, HAS(avx2) && HAS(fma) && BIT(f16c))                              \
  SET(kAvx512, avx512, kAvx2, HAS(avx512f) && HAS(avx512bw) && HAS(avx512dq) && HAS(avx512vl)) \
  SET(kAvx512Bf16, avx512_bf16, kAvx512, HAS(avx512bf16))
#define RESNET_CUDA_ON_X86(...) __VA_ARGS__
#else
#define RESNET_CUDA_INSTRUCTION_SETS(SET, HAS, BIT) SET(kPortable, portable, kPortable, true)
#define RESNET_CUDA_ON_X86(...)
#endif

#define RESNET_CUDA_ENUMERATOR(enumerator, ...) enumerator,
enum class InstructionSet { RESNET_CUDA_INSTRUCTION_SETS(RESNET_CUDA_ENUMERATOR, , ) };
#undef RESNET_CUDA_ENUMERATOR

#define RESNET_CUDA_ELEMENT(enumerator, ...) InstructionSet::enumerator,
constexpr InstructionSet kInstructionSets[] = {RESNET_CUDA_INSTRUCTION_SETS(RESNET_CUDA_ELEMENT, , )};
#undef RESNET_CUDA_ELEMENT

// Whether this machine has the set's features. The environment variable RESNET_CUDA_CPU_CAPABILITY, the name of such a
// set, leaves that set and the sets that it extends, for tests and comparisons; it is read once.
bool is_usable(InstructionSet set);

const char* name_of(InstructionSet set);

}  // namespace resnet_cuda
