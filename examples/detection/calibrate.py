"""Statistics for FrozenBatchNorm2d in a network that starts from scratch.

FrozenBN learns nothing: its statistics come with pretrained weights. Without those each layer's mean and variance are
measured once, on a few images, and stay. One pass suffices: a layer's input is measured, and its buffers are set, before
the layer computes what the next one sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from resnet_cuda.layers import FrozenBatchNorm2d


def _measure(layer: FrozenBatchNorm2d, arguments: tuple) -> None:
    x = arguments[0].float()
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)


@torch.no_grad()
def calibrate(model: MaskRCNN, images: Sequence[Tensor]) -> int:
    """Sets the statistics of every FrozenBatchNorm2d in the model's backbone from ``images``, each (3, H, W) in 0..1.

    Returns:
        The number of layers that were set.
    """
    layers = [layer for layer in model.backbone.modules() if isinstance(layer, FrozenBatchNorm2d)]
    if not layers:
        return 0
    if not images:
        raise ValueError("calibrate: images is empty; it must be at least one image")
    handles = [layer.register_forward_pre_hook(_measure) for layer in layers]
    was_training = model.training
    try:
        model.eval()
        batch, _ = model.transform(list(images))
        model.backbone(batch.tensors)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    return len(layers)


def has_frozen_norms(model: nn.Module) -> bool:
    return any(isinstance(layer, FrozenBatchNorm2d) for layer in model.modules())
