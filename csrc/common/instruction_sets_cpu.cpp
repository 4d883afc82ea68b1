#include "common/instruction_sets.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(RESNET_CUDA_X86)
#include <cpuid.h>
#endif

namespace resnet_cuda {
namespace {

struct Row {
  const char* name;
  InstructionSet extended;
};

#define RESNET_CUDA_ROW(enumerator, name, extended, features) {#name, InstructionSet::extended},
constexpr Row kRows[] = {RESNET_CUDA_INSTRUCTION_SETS(RESNET_CUDA_ROW, , )};

constexpr bool each_extends_an_earlier_one() {
  for (const InstructionSet set : kInstructionSets) {
    if (set != InstructionSet::kPortable && kRows[static_cast<int>(set)].extended >= set) {
      return false;
    }
  }
  return true;
}
static_assert(each_extends_an_earlier_one());

unsigned bit_of(InstructionSet set) {
  return 1u << static_cast<int>(set);
}

#if defined(RESNET_CUDA_X86)
// GCC has the name since 11, Clang since 18. Whether the system saves the registers is known by then: they are AVX2's.
bool supports_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

unsigned sets_of_this_machine() {
  unsigned sets = bit_of(InstructionSet::kPortable);
#if defined(RESNET_CUDA_X86)
  __builtin_cpu_init();
#endif
#define RESNET_CUDA_HAS(feature) __builtin_cpu_supports(#feature)
#define RESNET_CUDA_BIT(feature) supports_##feature()
#define RESNET_CUDA_DETECT(enumerator, name, extended, features)      \
  if ((sets & bit_of(InstructionSet::extended)) != 0 && (features)) { \
    sets |= bit_of(InstructionSet::enumerator);                       \
  }
  RESNET_CUDA_INSTRUCTION_SETS(RESNET_CUDA_DETECT, RESNET_CUDA_HAS, RESNET_CUDA_BIT)
  return sets;
}

[[noreturn]] void throw_unknown(const char* variable, const char* asked) {
  std::string allowed;
  for (const InstructionSet set : kInstructionSets) {
    allowed += (allowed.empty() ? "" : ", ") + std::string(name_of(set));
  }
  throw std::runtime_error(std::string(variable) + " is '" + asked + "'; it must be one of " + allowed);
}

// Where the machine lacks the set that is asked for, all that it has.
unsigned usable_sets() {
  constexpr const char* kVariable = "RESNET_CUDA_CPU_CAPABILITY";
  const unsigned sets = sets_of_this_machine();
  const char* asked = std::getenv(kVariable);
  if (asked == nullptr || *asked == '\0') {
    return sets;
  }
  for (InstructionSet set : kInstructionSets) {
    if (std::strcmp(asked, name_of(set)) == 0) {
      if ((sets & bit_of(set)) == 0) {
        return sets;
      }
      unsigned chain = bit_of(set);
      for (; set != InstructionSet::kPortable; chain |= bit_of(set)) {
        set = kRows[static_cast<int>(set)].extended;
      }
      return chain;
    }
  }
  throw_unknown(kVariable, asked);
}

}  // namespace

bool is_usable(InstructionSet set) {
  static const unsigned sets = usable_sets();
  return (sets & bit_of(set)) != 0;
}

const char* name_of(InstructionSet set) {
  return kRows[static_cast<int>(set)].name;
}

}  // namespace resnet_cuda
