// Reads sums of a product before it has waited for it: ptxas then waits after every product, and says so.
#include "common/warpgroup.cuh"

namespace resnet_cuda {

__global__ void reads_too_early(float* out) {
  device::Sums<128> sums;
  const auto left = device::operand_at<device::Major::kK>(0);
  const auto right = device::operand_at<device::Major::kK>(8192);
  device::begin_products(sums);
  device::multiply<torch::headeronly::BFloat16, device::Major::kK, device::Major::kK>(sums, left, right, false);
  device::commit_products();
  out[threadIdx.x] = sums.get(0);
  device::finish_products(sums);
  out[threadIdx.x + 128] = sums.get(1);
}

}  // namespace resnet_cuda
