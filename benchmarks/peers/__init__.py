"""Other implementations of deformable convolution, all called in the same way.

To add one: a file ``<package>_peer.py`` here with its ``NAME`` and ``make() -> Peer``, and the package in ``PACKAGES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import DeformConvCase, DeformConvTensors

PACKAGES = ("torchvision", "onnxruntime", "openvino", "mmcv")  # in the order of the tables


@dataclass(frozen=True)
class Peer:
    """``forward(case, tensors)`` prepares a call that gives the output; ``differentiable``: it has a backward."""

    name: str
    forward: Callable[[DeformConvCase, DeformConvTensors], Callable[[], Tensor]]
    differentiable: bool
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]


def load(package: str) -> Peer:
    """The peer of one of ``PACKAGES``. Raises ImportError where it is not installed."""
    return importlib.import_module(f"{__name__}.{package}_peer").make()


def available() -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be imported here, and why the others cannot, by name."""
    peers, missing = [], {}
    for package in PACKAGES:
        try:
            peers.append(load(package))
        except (ImportError, OSError, RuntimeError) as error:
            name = importlib.import_module(f"{__name__}.{package}_peer").NAME
            missing[name] = str(error).splitlines()[0]
    return peers, missing
