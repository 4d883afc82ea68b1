"""The forwards of blocks and stems in TorchScript.

TorchScript cannot pass modules to functions, so these are methods instead of :mod:`resnet_cuda.layers.conv_norm_act`.
It evaluates ``hasattr`` at compile time, and so compiles only the branch of the norm that exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from resnet_cuda.layers.hooks import is_relu


class HasRelu:
    """A base of modules with an activation ``relu`` that may be replaced or hooked.

    TorchScript cannot tell a ReLU from another activation; of a constant it compiles one branch.
    """

    if TYPE_CHECKING:
        relu: Any

    __constants__: Sequence[str] = ("relu_is_fused",)
    __jit_unused_properties__: Sequence[str] = ("relu_is_fused",)

    def __init_subclass__(cls, **options: Any) -> None:
        """Both are of the class alone: lists of a subclass would take the place of these."""
        super().__init_subclass__(**options)
        cls.__constants__ = tuple({*cls.__constants__, *HasRelu.__constants__})
        cls.__jit_unused_properties__ = tuple({*cls.__jit_unused_properties__, *HasRelu.__jit_unused_properties__})

    @property
    def relu_is_fused(self) -> bool:
        return is_relu(self.relu)


class ScriptedBlock:
    """A base of residual blocks of two or three convolutions, each with its norm."""

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        conv1: Any
        bn1: Any
        conv2: Any
        bn2: Any
        conv3: Any
        bn3: Any
        downsample: Any

    def _scripted(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.conv1(x)
        out = self.bn1(out, None, True) if hasattr(self.bn1, "takes_residual") else F.relu(self.bn1(out))
        out = self.conv2(out)
        if hasattr(self, "conv3"):
            out = self.bn2(out, None, True) if hasattr(self.bn2, "takes_residual") else F.relu(self.bn2(out))
            out = self.conv3(out)
            if hasattr(self.bn3, "takes_residual"):
                return self.bn3(out, shortcut, True)
            else:
                return F.relu(self.bn3(out) + shortcut)
        elif hasattr(self.bn2, "takes_residual"):
            return self.bn2(out, shortcut, True)
        else:
            return F.relu(self.bn2(out) + shortcut)


class ScriptedBlockWithRelu(HasRelu, ScriptedBlock):
    """The same with an activation ``relu``."""

    def _scripted_with_relu(self, x: Tensor) -> Tensor:
        if self.relu_is_fused:
            return self._scripted(x)
        else:
            shortcut = x if self.downsample is None else self.downsample(x)
            out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            if hasattr(self, "conv3"):
                out = self.bn3(self.conv3(self.relu(out)))
            return self.relu(out + shortcut)


class ScriptedStem:
    """A base of stems of a convolution, or several in a Sequential, a norm, ReLU and pooling."""

    if TYPE_CHECKING:
        conv1: Any
        bn1: Any

    def _scripted_stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.bn1(x, None, True) if hasattr(self.bn1, "takes_residual") else F.relu(self.bn1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
