"""Finds the tensors in a file's content: the entry of the wrapper that holds the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from resnet_cuda.weights.values import is_wrapper, plain_again

# Where files have their weights. Of several the first counts: an average (EMA) is taken only where nothing else is.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "blobs",
    "params",
    "params_ema",
    "weights",
    "net",
    "state_dict_ema",
    "model_ema",
    "ema",
)
_DEEPEST = 4
# A counter that torch.optim.swa_utils.AveragedModel keeps beside its weights, which are under "module.".
AVERAGE_COUNTER = "n_averaged"
# Where convert notes conventions, beside a wrapper.
CONVENTIONS = "resnet_cuda"


def conventions_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The conventions that ``convert`` wrote with the weights: input and stride."""
    found = content.get(CONVENTIONS)
    return found if isinstance(found, Mapping) else {}


def unwrap(content: Mapping[str, Any], label: str) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors, the keys of all other entries, and notes.

    Raises:
        ValueError: if there are no tensors, naming the entries.
    """
    notes: list[str] = []
    for _ in range(_DEEPEST):
        inner = [name for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
        if not inner or _tensors(content) > len(content[inner[0]]):
            break
        averages = [name for name in inner if name.endswith("ema")]
        if averages and inner[0] not in averages:
            notes.append(f"the file has an average of the weights, too: {', '.join(averages)}; {inner[0]} was taken")
        # Configurations, too, are under such names.
        others_there = [name for name in inner[1:] if name not in averages and _tensors(content[name])]
        if others_there:
            notes.append(f"the file has other tensors, too: {', '.join(others_there)}; {inner[0]} was taken")
        content = content[inner[0]]
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    for key, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = _from_numpy(value, key, label)
        no_weight = not isinstance(key, str) or key.endswith("_momentum") or key == AVERAGE_COUNTER
        if no_weight or not isinstance(value, Tensor):
            others.append(str(key))  # Caffe2's momenta are as many as its weights
        elif value.is_nested or is_lazy(value):
            raise ValueError(f"{label}: {key} is {'a nested tensor' if value.is_nested else 'not initialized yet'}")
        elif is_wrapper(value):
            raise ValueError(
                f"{label}: {key} is a {type(value).__name__}, whose values are in other tensors; {plain_again(value)}"
            )
        else:
            tensors[key] = value
    if not tensors:
        entries = ", ".join(map(str, list(content)[:8])) or "none"
        raise ValueError(
            f"{label}: no tensors found; its entries: {entries}. Weights may be under {', '.join(WRAPPERS)}"
        )
    return tensors, others, notes


def _tensors(content: Mapping[str, Any]) -> int:
    """How many stand beside a wrapper: some files have a score or an iteration there."""
    return sum(isinstance(value, (Tensor, np.ndarray)) for value in content.values())


def _from_numpy(value: np.ndarray, key: object, label: str) -> Tensor:
    try:
        native = value.astype(value.dtype.newbyteorder("="), copy=True)
        return torch.from_numpy(np.ascontiguousarray(native).reshape(value.shape))
    except TypeError as error:
        raise ValueError(f"{label}: {key} is an array of {value.dtype}; it must be of numbers") from error
