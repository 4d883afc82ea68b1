"""Loads the argument ``weights=`` of a backbone into its body."""

from __future__ import annotations

from typing import Any

from torch import nn

from resnet_cuda.weights import sources
from resnet_cuda.weights.load import load_content
from resnet_cuda.weights.report import LoadReport


def load_pretrained(backbone: nn.Module, backbone_name: str, weights: Any) -> LoadReport:
    """:func:`load_weights` that also accepts names of torchvision's weights for ``backbone_name``, such as "DEFAULT".

    Args:
        backbone: the model, as for :func:`load_weights`.
        backbone_name: torchvision's name of the ResNet, such as "resnet50".
        weights: a source, as for :func:`load_weights`, or the last part of the name of torchvision's weights.

    Returns:
        A :class:`~resnet_cuda.weights.report.LoadReport`.

    Raises:
        ValueError: as :func:`load_weights`, and for a name that torchvision does not have for this backbone.
    """
    try:
        content, label = sources.resolve(weights, backbone_name, argument="weights")
    except TypeError as error:
        raise ValueError(str(error)) from None
    return load_content(backbone, content, label, source_model=weights if isinstance(weights, nn.Module) else None)
