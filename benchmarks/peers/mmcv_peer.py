"""mmcv's modulated_deform_conv2d and deform_conv2d."""

from __future__ import annotations

import torch

from benchmarks.peers import Peer

NAME = "mmcv"


def make() -> Peer:
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    def forward(case, tensors):
        geometry = (case.stride, 1, 1, case.groups, case.offset_groups)
        contiguous = [t.contiguous() for t in (tensors.input, tensors.offset)]

        def call():
            # mmcv computes something else for channels_last input, so it gets NCHW.
            if tensors.mask is None:
                return deform_conv2d(*contiguous, tensors.weight, *geometry)
            return modulated_deform_conv2d(*contiguous, tensors.mask.contiguous(), tensors.weight, None, *geometry)

        return call

    return Peer(NAME, forward, False, ("cpu", "cuda"), (torch.float32, torch.float16))
