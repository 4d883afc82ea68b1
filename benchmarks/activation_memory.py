"""The memory that a forward keeps for its backward, in bytes of distinct storages, independent of the allocator.

Autograd's saved-tensor hooks see all tensors that a graph's nodes save, including those of compiled functions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resnet_cuda.layers import DeformConv2d

Outputs = Mapping[str, Tensor] | Sequence[Tensor] | Tensor
BEFORE_ALL = "stem"  # the stage until the first module of ``stages`` runs


@dataclass(frozen=True)
class Stored:
    """Bytes. ``constants`` do not grow with the image: weights in another dtype or layout, and the norms' scales."""

    by_stage: dict[str, int]
    constants: int

    @property
    def activations(self) -> int:
        return sum(self.by_stage.values())


class _Saved:
    """What the graph holds in a saved tensor's place: it is gone as soon as the node that saved it is."""

    def __init__(self, tensor: Tensor, stage: str):
        self.tensor, self.stage = tensor, stage


def stored(forward: Callable[[], Outputs], network: nn.Module, stages: Mapping[str, nn.Module] | None = None) -> Stored:
    """The bytes that the graph of ``forward()`` keeps with its result, without ``network``'s parameters and buffers.

    ``stages`` are modules that run in sequence. A storage counts for the stage in which it is first saved. Images must
    be so large that no feature map is a single pixel, which would have the shape of a constant.
    """
    stage, seen = BEFORE_ALL, []

    def enter(name: str) -> None:
        nonlocal stage
        stage = name

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach(), stage)  # a node's own result would keep the node, and this, for ever
        seen.append(weakref.ref(saved))
        return saved

    handles = [
        module.register_forward_pre_hook(lambda module, arguments, name=name: enter(name))
        for name, module in (stages or {}).items()
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            outputs = forward()
    finally:
        for handle in handles:
            handle.remove()
    alive = [saved for saved in (reference() for reference in seen) if saved is not None]
    alive += [_Saved(tensor, stage) for tensor in _on_contexts(outputs)]
    own = list(chain(network.parameters(), network.buffers()))
    counted, shapes = {_storage(tensor) for tensor in own}, {tensor.shape for tensor in own}
    by_stage, constants = dict.fromkeys((BEFORE_ALL, *(stages or {})), 0), 0
    for saved in alive:
        if _storage(saved.tensor) in counted:
            continue
        counted.add(_storage(saved.tensor))
        size = saved.tensor.untyped_storage().nbytes()
        if saved.tensor.shape in shapes or saved.tensor.numel() == max(saved.tensor.shape, default=1):
            constants += size
        else:
            by_stage[saved.stage] += size
    return Stored(by_stage, constants)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(outputs: Outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return list(outputs.values() if isinstance(outputs, Mapping) else outputs)


def _on_contexts(outputs: Outputs) -> Iterator[Tensor]:
    """Tensors that an ``autograd.Function`` has put on its context by itself, which no hook sees."""
    pending, done = [output.grad_fn for output in _tensors(outputs)], set()
    while pending:
        node = pending.pop()
        if node is None or node in done:
            continue
        done.add(node)
        pending += [following for following, _ in node.next_functions]
        for value in getattr(node, "__dict__", {}).values():
            yield from (it for it in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(it, Tensor))


_POOLINGS = (torch.max_pool2d, F.max_pool2d)


class _Needed(TorchFunctionMode):
    """Collects what torch's own operators need in backward: inputs of convolutions that learn, pooling's places."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, tuple[Tensor, int]] = {}  # a tensor of each storage, and the bytes needed of it
        self.places = 0

    def add(self, tensor: Tensor, element_size: int) -> None:
        self.tensors[_storage(tensor)] = tensor, tensor.numel() * element_size

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function is torch.conv2d and arguments[1].requires_grad:
            self.add(arguments[0], result.element_size())  # autocast gives the convolution a copy in its dtype
        elif function in _POOLINGS and result.requires_grad:
            self.add(arguments[0], arguments[0].element_size())
            self.places += result.numel() * torch.int64.itemsize
        return result


def needed(forward: Callable[[], Outputs], network: nn.Module, ends: Mapping[str, nn.Module]) -> int:
    """The lower bound: the least bytes that torch's operators need for this network's backward, without recomputation.

    They are the inputs of convolutions that are trained, most of them results of a ReLU, whose backward reads them,
    too; the results of ``ends``, modules that end with a ReLU; offsets and masks; input and indices of a max pooling
    that is differentiated.
    """
    found = _Needed()

    def of_deformable(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        input, *predicted = arguments
        found.add(input, found_size(input))
        for tensor in predicted:
            # Not by storage: they may be views of one result.
            found.places += tensor.numel() * tensor.element_size()

    def found_size(tensor: Tensor) -> int:
        device = tensor.device.type
        return (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype).itemsize

    def of_end(module: nn.Module, arguments: object, result: Tensor) -> None:
        if result.requires_grad:
            found.add(result, result.element_size())

    handles = [it.register_forward_pre_hook(of_deformable) for it in network.modules() if isinstance(it, DeformConv2d)]
    handles += [it.register_forward_hook(of_end) for it in ends.values()]
    try:
        with found:
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return sum(size for _, size in found.tensors.values()) + found.places
