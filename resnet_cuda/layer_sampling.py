"""The sampling of a batch by one deformable layer, in pixels of its images. Made by :mod:`resnet_cuda.sampling`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cuda import ops


class SamplingPoints(NamedTuple):
    """Sampling points of a layer's output pixels: K taps, in row-major order, in each of G offset groups."""

    points: Tensor  #: (n, G, K, 2) x, y: where each tap reads
    masks: Tensor  #: (n, G, K): the factor of each tap (v2: 0 to 1), 1 for v1
    grid: Tensor  #: (n, K, 2) x, y: where the taps of the plain convolution would read


@dataclass(frozen=True)
class _Scale:
    """Of one axis: pixel indices of the layer's input are ``(x * resize - shift) / stride`` for x in the image."""

    resize: float
    shift: float
    stride: float

    def to_input(self, x: Tensor) -> Tensor:
        return (x * self.resize - self.shift) / self.stride

    def to_image(self, index: Tensor) -> Tensor:
        return (index * self.stride + self.shift) / self.resize


def _scale(image: int, resized: int, batch: int, layer_input: int) -> _Scale:
    """``image`` pixels, resized to ``resized``, padded to ``batch``, of which the layer gets ``layer_input``."""
    ratio = batch / layer_input
    stride = 2 ** math.ceil(math.log2(ratio)) if ratio > 1 else 1
    if math.ceil(batch / stride) == layer_input:
        # Padded convolutions of stride 2: pixel i is computed around pixel stride * i, as torchvision's anchors lie.
        return _Scale(resized / image, 0.5, stride)
    return _Scale(resized / image, ratio / 2, ratio)


