"""A layer's cache of packed weights: neither copied nor saved, and invalid once the weights have changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_cuda.inference.autotune import Autotuner

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d

# Two, as for landscape and portrait images: each holds all weights once more. A shape that is packed again at every
# call costs what an unpacked convolution does, whose library packs at every call.
MOST_SHAPES = 2


SAMPLES = 64  # values of a tensor that tell whether it was written to


class _Snapshot:
    """A tensor as it was.

    It holds the storage, so that no other one gets its identity, and nothing of the tensor itself: a weak reference
    would keep ``torch.utils.swap_tensors`` from swapping it. So a weight that was replaced stays in memory until its
    layer is called again.
    """

    _values: Tensor | None

    def __init__(self, tensor: Tensor) -> None:
        self._state = _state(tensor)
        self._sample, self._values = tensor.data, None
        if _can_be_sampled(self._sample):
            count = self._sample.numel()
            step = -(-count // SAMPLES)
            # In the order of memory, whatever the layout.
            self._sample = self._sample.as_strided((-(-count // step),), (step,)).view(_BITS[tensor.dtype])
            self._values = self._sample.clone()

    def is_still(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is in the same memory and has not been written to.

        Collectives of torch.distributed, fused optimizers, other processes and NumPy write without counting a version.
        Values at equal distances tell, of a CPU tensor: on a GPU the comparison would wait for it.
        """
        if _state(tensor) != self._state:
            return False
        return self._values is None or torch.equal(self._sample, self._values)


# Compared as integers: NaN and the sign of 0 count, too.
_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def _can_be_sampled(tensor: Tensor) -> bool:
    if type(tensor) is not Tensor or not tensor.is_cpu or tensor.dtype not in _BITS or tensor.numel() == 0:
        return False
    channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return channels_last or tensor.is_contiguous()


def _state(tensor: Tensor) -> Hashable:
    # The storage and its size, too: after resize_(0), by which FSDP frees memory, the address may be another tensor's.
    storage = tensor.untyped_storage()
    # Tensors of inference mode count no versions.
    version = None if tensor.is_inference() else tensor._version
    return storage._cdata, storage.nbytes(), tensor.data_ptr(), version, tensor.dtype, tensor.shape, tensor.stride()


class _Parameters:
    """Weight and bias of a layer as they were."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = _Snapshot(weight), None if bias is None else _Snapshot(bias)

    def are(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether they are these tensors, which have not been written to."""
        if self.bias is None or bias is None:
            return self.bias is bias and self.weight.is_still(weight)
        return self.weight.is_still(weight) and self.bias.is_still(bias)


class Packed:
    """An LRU cache of at most ``MOST_SHAPES`` values of each kind.

    It is empty in a deepcopy, after unpickling and after ``clear()``; values are then computed again.
    """

    def __init__(self) -> None:
        # Of each kind the keys with their values, the latest used last. Threads share this object: a tuple is replaced,
        # never changed, and what one of two replacements drops is made once more.
        self._kinds: dict[str, tuple[tuple[Hashable, Any], ...]] = {}
        self._latest: _Parameters | None = None
        self.autotuner = Autotuner()  #: of the way that each shape takes on a GPU

    def get(self, kind: str, key: Hashable, layer: FoldedConv2d, make: Callable[[], Any]) -> Any:
        """The value of ``key``, made anew if it is missing or ``layer``'s weight or bias has changed.

        Changes are detected by the tensors' memory and version counters. What counts no version, such as a collective
        or a write in inference mode, is detected on a CPU if it changes one of ``SAMPLES`` values.
        """
        parameters, weight, bias = self._latest, layer.weight, layer.bias
        if parameters is None or not parameters.are(weight, bias):
            parameters = _Parameters(weight, bias)
            self._kinds, self._latest = {}, parameters
        kinds = self._kinds
        own = parameters, key  # threads with other weights (torch.nn.DataParallel's replicas) share this object
        entries = kinds.get(kind, ())
        found = next((it for it in reversed(entries) if it[0] == own), None)
        if found is None:
            found = own, make()
            entries = kinds.get(kind, ())  # as other threads have left them meanwhile
        if not entries or entries[-1] is not found:
            others = tuple(it for it in entries if it[0] != own)
            kinds[kind] = (*others, found)[-MOST_SHAPES:]
        return found[1]

    def clear(self) -> None:
        self._kinds, self._latest, self.autotuner = {}, None, Autotuner()

    def __len__(self) -> int:
        return sum(map(len, list(self._kinds.values())))

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
