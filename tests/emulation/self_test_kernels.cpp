// Kernels that put the emulation itself to the test: variant 0 of each is right, every other breaks a rule.
//
// All run on [n] float32 in blocks of 64 threads and give [n] float32; test_device_emulation.py knows what each must
// do.

#include <stdexcept>

#include "common/launch.cuh"
#include "common/pack.cuh"
#include "common/registration.h"
#include "common/tensors.h"

namespace resnet_cuda {
namespace {

struct Kernel {
  static constexpr int kThreads = 64;
  static constexpr int kSharedBytes = kThreads * 4;
  int64_t variant;
  int64_t count;
  const float* source;
  float* target;

  RESNET_CUDA_BODY int64_t index() const {
    return device::block() * kThreads + device::thread();
  }
};

// Turns each block's elements round. 1: no barrier before others' words are read; 2: none after it, before they are
// written; 3: all write one word, all the same value.
struct Reverse : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    const device::Shared<float> shared(0, kThreads);
    const int thread = device::thread();
    shared.set(thread, source[index()]);
    if (variant != 1) {
      RESNET_CUDA_SYNC_BLOCK();
    }
    const float value = shared.get(kThreads - 1 - thread);
    if (variant != 2) {
      RESNET_CUDA_SYNC_BLOCK();
    }
    shared.set(variant == 3 ? 0 : thread, variant == 3 ? 1.0f : value);
    target[index()] = value;
  }
};

// Changes neighbours, which are of one warp, with nothing but warp barriers. 1: changes with the other warp; 2: no
// barrier at all.
struct SwapInWarp : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    const device::Shared<float> shared(0, kThreads);
    const int thread = device::thread();
    shared.set(thread, source[index()]);
    if (variant != 2) {
      RESNET_CUDA_SYNC_WARP();
    }
    const float value = shared.get(thread ^ (variant == 1 ? 32 : 1));
    RESNET_CUDA_SYNC_WARP();
    shared.set(thread, value);
    target[index()] = value;
  }
};

// 1: two branches with a barrier each; 2: one thread ends early; 3: one warp goes round once more; 4: half a warp
// shuffles; 5: half a warp is at the warp's barrier, half at the block's.
struct Meet : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    target[index()] = source[index()];
    if (variant == 2 && thread == 5) {
      return;
    }
    if (variant == 1 && thread < 32) {
      RESNET_CUDA_SYNC_BLOCK();
    } else {
      RESNET_CUDA_SYNC_BLOCK();
    }
    for (int round = variant == 3 && thread >= 32 ? 0 : 1; round < 3; ++round) {
      RESNET_CUDA_SYNC_BLOCK();
    }
    if (variant == 4 && thread % 32 < 16) {
      target[index()] = RESNET_CUDA_SHUFFLE_XOR(1.0f, 1);
    }
    if (variant == 5 && thread % 32 < 16) {
      RESNET_CUDA_SYNC_WARP();
    }
    RESNET_CUDA_SYNC_BLOCK();
  }
};

// 1: index one past the end; 2: -1; 3: a Shared larger than the memory; 4: one that is not aligned; 5: reads a word
// that nobody has set; 6: reads what only block 0 has set.
struct Place : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    if (variant == 4) {
      const device::Shared<double> shared(4, 2);
      shared.set(thread % 2, 1.0);
    }
    const device::Shared<float> shared(0, kThreads + (variant == 3 ? 1 : 0));
    if ((variant != 5 || thread != 7) && (variant != 6 || device::block() == 0)) {
      const int place = variant == 1 && thread == 63 ? 64 : variant == 2 && thread == 0 ? -1 : thread;
      shared.set(place, source[index()]);
    }
    target[index()] = shared.get(thread);
  }
};

// Copies packs of 4. 1: from one element further on; 2: to there; 3: leaves the last pack out; 4: copies one too many.
struct CopyPacks : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    const int64_t begin = index() * 4;
    const int64_t end = variant == 3 ? count - 4 : variant == 4 ? count + 4 : count;
    if (begin < end) {
      const auto pack = load_pack<4>(source + begin + (variant == 1 ? 1 : 0));
      store_pack<4>(target + begin + (variant == 2 ? 1 : 0), pack);
    }
  }
};

// The place in which each thread came, by the atomic counter at the source's start. 1: by a counter without atomics,
// which counts too few; 2: who came last, everywhere.
struct Order : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    int* counter = reinterpret_cast<int*>(const_cast<float*>(source));
    if (variant == 0) {
      target[index()] = static_cast<float>(device::atomic_add(counter, 1));
    } else if (variant == 1) {
      const int before = *counter;
      RESNET_CUDA_SYNC_WARP();
      *counter = before + 1;
      target[index()] = static_cast<float>(before);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        target[i] = static_cast<float>(index());
      }
    }
  }
};

