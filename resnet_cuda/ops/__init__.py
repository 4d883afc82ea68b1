"""The operators: compiled where the extension is there for the tensor's device, else the reference."""

from resnet_cuda.ops.deform_conv import deform_conv2d
from resnet_cuda.ops.frozen_bn import frozen_bn_relu

__all__ = ["deform_conv2d", "frozen_bn_relu"]
