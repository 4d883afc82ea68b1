"""Blocks, stems, stages and pyramids of convolutions with folded norm, and residual sum and ReLU in the epilogue."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda.exact import runs_as
from resnet_cuda.fpn import FeaturePyramidNetwork
from resnet_cuda.inference.convolution import FoldedConv2d, added, recorded
from resnet_cuda.inference.deformable import FoldedDeformConv2d, FoldedDeformPack, WithOffsets
from resnet_cuda.inference.strategies import result_size
from resnet_cuda.layers import DFConv2d
from resnet_cuda.layers.hooks import is_hooked, is_sequence, runs_only
from resnet_cuda.layers.overwriting import nobody_records


class FusedBlock(nn.Module):
    """Convolutions in sequence, the last with the shortcut as its residual.

    Args:
        convs: two or more by name; the last is a FoldedConv2d or a deformable layer, which cannot add the residual.
        shortcut: its name and module; None for the identity.
    """

    def __init__(self, convs: dict[str, nn.Module], shortcut: tuple[str, nn.Module] | None):
        super().__init__()
        for name, conv in convs.items():
            self.add_module(name, conv)
        *self.first_names, self.last_name = convs
        self.shortcut_name = ""
        if shortcut is not None:
            self.shortcut_name = shortcut[0]
            self.add_module(*shortcut)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """``overwrite``: the caller no longer needs ``x``."""
        if torch.jit.is_scripting():
            return self._scripted(x)
        out = x
        for name in self.first_names:
            out = getattr(self, name)(out)
        last = getattr(self, self.last_name)
        if self.shortcut_name:
            shortcut = getattr(self, self.shortcut_name)
            residual = shortcut(x)
            overwrite = _makes_new_result(shortcut) and nobody_records()
        else:
            residual = x
            overwrite = overwrite and _keeps_nothing(getattr(self, self.first_names[0]))
        # A Tensor subclass may have recorded the residual in __torch_function__.
        overwrite = overwrite and _keeps_nothing(last) and type(residual) is Tensor
        return add_residual(last, out, residual, overwrite)

    def _scripted(self, x: Tensor) -> Tensor:
        """For TorchScript, which unrolls loops over children and compiles only the branch of a layer's class."""
        out, residual = x, x
        for name, module in self.named_children():
            if name in self.first_names:
                out = module(out)
            elif name == self.shortcut_name:
                residual = module(x)
        for name, module in self.named_children():
            if name == self.last_name:
                if hasattr(module, "adds_residual"):
                    out = module(out, residual)
                else:
                    out = F.relu(module(out) + residual)
        return out


def add_residual(conv: nn.Module, x: Tensor, residual: Tensor, overwrite: bool) -> Tensor:
    """``relu(conv(x) + residual)``; a deformable ``conv`` must be without ReLU, see :func:`end_with_relu`."""
    if isinstance(conv, FoldedConv2d):
        # By name: what a forward pre-hook returns takes the place of all positional arguments.
        return conv(x, residual=residual, overwrite=overwrite)
    return F.relu(added(conv(x), residual))


def end_with_relu(conv: nn.Module) -> None:
    """Adds a ReLU to a folded convolution of any kind."""
    layer: Any = convolution_in(conv)
    assert isinstance(layer, (FoldedConv2d, FoldedDeformConv2d))
    layer.relu = True


def convolution_in(conv: nn.Module) -> nn.Module:
    """The convolution itself within ``conv``, which may predict its offsets, too."""
    layer: Any = conv
    while _predicts_offsets(layer):
        layer = layer.conv
    return layer


def _predicts_offsets(layer: nn.Module) -> bool:
    return type(layer) is WithOffsets or (isinstance(layer, DFConv2d) and runs_as(layer, DFConv2d))


def is_folded(conv: nn.Module) -> bool:
    """Whether ``conv`` is a folded convolution of any kind without hooks, so that a ReLU may be added to it."""
    layer: Any = conv
    while _predicts_offsets(layer):
        if is_hooked(layer):
            return False
        layer = layer.conv
    return isinstance(layer, (FoldedConv2d, FoldedDeformConv2d, FoldedDeformPack)) and not is_hooked(layer)


def _keeps_nothing(conv: nn.Module) -> bool:
    """Whether its caller alone has what ``conv`` is given and what it returns, which is a new tensor."""
    return type(conv) is FoldedConv2d and not is_hooked(conv)


def _makes_new_result(shortcut: nn.Module) -> bool:
    """Whether only its caller has what it returns: it ends in a folded convolution and has no hooks."""
    if is_sequence(shortcut):
        last = [it for it in shortcut if not runs_only(it, nn.Identity)]
        return len(last) > 0 and _keeps_nothing(last[-1])
    return _keeps_nothing(shortcut)


def _returns_own(block: nn.Module) -> bool:
    """Whether only the caller of ``block`` has its result: that of its last convolution, or of a sum with ReLU."""
    if type(block) is not FusedBlock or is_hooked(block):
        return False
    last = getattr(block, block.last_name)
    return _keeps_nothing(last) or not isinstance(last, FoldedConv2d)


class FusedStem(nn.Module):
    """A convolution with ReLU and 3x3 max pooling with stride 2."""

    def __init__(self, conv1: nn.Module):
        super().__init__()
        self.conv1 = conv1

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class FusedStage(nn.Sequential):
    """FusedBlocks in sequence, each of which may overwrite the previous block's result."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            for block in self:
                input = block(input)
            return input
        overwriting = nobody_records()
        own = False  # whether nobody else has ``input``: the caller may keep the first one
        for block in self:
            fused = type(block) is FusedBlock and not is_hooked(block)
            input = block(input, True) if own and fused else block(input)
            own = overwriting and _returns_own(block)
        return input


class FusedPyramid(nn.Module):
    """A FeaturePyramidNetwork (torchvision's or ours) whose lateral convolutions add the level above."""

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        inner_blocks: nn.ModuleList
        layer_blocks: nn.ModuleList
        extra_blocks: Any

    _scripted = FeaturePyramidNetwork._scripted

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        if torch.jit.is_scripting():
            return self._scripted(x)  # type: ignore[misc]
        names, levels = list(x.keys()), list(x.values())
        inner = None
        results: list[Tensor] = []
        for index in reversed(range(len(levels))):
            inner = merge(self.inner_blocks[index], levels[index], inner)
            results.insert(0, self.layer_blocks[index](inner))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, levels, names)
        return OrderedDict(zip(names, results, strict=True))


def merge(block: nn.Module, x: Tensor, above: Tensor | None) -> Tensor:
    """``block(x)``, plus ``above`` upsampled to its size. ``block`` is a convolution or a Sequential of one."""
    if above is None:
        return block(x)
    conv = None if recorded(x) else lateral_convolution(block)
    if conv is not None:
        size = result_size(conv, conv.weight, x)
        return conv(x, residual=F.interpolate(above, size=size, mode="nearest"), overwrite=True)
    lateral = block(x)
    return lateral + F.interpolate(above, size=lateral.shape[-2:], mode="nearest")


def lateral_convolution(block: nn.Module) -> Any:
    """The convolution that is all of ``block``, in a Sequential or not; None if it has a ReLU or there are hooks."""
    conv, *others = block if is_sequence(block) else (block,)
    found = (
        type(conv) is FoldedConv2d
        and conv.is_plain()
        and not conv.relu
        and not is_hooked(conv)
        and all(runs_only(it, nn.Identity) for it in others)
    )
    return conv if found else None
