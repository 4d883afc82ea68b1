"""Feature pyramids (Lin et al. 2016, arXiv:1612.03144): maskrcnn-benchmark's and torchvision's, with their names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda._arguments import flag
from resnet_cuda.layers import Conv2d, group_norm
from resnet_cuda.layers.conv_norm_act import conv_norm

ConvBlock = Callable[..., nn.Module]


def conv_with_kaiming_uniform(
    use_gn: bool = False, use_relu: bool = False, norm_func: Callable[[int], nn.Module] = group_norm
) -> ConvBlock:
    """A function that makes the pyramid's convolutions, each followed by GN and ReLU if asked
    [maskrcnn_benchmark.modeling.make_layers.conv_with_kaiming_uniform].

    Args:
        use_gn: whether a norm follows; the convolution then has no bias.
        use_relu: whether a ReLU follows.
        norm_func: makes the norm from its number of channels.

    Returns:
        ``make(in_channels, out_channels, kernel_size, stride=1, dilation=1)``, whose modules keep the size at stride 1.
    """
    use_gn = flag("conv_with_kaiming_uniform", "use_gn", use_gn)
    use_relu = flag("conv_with_kaiming_uniform", "use_relu", use_relu)

    def make(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> nn.Module:
        conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            bias=not use_gn,
        )
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        modules = [conv]
        if use_gn:
            modules.append(norm_func(out_channels))
        if use_relu:
            # Not in place: a hook may keep the convolution's result.
            modules.append(nn.ReLU())
        return nn.Sequential(*modules) if len(modules) > 1 else conv

    return make


def merge_top_down(lateral: Tensor, above: Tensor) -> Tensor:
    """``lateral`` (N, C, H, W) plus the level ``above`` (N, C, h, w), upsampled to H x W by nearest neighbour. Works
    for any image size, not only multiples of 32."""
    return lateral + F.interpolate(above, size=lateral.shape[-2:], mode="nearest")


def _merge_all(levels: list[Tensor]) -> None:
    """:func:`merge_top_down` over a list of laterals, finest first, for TorchScript."""
    for distance in range(1, len(levels)):
        index = len(levels) - 1 - distance
        levels[index] = merge_top_down(levels[index], levels[index + 1])


class LastLevelMaxPool(nn.Module):
    """P6 (torchvision's "pool"): every other pixel of the last level.

    ``top(p5)``, (N, C, H, W), gives a list of P6, (N, C, ceil(H / 2), ceil(W / 2)) [maskrcnn-benchmark].
    ``top(results, inputs, names)`` gives results and names with P6 appended [torchvision].
    """

    def forward(self, x: list[Tensor], y: list[Tensor] | None = None, names: list[str] | None = None):
        if torch.jit.is_scripting():  # where one class has one signature, torchvision's
            assert y is not None and names is not None
            return x + self.added(y[-1], x[-1]), names + ["pool"]  # noqa: RUF005
        if names is None:
            p5 = cast("Tensor", x)  # [maskrcnn-benchmark]
            return self.added(p5, p5)
        return [*x, *self.added(x[-1], x[-1])], [*names, "pool"]

    def added(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        return [F.max_pool2d(p5, kernel_size=1, stride=2)]


class LastLevelP6P7(nn.Module):
    """RetinaNet's P6 and P7 (Lin et al. 2017, arXiv:1708.02002), from P5 if in_channels == out_channels, else from C5.

    Parameters: ``p6``, ``p7``, 3x3 convolutions of stride 2 with bias. P7 is computed from ReLU(P6), as in
    maskrcnn-benchmark, torchvision and detectron2.

    ``top(c5, p5)``, (N, in_channels, H, W) and (N, out_channels, H, W), gives a list of P6, (N, out_channels,
    ceil(H / 2), ceil(W / 2)), and P7, of ceil(H / 4) x ceil(W / 4) [maskrcnn-benchmark]. ``top(results, inputs,
    names)`` gives results and names with both appended [torchvision].

    Args:
        in_channels: of C5.
        out_channels: of P5, P6 and P7.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.p6 = Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = Conv2d(out_channels, out_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)
        self.use_P5 = in_channels == out_channels

    def forward(self, c: list[Tensor], p: list[Tensor], names: list[str] | None = None):
        if torch.jit.is_scripting():  # where one class has one signature, torchvision's
            assert names is not None
            return c + self.added(p[-1], c[-1]), names + ["p6", "p7"]  # noqa: RUF005
        if names is not None:
            results, inputs = c, p
            return [*results, *self.added(inputs[-1], results[-1])], [*names, "p6", "p7"]
        return self.added(cast("Tensor", c), cast("Tensor", p))  # [maskrcnn-benchmark]

    def added(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        p6 = self.p6(p5 if self.use_P5 else c5)
        return [p6, self.p7(F.relu(p6))]


class FPN(nn.Module):
    """maskrcnn-benchmark's pyramid [maskrcnn_benchmark.modeling.backbone.fpn.FPN].

    ``forward``, a list of C levels (N, channels, H, W), finest first, gives a tuple of P levels (N, out_channels, H, W)
    of the same sizes, and after them those of ``top_blocks``.

    Parameters: ``fpn_inner1..``, ``fpn_layer1..``, numbered by position in ``in_channels_list``, and ``top_blocks``.

    Args:
        in_channels_list: channels of each input level; 0 leaves the level out (RetinaNet has no P2).
        out_channels: of every P level.
        conv_block: makes a convolution, see :func:`conv_with_kaiming_uniform`.
        top_blocks: :class:`LastLevelMaxPool`, :class:`LastLevelP6P7` or None.

    Raises:
        ValueError: where the last entry of ``in_channels_list`` is 0.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        conv_block: ConvBlock,
        top_blocks: nn.Module | None = None,
    ):
        super().__init__()
        self.levels = [level for level, channels in enumerate(in_channels_list, 1) if channels > 0]
        if not self.levels or self.levels[-1] != len(in_channels_list):
            raise ValueError(f"FPN: in_channels_list is {list(in_channels_list)}; its last entry must be positive")
        for level in self.levels:
            self.add_module(f"fpn_inner{level}", conv_block(in_channels_list[level - 1], out_channels, 1))
            self.add_module(f"fpn_layer{level}", conv_block(out_channels, out_channels, 3, 1))
        self.top_blocks: Any = top_blocks
        self.out_channels = out_channels

    def forward(self, x: list[Tensor]):  # a tuple of levels; scripted a list, since TorchScript has no such tuples
        if torch.jit.is_scripting():
            return self._scripted(x)
        inner = None
        results: list[Tensor] = []
        for level in reversed(self.levels):
            lateral = getattr(self, f"fpn_inner{level}")(x[level - 1])
            inner = lateral if inner is None else merge_top_down(lateral, inner)
            results.insert(0, getattr(self, f"fpn_layer{level}")(inner))
        if isinstance(self.top_blocks, LastLevelP6P7):
            results.extend(self.top_blocks(x[-1], results[-1]))
        elif self.top_blocks is not None:
            results.extend(self.top_blocks(results[-1]))
        return tuple(results)

    def _scripted(self, x: list[Tensor]) -> list[Tensor]:
        inner: list[Tensor] = []
        for name, module in self.named_children():
            # A convolution, alone or with norm and ReLU. Two conditions: the compiler evaluates the first one.
            if hasattr(module, "weight") or hasattr(module, "0"):  # noqa: SIM102
                if name.startswith("fpn_inner"):
                    inner.append(module(x[self.levels[len(inner)] - 1]))
        _merge_all(inner)
        results: list[Tensor] = []
        for name, module in self.named_children():
            if hasattr(module, "weight") or hasattr(module, "0"):  # noqa: SIM102
                if name.startswith("fpn_layer"):
                    results.append(module(inner[len(results)]))
        if self.top_blocks is not None:
            if hasattr(self.top_blocks, "added"):
                results.extend(self.top_blocks.added(x[-1], results[-1]))
            else:
                results.extend(self.top_blocks(results[-1]))
        return results


class FeaturePyramidNetwork(nn.Module):
    """torchvision's pyramid [torchvision.ops.FeaturePyramidNetwork].

    ``forward``, an OrderedDict of levels (N, channels, H, W), finest first, gives an OrderedDict of the same names and
    sizes, (N, out_channels, H, W), and after them the levels of ``extra_blocks``.

    Parameters: ``inner_blocks.{i}.0``, ``layer_blocks.{i}.0``, ``extra_blocks``. ``extra_blocks`` is called as in
    torchvision, so that its classes work here too. Files of torchvision's before 0.13, its published detectors among
    them, have ``inner_blocks.{i}.weight`` and so on without ``.0``; they load as they are.

    Args:
        in_channels_list: channels of each input level, finest first.
        out_channels: of every level of the result.
        extra_blocks: makes further levels, or None.
        norm_layer: makes a norm from its number of channels: ``inner_blocks.{i}.1`` and ``layer_blocks.{i}.1``, after
            convolutions without bias. None for convolutions with bias alone.
    """

    _version = 2  # torchvision's number for the keys with .0

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: nn.Module | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        make = conv_with_kaiming_uniform(norm_layer is not None, norm_func=norm_layer or group_norm)
        self.inner_blocks = nn.ModuleList(_as_sequential(make(it, out_channels, 1)) for it in in_channels_list)
        self.layer_blocks = nn.ModuleList(_as_sequential(make(out_channels, out_channels, 3)) for _ in in_channels_list)
        self.extra_blocks = extra_blocks
        self.out_channels = out_channels

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        if torch.jit.is_scripting():
            return self._scripted(x)
        names, levels = list(x.keys()), list(x.values())
        inner = None
        results: list[Tensor] = []
        for index in reversed(range(len(levels))):
            lateral = conv_norm(self.inner_blocks[index], levels[index])
            inner = lateral if inner is None else merge_top_down(lateral, inner)
            results.insert(0, conv_norm(self.layer_blocks[index], inner))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, levels, names)
        return OrderedDict(zip(names, results, strict=True))

    def _scripted(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        names, levels = list(x.keys()), list(x.values())
        inner: list[Tensor] = []
        for block in self.inner_blocks:
            inner.append(block(levels[len(inner)]))
        _merge_all(inner)
        results: list[Tensor] = []
        for block in self.layer_blocks:
            results.append(block(inner[len(results)]))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, levels, names)
        outputs: dict[str, Tensor] = OrderedDict()
        for name, result in zip(names, results):  # noqa: B905 - TorchScript's zip has no strict
            outputs[name] = result
        return outputs

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        """An old key is taken where the new one is not there; else it stays, and is unexpected."""
        for blocks in ("inner_blocks", "layer_blocks"):
            for index in range(len(self.inner_blocks)):
                for name in ("weight", "bias"):
                    old, new = (f"{prefix}{blocks}.{index}.{middle}{name}" for middle in ("", "0."))
                    if old in state_dict and new not in state_dict:
                        state_dict[new] = state_dict.pop(old)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _as_sequential(module: nn.Module) -> nn.Sequential:
    return module if isinstance(module, nn.Sequential) else nn.Sequential(module)
