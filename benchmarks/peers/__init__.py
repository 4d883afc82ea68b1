"""Other people's deformable convolutions, each behind the same function; absent packages give a reason instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import DeformConvCase, DeformConvTensors


@dataclass(frozen=True)
class Peer:
    """``forward(case, tensors)`` prepares a call that gives the output; ``differentiable``: autograd goes through it."""

    name: str
    forward: Callable[[DeformConvCase, DeformConvTensors], Callable[[], Tensor]]
    differentiable: bool
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]


def available() -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be imported here, and why the others cannot."""
    from benchmarks.peers import mmcv_peer, onnxruntime_peer, openvino_peer, torchvision_peer

    peers, missing = [], {}
    for module in (torchvision_peer, onnxruntime_peer, openvino_peer, mmcv_peer):
        try:
            peers.append(module.make())
        except (ImportError, OSError, RuntimeError) as error:
            missing[module.NAME] = str(error).splitlines()[0]
    return peers, missing
