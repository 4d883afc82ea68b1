#include "common/instruction_sets.h"

#include <cstdlib>
#include <cstring>

namespace resnet_cuda {
namespace {

struct Row {
  const char* name;
  InstructionSet extended;
};

#define RESNET_CUDA_ROW(enumerator, name, extended, features) {#name, InstructionSet::extended},
constexpr Row kRows[] = {RESNET_CUDA_INSTRUCTION_SETS(RESNET_CUDA_ROW, )};

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

unsigned sets_of_this_machine() {
  unsigned sets = bit_of(InstructionSet::kPortable);
#if defined(RESNET_CUDA_X86)
  __builtin_cpu_init();
#endif
#define RESNET_CUDA_HAS(feature) __builtin_cpu_supports(#feature)
#define RESNET_CUDA_DETECT(enumerator, name, extended, features)      \
  if ((sets & bit_of(InstructionSet::extended)) != 0 && (features)) { \
    sets |= bit_of(InstructionSet::enumerator);                       \
  }
  RESNET_CUDA_INSTRUCTION_SETS(RESNET_CUDA_DETECT, RESNET_CUDA_HAS)
  return sets;
}

unsigned usable_sets() {
  const unsigned sets = sets_of_this_machine();
  const char* asked = std::getenv("RESNET_CUDA_CPU_CAPABILITY");
  for (InstructionSet set : kInstructionSets) {
    if (asked != nullptr && std::strcmp(asked, name_of(set)) == 0 && (sets & bit_of(set)) != 0) {
      unsigned chain = bit_of(set);
      for (; set != InstructionSet::kPortable; chain |= bit_of(set)) {
        set = kRows[static_cast<int>(set)].extended;
      }
      return chain;
    }
  }
  return sets;
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
