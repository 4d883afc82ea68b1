"""Which convolution a norm belongs to, and which ReLU follows it, by the class of the module around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from resnet_cuda.exact import runs_in_order, why_touched
from resnet_cuda.inference import blocks
from resnet_cuda.inference.deformable import WithOffsets
from resnet_cuda.inference.norms import is_norm
from resnet_cuda.layers.hooks import is_relu


@dataclass(frozen=True)
class Pair:
    """A convolution and the ``norm`` after it: the norm is the only reader of the convolution's result.

    ``relu``: the ReLU module that follows, if it has no other input here; else None.
    """

    conv: nn.Module
    norm: nn.Module
    relu: nn.Module | None = None


Alone = Callable[[nn.Module], bool]
Rewrite = Callable[[Alone], bool]


@dataclass(frozen=True)
class Pattern:
    """The fusion pattern of one module.

    Attributes:
        pairs: its convolutions with their norms; each is folded independently.
        rewrite: converts the module to one of :mod:`resnet_cuda.inference.blocks`; called after the pairs and the
            submodules have been processed. It returns whether it succeeded. Its argument tells whether a module within
            this one stands nowhere else, so that it may change: with a ReLU, say, for this place only.
    """

    pairs: Sequence[Pair] = ()
    rewrite: Rewrite | None = None


Describe = Callable[[Any], Pattern]


@dataclass(frozen=True)
class Known:
    """A class by its dotted path, the methods that its forward runs, and the function that describes its instances."""

    path: str
    describe: Describe
    methods: Sequence[str] = field(default=("forward",))


def become(module: nn.Module, new: nn.Module) -> None:
    """Gives ``module`` the class and attributes of ``new``, so that existing references to it see the new one.

    Its hooks of every kind stay, as do attributes that ``new`` does not have, which other code may read.
    """
    own = module.__dict__
    for name, value in new.__dict__.items():
        if "_hook" not in name:
            own[name] = value
    module.__class__ = type(new)


def is_nothing(module: nn.Module | None) -> bool:
    """Whether ``module`` is None or an Identity without hooks."""
    return module is None or (type(module) is nn.Identity and why_touched(module) is None)


def pairs_in_sequence(modules: Iterable[nn.Module]) -> list[Pair]:
    """The pairs in modules that run in sequence, each with the ReLU after the norm."""
    run = list(modules)
    pairs = []
    for index, (conv, norm) in enumerate(itertools.pairwise(run)):
        if not is_norm(norm):
            continue
        after = run[index + 2] if index + 2 < len(run) else None
        pairs.append(Pair(conv, norm, after if after is not None and is_relu(after) else None))
    return pairs


def sequential_pairs(module: nn.Module | None) -> list[Pair]:
    """The pairs of a Sequential that a block runs as a whole."""
    return pairs_in_sequence(module) if runs_in_order(module) else []


def may_end_with_relu(conv: nn.Module, alone: Alone) -> bool:
    """Whether a ReLU may be added to ``conv``: it is folded, without hooks, and stands nowhere else."""
    return blocks.is_folded(conv) and alone(blocks.convolution_in(conv))


def residual(
    block: nn.Module,
    convs: dict[str, nn.Module],
    norms: Sequence[nn.Module],
    shortcut: str,
    relus: Sequence[nn.Module] = (),
    nothing: Sequence[nn.Module | None] = (),
) -> Rewrite:
    """A rewrite for ``relu(convs(x) + shortcut(x))`` with ReLU after every convolution.

    Args:
        convs: by name, in the order in which they run.
        norms: the block's norms after ``convs``; there is no rewrite if one of them was not folded.
        shortcut: the attribute's name; its value None means the identity.
        relus: modules that must be ReLU without hooks.
        nothing: modules that must be None or Identity.
    """

    def rewrite(alone: Alone) -> bool:
        *first, last = convs.values()
        if (
            not all(map(is_relu, relus))
            or not all(map(is_nothing, (*norms, *nothing)))
            or not all(may_end_with_relu(conv, alone) for conv in convs.values())
            or getattr(last, "relu", False)
        ):
            return False
        for conv in first:
            blocks.end_with_relu(conv)
        if isinstance(last, blocks.FoldedConv2d):
            blocks.end_with_relu(last)
        module = getattr(block, shortcut)
        become(block, blocks.FusedBlock(convs, None if module is None else (shortcut, module)).eval())
        return True

    return rewrite


def stem(module: nn.Module, conv: nn.Module, norms: Sequence[nn.Module]) -> Rewrite:
    """A rewrite for ``max_pool2d(relu(conv(x)), 3, 2, 1)``; ``norms`` as for :func:`residual`."""

    def rewrite(alone: Alone) -> bool:
        if not all(map(is_nothing, norms)) or not may_end_with_relu(conv, alone):
            return False
        blocks.end_with_relu(conv)
        become(module, blocks.FusedStem(conv).eval())
        return True

    return rewrite


def with_offsets(offset: nn.Module, conv: nn.Module, modulated: bool) -> nn.Module:
    """One layer of a deformable convolution and the convolution that predicts its offsets."""
    return WithOffsets(offset, conv, modulated).eval()  # type: ignore[arg-type]
