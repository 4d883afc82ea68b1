"""maskrcnn-benchmark's FrozenBatchNorm2d."""

from __future__ import annotations

from maskrcnn_benchmark.layers import batch_norm

from resnet_cuda.layers.constant_norm import FrozenNorm


class FrozenBatchNorm2d(batch_norm.FrozenBatchNorm2d):
    eps = 0.0  # it divides by the square root of the variance alone
    forward = FrozenNorm.forward
