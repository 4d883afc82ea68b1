"""How people call a deformable convolution: whose, in which dtype, layout and precision; and the calls to be timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import DeformConvTensors
from benchmarks.gpu import names
from benchmarks.gpu.timing import Candidate
from resnet_cuda import ops

Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # input, offset, weight, mask


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products and convolutions may round their operands to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _ours(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    return ops.deform_conv2d(input, offset, weight, None, 1, 1, 1, mask)


def _torchvision(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    from torchvision.ops import deform_conv2d

    return deform_conv2d(input, offset, weight, None, 1, 1, 1, mask)


def _mmcv(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    from mmcv.ops import modulated_deform_conv2d

    return modulated_deform_conv2d(input, offset, mask, weight, None, 1, 1, 1, 1, 1)


@dataclass(frozen=True)
class Variant:
    """``tolerance``: largest difference from float32, relative to the largest value; None: recorded and not judged."""

    name: str
    function: Function
    dtype: torch.dtype
    weight_dtype: torch.dtype
    tolerance: float | None
    tf32: bool = False
    autocast: torch.dtype | None = None
    channels_last: bool = False  # the peers' kernels are for NCHW, and that is what their users give them

    def setting(self) -> contextlib.AbstractContextManager:
        return tf32(self.tf32)

    def forward(self, tensors: DeformConvTensors) -> Tensor:
        with torch.autocast(tensors.input.device.type, self.autocast, self.autocast is not None):
            return self.function(tensors.input, tensors.offset, tensors.weight, tensors.mask)

    def cast(self, tensors: DeformConvTensors, differentiable: bool) -> DeformConvTensors:
        """The float32 arguments as this variant's users have them."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format

        def own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
            return tensor.detach().to(dtype, memory_format=memory_format, copy=True).requires_grad_(differentiable)

        activations = [own(tensor, self.dtype) for tensor in (tensors.input, tensors.offset, tensors.mask)]
        output_dtype = self.autocast or self.dtype
        grad = tensors.grad.to(output_dtype, memory_format=memory_format, copy=True)
        weight = own(tensors.weight, self.weight_dtype)
        return DeformConvTensors(activations[0], activations[1], weight, activations[2], grad)


BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(names.OURS_AUTOCAST, _ours, BFLOAT16, FLOAT32, 6e-2, autocast=BFLOAT16, channels_last=True),
        Variant(names.OURS_BFLOAT16, _ours, BFLOAT16, BFLOAT16, 6e-2, channels_last=True),
        Variant(names.OURS_FLOAT16, _ours, FLOAT16, FLOAT16, 3e-2, channels_last=True),
        Variant(names.OURS_TF32, _ours, FLOAT32, FLOAT32, 6e-3, tf32=True, channels_last=True),
        Variant(names.OURS_FLOAT32, _ours, FLOAT32, FLOAT32, 1e-3, channels_last=True),
        Variant(names.TORCHVISION_FLOAT32, _torchvision, FLOAT32, FLOAT32, 1e-3),
        Variant(names.TORCHVISION_TF32, _torchvision, FLOAT32, FLOAT32, 6e-3, tf32=True),
        Variant(names.TORCHVISION_AUTOCAST, _torchvision, BFLOAT16, FLOAT32, 6e-2, autocast=BFLOAT16),
        Variant(names.TORCHVISION_AUTOCAST_TF32, _torchvision, BFLOAT16, FLOAT32, 6e-2, tf32=True, autocast=BFLOAT16),
        Variant(names.MMCV_FLOAT32, _mmcv, FLOAT32, FLOAT32, 1e-3),
        # Its positions are float16: up to an eighth of a pixel off, which no tolerance would judge well.
        Variant(names.MMCV_FLOAT16, _mmcv, FLOAT16, FLOAT16, None),
    )
}


def gradients(variant: Variant, tensors: DeformConvTensors) -> Callable[[], tuple[Tensor, ...]]:
    """A call that differentiates one forward, made now, for input, offset, weight and mask."""
    wanted = (tensors.input, tensors.offset, tensors.weight, tensors.mask)
    output = variant.forward(tensors)
    return lambda: torch.autograd.grad(output, wanted, tensors.grad, retain_graph=True)


def candidate(variant: Variant, sets: Sequence[DeformConvTensors], direction: str) -> Candidate:
    """The calls of a variant on every set of arguments."""
    calls: list[Callable[[], object]] = []
    with variant.setting():
        for tensors in sets:
            own = variant.cast(tensors, differentiable=direction == names.BACKWARD)
            if direction == names.BACKWARD:
                calls.append(gradients(variant, own))
            else:
                calls.append(lambda own=own: _without_gradients(variant, own))
    return Candidate(variant.name, calls, variant.setting)


def _without_gradients(variant: Variant, tensors: DeformConvTensors) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (variant.forward(tensors),)