// 0: the warp's sum by xor, in every lane, through all types; 1: the warp's running sum by shuffling up; 2: the warp in
// reverse by shuffling; 3: from a lane that does not exist; 4: how many lower lanes have odd elements, by ballot; 5:
// half a warp votes.
struct Shuffle : Kernel {
  template <typename T>
  RESNET_CUDA_BODY T warp_sum(T value) const {
    for (int mask = 16; mask > 0; mask /= 2) {
      value += RESNET_CUDA_SHUFFLE_XOR(value, mask);
    }
    return value;
  }

  RESNET_CUDA_BODY void operator()() const {
    const float value = source[index()];
    if (variant == 0) {
      const auto by_long = static_cast<double>(warp_sum(static_cast<int64_t>(value) << 33) >> 33);
      const double all = warp_sum(static_cast<double>(value)) + static_cast<double>(warp_sum(static_cast<int>(value)));
      target[index()] = static_cast<float>(all + by_long) + warp_sum(value);
      return;
    }
    const int lane = device::thread() % 32;
    if (variant == 2 || variant == 3) {
      target[index()] = RESNET_CUDA_SHUFFLE(value, variant == 2 ? 31 - lane : 32);
      return;
    }
    if (variant == 4) {
      const uint32_t odd = RESNET_CUDA_BALLOT(static_cast<int>(value) % 2 != 0);
      target[index()] = static_cast<float>(device::count_bits(odd & ((uint32_t{1} << lane) - 1)));
      return;
    }
    if (variant == 5) {
      target[index()] = lane < 16 ? static_cast<float>(RESNET_CUDA_BALLOT(true)) : 0.0f;
      return;
    }
    float sum = value;
    for (int delta = 1; delta < 32; delta *= 2) {
      const float below = RESNET_CUDA_SHUFFLE_UP(sum, delta);
      sum += device::thread() % 32 >= delta ? below : 0.0f;
    }
    target[index()] = sum;
  }
};

// Every thread adds its element to one word. 1: without a barrier before it is read; 2: nobody has set it; 3: one
// thread sets it meanwhile; 4: one thread adds what another reads.
struct AddToShared : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    const device::Shared<int> sum(0, kThreads);
    const int thread = device::thread();
    if (variant != 2) {
      sum.set(thread, 0);
    }
    RESNET_CUDA_SYNC_BLOCK();
    if (variant == 3 && thread == 40) {
      sum.set(0, 1);
    } else if (variant != 4 || thread == 40) {
      sum.add(0, static_cast<int>(source[index()]));
    }
    if (variant != 1 && variant != 4) {
      RESNET_CUDA_SYNC_BLOCK();
    }
    target[index()] = static_cast<float>(sum.get(0));
  }
};

// 1: one thread throws while all others wait.
struct Throw : Kernel {
  RESNET_CUDA_BODY void operator()() const {
    if (variant == 1 && index() == 37) {
      throw std::out_of_range("thread 37 has had enough");
    }
    RESNET_CUDA_SYNC_BLOCK();
    target[index()] = source[index()];
  }
};

template <typename Body>
Tensor run(const Tensor& source, int64_t variant) {
  const int64_t count = source.numel();
  const Tensor target = empty_beside(source, size_of(source), source.scalar_type());
  Body body;
  body.variant = variant;
  body.count = count;
  body.source = source.const_data_ptr<float>();
  body.target = target.mutable_data_ptr<float>();
  Launcher(source).launch(count / Body::kThreads, body);
  return target;
}

}  // namespace
}  // namespace resnet_cuda

STABLE_TORCH_LIBRARY(resnet_cuda_emulation_self_test, m) {
  m.def("reverse(Tensor source, int variant) -> Tensor");
  m.def("swap_in_warp(Tensor source, int variant) -> Tensor");
  m.def("meet(Tensor source, int variant) -> Tensor");
  m.def("place(Tensor source, int variant) -> Tensor");
  m.def("copy_packs(Tensor source, int variant) -> Tensor");
  m.def("order(Tensor(a!) source, int variant) -> Tensor");
  m.def("shuffle(Tensor source, int variant) -> Tensor");
  m.def("add_to_shared(Tensor source, int variant) -> Tensor");
  m.def("throw_in_thread(Tensor source, int variant) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(resnet_cuda_emulation_self_test, CPU, m) {
  m.impl("reverse", TORCH_BOX(&resnet_cuda::run<resnet_cuda::Reverse>));
  m.impl("swap_in_warp", TORCH_BOX(&resnet_cuda::run<resnet_cuda::SwapInWarp>));
  m.impl("meet", TORCH_BOX(&resnet_cuda::run<resnet_cuda::Meet>));
  m.impl("place", TORCH_BOX(&resnet_cuda::run<resnet_cuda::Place>));
  m.impl("copy_packs", TORCH_BOX(&resnet_cuda::run<resnet_cuda::CopyPacks>));
  m.impl("order", TORCH_BOX(&resnet_cuda::run<resnet_cuda::Order>));
  m.impl("shuffle", TORCH_BOX(&resnet_cuda::run<resnet_cuda::Shuffle>));
  m.impl("add_to_shared", TORCH_BOX(&resnet_cuda::run<resnet_cuda::AddToShared>));
  m.impl("throw_in_thread", TORCH_BOX(&resnet_cuda::run<resnet_cuda::Throw>));
}
