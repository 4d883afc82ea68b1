"""A layer's cache of packed weights: neither copied nor saved, and invalid once the weights have changed."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.inference.choice import FastestChoice

# Two, as for landscape and portrait images: each holds all weights once more. A shape that is packed again at every
# call costs what an unpacked convolution does, whose library packs at every call.
MOST_SHAPES = 2


class _Parameters:
    """Weight and bias of a layer as they were; it keeps neither alive.

    Not their addresses: a new parameter may have the address of one that is gone.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weakref.ref(weight), None if bias is None else weakref.ref(bias)
        self.states = _state(weight), _state(bias)

    def are(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether they are these tensors, which have not been written to."""
        if self.weight() is not weight or (None if self.bias is None else self.bias()) is not bias:
            return False
        return (_state(weight), _state(bias)) == self.states


def _state(tensor: Tensor | None) -> Hashable:
    if tensor is None:
        return None
    # Tensors of inference mode count no versions. The address: an assignment to .data changes no version.
    return tensor.data_ptr(), tensor.dtype, tensor.device, None if tensor.is_inference() else tensor._version


class Packed:
    """An LRU cache of at most ``MOST_SHAPES`` values of each kind.

    It is empty in a deepcopy, after unpickling and after ``clear()``; values are then computed again.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, OrderedDict[Hashable, Any]] = {}
        self._latest: _Parameters | None = None
        self.choice = FastestChoice()  #: of the way that each shape takes on a GPU

    def get(self, kind: str, key: Hashable, layer: nn.Conv2d, make: Callable[[], Any]) -> Any:
        """The value of ``key``, made anew if it is missing or ``layer``'s weight or bias has changed.

        Changes are detected by the tensors' identity and version counters: not those through ``.data`` or NumPy, nor
        those in inference mode of a tensor that was made there, which counts no versions.
        """
        parameters, weight, bias = self._latest, layer.weight, layer.bias
        if parameters is None or not parameters.are(weight, bias):
            parameters = _Parameters(weight, bias)
            self._kinds, self._latest = {}, parameters
        values = self._kinds.setdefault(kind, OrderedDict())
        own = parameters, key  # threads with other weights (torch.nn.DataParallel's replicas) share this object
        value = values.pop(own, None)  # without a test before it: another thread may have dropped it
        if value is None:
            value = make()
        values[own] = value
        while len(values) > MOST_SHAPES:
            values.popitem(last=False)
        return value

    def clear(self) -> None:
        self._kinds, self._latest, self.choice = {}, None, FastestChoice()

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __deepcopy__(self, _memo: dict) -> Packed:
        return Packed()

    def __reduce__(self) -> tuple:
        return Packed, ()


def parameters_in(conv: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a FoldedConv2d that has one, cast to autocast's ``dtype`` and kept; None: as they are."""
    weight, bias = conv.weight, conv.bias
    if dtype is None:
        return weight, bias
    return conv.packed.get("cast", dtype, conv, lambda: (weight.to(dtype), bias.to(dtype)))
