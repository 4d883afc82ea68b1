// A kernel that the compile gate accepts: 16-byte accesses to global and to shared memory, an integer atomic that the
// table lists. Never run.
#include "common/device.cuh"

namespace resnet_cuda {

template <typename T>
__global__ void __launch_bounds__(128) turns_around(T* target, const T* source, int* counter) {
  const device::Shared<T> tile(0, 128);
  tile.set(device::thread(), source[128 * device::block() + device::thread()]);
  RESNET_CUDA_SYNC_BLOCK();
  target[128 * device::block() + device::thread()] = tile.get(127 - device::thread());
  if (device::thread() == 0) {
    device::atomic_add(counter, 1);
  }
}

template __global__ void turns_around<uint4>(uint4*, const uint4*, int*);

}  // namespace resnet_cuda
