"""The operators: compiled where the extension supports the tensor's device, else the reference."""

from resnet_cuda import _extension
from resnet_cuda.ops import (
    _python_operators,
    conv2d_winograd,  # noqa: F401 - registers its operator
    deform_conv_relu,  # noqa: F401 - likewise
)
from resnet_cuda.ops.deform_conv import deform_conv2d
from resnet_cuda.ops.flops import register_flop_formulas
from resnet_cuda.ops.frozen_bn import frozen_bn_relu

__all__ = ["deform_conv2d", "frozen_bn_relu"]

if _extension.CPU_LOADED:
    register_flop_formulas()
else:
    _python_operators.define()
