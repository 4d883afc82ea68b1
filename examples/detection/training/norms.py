"""Batch norms of frozen layers: their running statistics stay, as their weights do."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def train_mode(model: nn.Module) -> None:
    """Puts the model into training mode, but for batch norms whose parameters are all frozen.

    In training mode those would normalise by the batch and go on averaging over batches, so that layers that are not
    trained changed after all (``norm_eval`` of mmdetection's frozen stages).
    """
    model.train()
    for layer in frozen(model):
        layer.eval()


def frozen(model: nn.Module) -> list[nn.Module]:
    """The batch norms, synchronised ones too, that have parameters and none that is trained."""
    found = []
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            parameters = list(layer.parameters(recurse=False))
            if parameters and not any(it.requires_grad for it in parameters):
                found.append(layer)
    return found


@torch.no_grad()
def measure_frozen(model: nn.Module, images: list[Tensor]) -> int:
    """Gives the frozen batch norms of a detector with random weights the statistics of ``images`` (each (3, H, W)).

    What ``resnet_cuda.calibrate`` does for FrozenBatchNorm2d, and for the same reason: with mean 0 and variance 1 they
    would normalise nothing. Leaves the model in eval mode.

    Returns:
        The number of layers that were measured.
    """

    def measure(layer: nn.Module, arguments: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(arguments[0].float(), dim=(0, 2, 3), correction=0)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(torch.where(variance > 0, variance, 1.0))

    layers = frozen(model)
    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    try:
        model.eval()
        model.backbone(model.transform(list(images))[0].tensors)
    finally:
        for hook in hooks:
            hook.remove()
    return len(layers)
