"""The optimizer and its groups of parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from detection.training.options import TrainOptions

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """The parameters that are trained; those of norms apart where they have a weight decay of their own."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("the model has no parameter that is trained; trainable_layers or its heads must leave some")
    if options.norm_weight_decay is None:
        return [{"params": trained, "weight_decay": options.weight_decay}]
    of_norms = {id(it) for layer in model.modules() if isinstance(layer, NORMS) for it in layer.parameters()}
    groups = [
        {"params": [it for it in trained if id(it) not in of_norms], "weight_decay": options.weight_decay},
        {"params": [it for it in trained if id(it) in of_norms], "weight_decay": options.norm_weight_decay},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    groups = parameter_groups(model, options)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
    return torch.optim.AdamW(groups, lr=options.learning_rate)
