// Kernels that the compile gate must refuse, one for each thing that it looks for. Never run.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common/device.cuh"

namespace resnet_cuda {

// 96 values alive across a barrier in a kernel of 1024 threads, which leave 64 registers at most.
__global__ void __launch_bounds__(1024) spills(float* data, int rounds) {
  float value[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) {
    value[i] = data[i * rounds + device::thread()];
  }
  for (int round = 0; round < rounds; ++round) {
    RESNET_CUDA_SYNC_BLOCK();
#pragma unroll
    for (int i = 0; i < 96; ++i) {
      value[i] += value[(i * 7 + 3) % 96] * value[(i * 5 + 1) % 96];
    }
  }
#pragma unroll
  for (int i = 0; i < 96; ++i) {
    data[i * rounds + device::thread()] = value[i];
  }
}

// A histogram of one's own, indexed by what is read: an array in local memory.
__global__ void indexes_a_local_array(int* data, int count) {
  int bins[32] = {};
  for (int i = 0; i < count; ++i) {
    ++bins[data[i] & 31];
  }
  for (int i = 0; i < 32; ++i) {
    data[count + 32 * device::thread() + i] = bins[i ^ (count & 31)];
  }
}

// A 16-bit atomic sum is a compare-and-swap loop on all architectures.
__global__ void adds_halves(__half* target, const __half* value) {
  atomicAdd(target + device::thread(), value[device::thread()]);
}

__global__ void adds_bfloat16(__nv_bfloat16* target, const __nv_bfloat16* value) {
  atomicAdd(target + device::thread(), value[device::thread()]);
}

// The loop of the days before double atomics.
__global__ void adds_doubles_in_a_loop(unsigned long long* target, const double* value) {
  unsigned long long seen = *target, assumed;
  do {
    assumed = seen;
    const double sum = __longlong_as_double(static_cast<long long>(assumed)) + value[device::thread()];
    seen = atomicCAS(target, assumed, static_cast<unsigned long long>(__double_as_longlong(sum)));
  } while (seen != assumed);
}

// In shared memory the very hardware has no float sum.
__global__ void adds_floats_in_shared_memory(float* data, const int* bin) {
  __shared__ float sum[32];
  sum[device::thread()] = 0;
  RESNET_CUDA_SYNC_BLOCK();
  atomicAdd(sum + bin[device::thread()], data[device::thread()]);
  RESNET_CUDA_SYNC_BLOCK();
  data[device::thread()] = sum[device::thread()];
}

__global__ void adds_floats(float* target, const float* value) {
  atomicAdd(target + device::thread(), value[device::thread()]);
}

__global__ void fetches_and_adds_doubles(double* target, const double* value, double* before) {
  before[device::thread()] = atomicAdd(target + device::thread(), value[device::thread()]);
}

__global__ void adds_integers(int* target, const int* value) {
  device::atomic_add(target + value[device::thread()], 1);
}

// To shared or to global memory, which only the run can tell.
__global__ void writes_to_either(float* target, int where) {
  __shared__ float tile[32];
  tile[device::thread()] = 1;
  RESNET_CUDA_SYNC_BLOCK();
  float* chosen = where > 0 ? tile + where : target;
  chosen[device::thread()] = 2;
  RESNET_CUDA_SYNC_BLOCK();
  target[64 + device::thread()] = tile[31 - device::thread()];
}

// Four floats in a row, of which the compiler cannot know that they lie aligned.
__global__ void copies_by_four_bytes(float* target, const float* source) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    target[4 * device::thread() + i] = source[4 * device::thread() + i];
  }
}

// Aligned and loaded at once, but stored one by one.
__global__ void loads_16_bytes_only(float* target, const float4* source) {
  const float4 value = source[device::thread()];
  target[device::thread()] = value.x;
  target[device::thread() + 32] = value.y;
  target[device::thread() + 64] = value.z;
  target[device::thread() + 96] = value.w;
}

}  // namespace resnet_cuda
