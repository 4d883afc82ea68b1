"""maskrcnn_benchmark.layers without its compiled part: this package's layers, torchvision's operators on boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cuda import layers, ops
from resnet_cuda.integrations._peer import missing

try:
    import torchvision.ops
except ImportError as error:
    raise missing("maskrcnn_benchmark", "torchvision: pip install torchvision", error) from error


class FrozenBatchNorm2d(layers.FrozenBatchNorm2d):
    """maskrcnn-benchmark's FrozenBatchNorm2d, which has no epsilon."""

    def __init__(self, n: int):
        super().__init__(n, eps=0.0)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression of boxes that include their last pixel, as all boxes of maskrcnn-benchmark do."""
    boxes = boxes.float() + boxes.new_tensor([0, 0, 1, 1]).float()
    return torchvision.ops.nms(boxes, scores.float(), threshold)


def roi_align(input: Tensor, rois: Tensor, output_size: Any, spatial_scale: float, sampling_ratio: int) -> Tensor:
    return torchvision.ops.roi_align(input, rois.to(input.dtype), output_size, spatial_scale, sampling_ratio)


def roi_pool(input: Tensor, rois: Tensor, output_size: Any, spatial_scale: float) -> Tensor:
    return torchvision.ops.roi_pool(input, rois.to(input.dtype), output_size, spatial_scale)


class ROIAlign(nn.Module):
    def __init__(self, output_size: Any, spatial_scale: float, sampling_ratio: int):
        super().__init__()
        self.output_size, self.spatial_scale, self.sampling_ratio = output_size, spatial_scale, sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, {self.sampling_ratio=}"


class ROIPool(nn.Module):
    def __init__(self, output_size: Any, spatial_scale: float):
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        return roi_pool(input, rois, self.output_size, self.spatial_scale)


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float = 1.0 / 9, size_average: bool = True) -> Tensor:
    return F.smooth_l1_loss(input, target, beta=beta, reduction="mean" if size_average else "sum")


class SigmoidFocalLoss(nn.Module):
    """Summed focal loss of logits (N, classes); targets (N,): classes from 1, 0 for background, negative: ignored."""

    def __init__(self, gamma: float, alpha: float):
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        targets = targets.unsqueeze(1)
        positive = targets == torch.arange(1, logits.shape[1] + 1, device=targets.device)
        probability = logits.sigmoid()
        of_positive = self.alpha * (1 - probability) ** self.gamma * F.logsigmoid(logits)
        of_negative = (1 - self.alpha) * probability**self.gamma * F.logsigmoid(-logits)
        return -torch.where(positive, of_positive, of_negative * (targets >= 0)).sum()


def deform_conv(input, offset, weight, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1, im2col_step=64):
    """``groups`` and ``deformable_groups`` are inferred from the shapes; ``im2col_step`` does not change results."""
    return ops.deform_conv2d(input, offset, weight, None, stride, padding, dilation)


def modulated_deform_conv(
    input, offset, mask, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1
):
    return ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


class ModulatedDeformConvPack(layers.ModulatedDeformConv):
    """Predicts its offsets and masks by ``conv_offset_mask``, whose parameters are initialised to zero."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        deformable_groups=1,
        bias=True,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )
        channels = 3 * deformable_groups * self.kernel_size[0] * self.kernel_size[1]
        self.conv_offset_mask = nn.Conv2d(
            in_channels, channels, self.kernel_size, self.stride, self.padding, self.dilation
        )
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, input: Tensor) -> Tensor:
        predicted = self.conv_offset_mask(input)
        offsets = predicted.shape[1] // 3 * 2
        return super().forward(input, predicted[:, :offsets], predicted[:, offsets:].sigmoid())


class NewEmptyTensorOp:
    """An empty tensor of another shape, with a gradient."""

    @staticmethod
    def apply(x: Tensor, new_shape: Any) -> Tensor:
        return x.sum() + x.new_zeros(new_shape)


def _absent(name: str) -> Callable:
    def call(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"maskrcnn_benchmark.layers.{name} is not in resnet_cuda")

    return call


LAYERS: dict[str, Any] = {
    "Conv2d": layers.Conv2d,
    "ConvTranspose2d": nn.ConvTranspose2d,
    "BatchNorm2d": nn.BatchNorm2d,
    "DFConv2d": layers.DFConv2d,
    "DeformConv": layers.DeformConv,
    "ModulatedDeformConv": layers.ModulatedDeformConv,
    "interpolate": F.interpolate,
    **{
        it.__name__: it
        for it in (
            *(FrozenBatchNorm2d, ROIAlign, ROIPool, SigmoidFocalLoss, ModulatedDeformConvPack),
            *(nms, roi_align, roi_pool, smooth_l1_loss, deform_conv, modulated_deform_conv),
        )
    },
    **{
        name: _absent(name)
        for name in (
            *("deform_roi_pooling", "DeformRoIPooling", "DeformRoIPoolingPack", "ModulatedDeformRoIPoolingPack"),
        )
    },
}
