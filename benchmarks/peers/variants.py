"""Implementations of deform_conv2d as their users call them: in which dtype, layout and precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import bench_deform_conv, peers
from benchmarks.cases import DeformConvCase, DeformConvTensors, make_deform_conv
from benchmarks.measure import Candidate, relative_error, tf32
from benchmarks.results import OURS as PACKAGE

Results = tuple[Tensor, ...]


@dataclass(frozen=True)
class Variant:
    """``tolerance``: largest difference from float32, relative to the largest value; None: recorded and not judged.

    Under ``autocast`` activations are of ``dtype`` and the weight is float32.
    """

    package: str
    dtype: torch.dtype
    tolerance: float | None
    tf32: bool = False
    autocast: bool = False

    def cast(self, tensors: DeformConvTensors, differentiable: bool) -> DeformConvTensors:
        """The float32 arguments as this variant's users have them."""
        # The peers' kernels are for NCHW, and that is what their users give them.
        layout = torch.channels_last if self.package == PACKAGE else torch.contiguous_format
        given = {name: t.to(self.dtype, memory_format=layout, copy=True) for name, t in vars(tensors).items()}
        if self.autocast:
            given["weight"] = tensors.weight.to(memory_format=layout, copy=True)
        own = DeformConvTensors(**given)
        return bench_deform_conv.leaves(own) if differentiable else own

    def forward(self, case: DeformConvCase, given: DeformConvTensors) -> Callable[[], Tensor]:
        prepare = bench_deform_conv.ours if self.package == PACKAGE else peers.load(self.package).forward
        call = prepare(case, given)

        def forward() -> Tensor:
            with torch.autocast(given.input.device.type, self.dtype if self.autocast else None, self.autocast):
                return call()

        return forward

    def call(self, case: DeformConvCase, tensors: DeformConvTensors, direction: str) -> Callable[[], Results]:
        """The output, or the gradients of a forward that is made now; ``tensors``: float32, NCHW."""
        given = self.cast(tensors, differentiable=direction == "backward")
        forward = self.forward(case, given)
        if direction == "backward":
            return bench_deform_conv.gradients(forward(), given)
        return torch.no_grad()(lambda: (forward(),))


BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
VARIANTS = {
    "resnet_cuda, autocast bfloat16": Variant(PACKAGE, BF16, 6e-2, autocast=True),
    "resnet_cuda, bfloat16": Variant(PACKAGE, BF16, 6e-2),
    "resnet_cuda, float16": Variant(PACKAGE, F16, 3e-2),
    "resnet_cuda, float32, TF32 on": Variant(PACKAGE, F32, 6e-3, tf32=True),
    "resnet_cuda, float32, TF32 off": Variant(PACKAGE, F32, 1e-3),
    "torchvision, float32, TF32 off": Variant("torchvision", F32, 1e-3),
    "torchvision, float32, TF32 on": Variant("torchvision", F32, 6e-3, tf32=True),
    "torchvision, autocast bfloat16, TF32 off": Variant("torchvision", BF16, 6e-2, autocast=True),
    "torchvision, autocast bfloat16, TF32 on": Variant("torchvision", BF16, 6e-2, tf32=True, autocast=True),
    "mmcv, float32, TF32 off": Variant("mmcv", F32, 1e-3),
    # Its positions are float16: up to an eighth of a pixel off, which no tolerance would judge well.
    "mmcv, float16": Variant("mmcv", F16, None),
}


def make_set(
    case: DeformConvCase, device: torch.device, seed: int = 0, offset_pixels: float | str = 2.0
) -> DeformConvTensors:
    """float32, NCHW. Offsets hold values of bfloat16, so that all dtypes sample at the same places."""
    tensors = make_deform_conv(case, device, torch.float32, False, seed, offset_pixels)
    tensors.offset = tensors.offset.bfloat16().float()
    return tensors


def candidate(name: str, case: DeformConvCase, sets: Sequence[DeformConvTensors], direction: str) -> Candidate:
    """The calls of a variant on every set of arguments."""
    variant = VARIANTS[name]
    with tf32(variant.tf32):
        return Candidate(name, [variant.call(case, one, direction) for one in sets], lambda: tf32(variant.tf32))


def results(name: str, case: DeformConvCase, tensors: DeformConvTensors, direction: str) -> Results:
    """What a variant gives for one set of arguments."""
    made = candidate(name, case, [tensors], direction)
    with made.setting():
        return tuple(result.detach() for result in made.calls[0]())


def errors(found: Results, expected: Results, direction: str) -> dict[str, float]:
    """Largest difference over the largest value, by what it is of."""
    labels = ("output",) if direction == "forward" else ("input", "offset", "weight", "mask")
    pairs = zip(labels, found, expected, strict=True)
    return {label: float(f"{relative_error(one, right):.3g}") for label, one, right in pairs}
