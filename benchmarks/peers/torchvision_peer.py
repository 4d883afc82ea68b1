"""torchvision.ops.deform_conv2d."""

from __future__ import annotations

import torch

from benchmarks.peers import Peer

NAME = "torchvision"


def make() -> Peer:
    from torchvision.ops import deform_conv2d

    def forward(case, tensors):
        def call():
            return deform_conv2d(tensors.input, tensors.offset, tensors.weight, None, case.stride, 1, 1, tensors.mask)

        return call

    return Peer(NAME, forward, True, ("cpu", "cuda"), (torch.float32, torch.float16))
