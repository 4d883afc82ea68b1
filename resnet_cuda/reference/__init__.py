"""The operators' definition in pure PyTorch: it runs where the extension does not, and the tests compare with it."""

from resnet_cuda.reference.conv2d_winograd import conv2d_winograd, winograd_weight
from resnet_cuda.reference.deform_conv import deform_conv2d
from resnet_cuda.reference.frozen_bn import frozen_batch_norm, frozen_bn_relu

__all__ = ["conv2d_winograd", "deform_conv2d", "frozen_batch_norm", "frozen_bn_relu", "winograd_weight"]