@dataclass(frozen=True)
class LayerSampling:
    """How one deformable layer sampled a batch; made by :func:`observe_sampling`."""

    name: str  #: the layer's name in the model
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    offset: Tensor  #: (N, 2*G*K, Ho, Wo), in pixels of the layer's input
    mask: Tensor | None  #: (N, G*K, Ho, Wo), None for v1
    input_size: tuple[int, int]  #: height and width of the layer's input
    batch_size: tuple[int, int]  #: height and width of the batch, with its padding
    image_sizes: tuple[tuple[int, int], ...]  #: of each image as it was given
    resized_sizes: tuple[tuple[int, int], ...]  #: of each image in the batch, without padding

    def _scales(self, index: int) -> tuple[_Scale, _Scale]:
        """Of x and of y."""
        if not -len(self.image_sizes) <= index < len(self.image_sizes):
            raise IndexError(f"index is {index}; the layer has seen {len(self.image_sizes)} images")
        sizes = zip(self.image_sizes[index], self.resized_sizes[index], self.batch_size, self.input_size, strict=True)
        y, x = (_scale(*lengths) for lengths in sizes)
        return x, y

    def strides(self, index: int = 0) -> tuple[float, float]:
        """The stride, in pixels of image ``index``, between adjacent pixels of the layer's input: (x, y).

        Raises:
            IndexError: if ``index`` is out of range.
        """
        x, y = self._scales(index)
        return x.stride / x.resize, y.stride / y.resize

    def points(self, places: Tensor, index: int = 0) -> SamplingPoints:
        """The sampling points of the output pixels nearest to ``places`` (n, 2) x, y, in pixels of image ``index``.

        A place outside the image maps to the nearest output pixel. Sampling points may lie outside the image.

        Raises:
            ValueError: if ``places`` is of another shape or not finite.
            IndexError: if ``index`` is out of range.
        """
        places = torch.as_tensor(places)
        if places.dim() != 2 or places.shape[1] != 2 or not bool(places.isfinite().all()):
            raise ValueError(f"places is of shape {tuple(places.shape)}; it must be (n, 2), x and y, and finite")
        places = places.to(device=self.offset.device, dtype=torch.float32)
        scales = self._scales(index)

        def tensor(pair: tuple[int, int]) -> Tensor:
            return torch.tensor(pair[::-1], device=places.device)  # x, y

        stride, padding, dilation = tensor(self.stride), tensor(self.padding), tensor(self.dilation)
        taps = torch.cartesian_prod(*(torch.arange(length, device=places.device) for length in self.kernel_size))
        taps = taps.flip(1) * dilation  # (K, 2) x, y, in rows of the kernel
        middle = (tensor(self.kernel_size) - 1) * dilation / 2
        in_input = torch.stack([scale.to_input(places[:, axis]) for axis, scale in enumerate(scales)], dim=1)
        last = tensor((self.offset.shape[2] - 1, self.offset.shape[3] - 1))
        out = ((in_input + padding - middle) / stride).round().long().clamp(torch.zeros_like(last), last)  # (n, 2)
        regular = (out * stride - padding)[:, None] + taps  # (n, K, 2)
        offset = self.offset[index][:, out[:, 1], out[:, 0]].float()  # (2*G*K, n)
        moved = offset.unflatten(0, (-1, len(taps), 2)).permute(3, 0, 1, 2).flip(-1)  # (n, G, K, (dx, dy))
        if self.mask is None:
            masks = moved.new_ones(moved.shape[:-1])
        else:
            masks = self.mask[index][:, out[:, 1], out[:, 0]].float().unflatten(0, (-1, len(taps))).permute(2, 0, 1)
        return SamplingPoints(_to_image(regular[:, None] + moved, scales), masks, _to_image(regular, scales))

    def density(self, index: int = 0, at_image_size: bool = True) -> Tensor:
        """The sampling density: for each place the sum of mask times bilinear weight over all output pixels and taps.

        The mean over the offset groups, in taps per pixel of the layer's input: a plain 3x3 convolution of stride 1
        reads each pixel away from the border 9 times, one of stride 2 each 9/4 times on average.

        Args:
            index: the image.
            at_image_size: True: interpolated to image ``index`` without the batch's padding, (H, W). False: at the size
                of the layer's input, (h, w).

        Returns:
            (H, W) or (h, w), float32.

        Raises:
            IndexError: if ``index`` is out of range.
        """
        scales = self._scales(index)
        height, width = self.input_size
        taps = self.kernel_size[0] * self.kernel_size[1]
        groups = self.offset.shape[1] // (2 * taps)
        entry = slice(index, index + 1 or None)
        # What an input pixel adds to the sum of all outputs under weights of 1 is how much it is read: the operator's
        # own gradient, so that borders are right. Copies, because autograd refuses tensors of inference mode.
        with torch.inference_mode(False), torch.enable_grad():
            offset = self.offset[entry].detach().float().clone()
            mask = None if self.mask is None else self.mask[entry].detach().float().clone()
            image = offset.new_zeros((1, groups, height, width), requires_grad=True)
            weight = offset.new_full((1, groups, *self.kernel_size), 1 / groups)
            with torch.autocast(offset.device.type, enabled=False):
                out = ops.deform_conv2d(image, offset, weight, None, self.stride, self.padding, self.dilation, mask)
            (density,) = torch.autograd.grad(out.sum(), image)
        density = density.sum(dim=1)  # (1, h, w)
        if not at_image_size:
            return density[0]
        # grid_sample's range of -1 to 1 covers the input's pixels edge to edge.
        axes = [
            (2 * scale.to_input(torch.arange(length, device=density.device) + 0.5) + 1) / size - 1
            for scale, length, size in zip(scales, self.image_sizes[index][::-1], (width, height), strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)  # (H, W, 2)
        return F.grid_sample(density[None], grid[None], padding_mode="border", align_corners=False)[0, 0]


def _to_image(positions: Tensor, scales: tuple[_Scale, _Scale]) -> Tensor:
    return torch.stack([scale.to_image(positions[..., axis]) for axis, scale in enumerate(scales)], dim=-1)
