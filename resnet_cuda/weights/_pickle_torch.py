"""Tensors in the pickles of torch's files: views of storages, checked before a storage is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from resnet_cuda.weights import _pickle_names
from resnet_cuda.weights._malformed import Budget, MalformedError, count, is_size
from resnet_cuda.weights._pickle_names import Name

# The dtype of each class of storage; one of untyped bytes has none of its own.
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_UNTYPED = "UntypedStorage"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _STORAGES.values()}
_DTYPES |= {name: getattr(torch, name) for name in ("uint16", "uint32", "uint64")}


@dataclass(frozen=True)
class Storage:
    """A storage that a pickle refers to.

    Args:
        key: its name in the file.
        dtype: the dtype of its elements.
        elements: the number of its elements.
        start: the index of its first element in the stored data, for a view of a storage (torch before 0.4).
    """

    key: str
    dtype: torch.dtype
    elements: int
    start: int = 0


@dataclass(frozen=True)
class View:
    """A tensor that a pickle refers to: a strided view (torch.as_strided) that lies within its storage.

    Its values are those of the storage, negated where ``negated`` (the imaginary part of a conjugated tensor is such a
    view), conjugated where ``conjugated``.
    """

    storage: Storage
    dtype: torch.dtype
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    negated: bool = False
    conjugated: bool = False


def storage_of(identifier: Any, fields: int) -> Storage:
    """The storage of a persistent identifier.

    Args:
        identifier: ("storage", class, key, device, number of elements), in torch's older files with a sixth field:
            None, or (key, first element, number of elements) of a view.
        fields: 5 or 6.

    Raises:
        MalformedError: for anything else.
    """
    if type(identifier) is not tuple or len(identifier) != fields or identifier[0] != "storage":
        raise MalformedError("refused: it asks for an object outside of the file by a persistent identifier")
    _, kind, key, _, elements, *view = identifier
    if type(key) is int:
        key = str(key)
    name = kind.name if isinstance(kind, Name) else ""
    dtype = torch.uint8 if name == _UNTYPED else _STORAGES.get(name)
    if dtype is None or type(key) is not str or not is_size(elements) or elements >= 1 << 59:
        raise MalformedError("a storage's identifier is damaged")
    if not view or view[0] is None:
        return Storage(key, dtype, elements)
    if type(view[0]) is not tuple or len(view[0]) != 3 or not all(map(is_size, view[0][1:])):
        raise MalformedError("a storage's identifier is damaged")
    start, part = view[0][1:]
    if start + part > elements:
        raise MalformedError(f"a view of storage {key[:40]} is out of its bounds")
    return Storage(key, dtype, part, start)


def _oldest_tensor(arguments: tuple[Any, ...], budget: Budget) -> View:
    """torch._utils._rebuild_tensor(storage, offset, shape, strides)"""
    storage, start, shape, strides = arguments
    if not isinstance(storage, Storage):
        raise MalformedError("a tensor's storage is damaged")
    return _view(storage, storage.dtype, start, shape, strides, budget)


def _tensor(arguments: tuple[Any, ...], budget: Budget) -> View:
    """torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks[, metadata])"""
    if len(arguments) not in (6, 7):
        raise MalformedError(f"a tensor is built of {len(arguments)} values; there must be 6 or 7")
    return _with_metadata(_oldest_tensor(arguments[:4], budget), arguments[6:])


def _tensor_of_dtype(arguments: tuple[Any, ...], budget: Budget) -> View:
    """torch._utils._rebuild_tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype[, metadata])"""
    if len(arguments) not in (7, 8):
        raise MalformedError(f"a tensor is built of {len(arguments)} values; there must be 7 or 8")
    storage, start, shape, strides = arguments[:4]
    dtype = _dtype_of(arguments[6])
    if not isinstance(storage, Storage) or storage.dtype != torch.uint8:
        raise MalformedError("a tensor's storage is damaged")
    return _with_metadata(_view(storage, dtype, start, shape, strides, budget), arguments[7:])


def _with_metadata(view: View, given: tuple[Any, ...]) -> View:
    """``given``: nothing, or what torch._utils.get_tensor_metadata gives: the bits of lazily changed values."""
    metadata = given[0] if given else None
    if metadata is None:
        return view
    if not isinstance(metadata, dict):
        raise MalformedError(f"a tensor's metadata is a {type(metadata).__name__}; it must be a dictionary")
    for name, value in metadata.items():
        if name not in ("neg", "conj"):
            raise MalformedError(f"a tensor has the metadata {str(name)[:40]!r}; known are 'neg' and 'conj'")
        if type(value) is not bool:
            raise MalformedError(f"a tensor's metadata {name!r} is a {type(value).__name__}; it must be True or False")
    negated, conjugated = metadata.get("neg", False), metadata.get("conj", False)
    if negated and not (view.dtype.is_floating_point or view.dtype.is_complex):
        raise MalformedError(f"a tensor of {view.dtype} is marked as negated; only real and complex ones can be")
    if conjugated and not view.dtype.is_complex:
        raise MalformedError(f"a tensor of {view.dtype} is marked as conjugated; only complex ones can be")
    return replace(view, negated=negated, conjugated=conjugated)


def _view(storage: Storage, dtype: torch.dtype, start: Any, shape: Any, strides: Any, budget: Budget) -> View:
    elements = count(shape, "a tensor")
    if type(strides) not in (tuple, list) or len(strides) != len(shape) or not all(map(is_size, (start, *strides))):
        raise MalformedError("a tensor's offset and strides are not integers from 0 to 2**63")
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    held = storage.elements if dtype == storage.dtype else storage.elements // dtype.itemsize
    if elements and last >= held:
        raise MalformedError(f"a tensor reads element {last} of a storage of {held}")
    budget.take(elements * dtype.itemsize)
    return View(storage, dtype, start, tuple(shape), tuple(strides))


def _dtype_of(name: Any) -> torch.dtype:
    if not isinstance(name, Name) or name.module != "torch" or name.name not in _DTYPES:
        raise MalformedError("a tensor's dtype is damaged")
    return _DTYPES[name.name]


def _parameter(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """torch._utils._rebuild_parameter(data, requires_grad, hooks[, state]), and Parameter(data, requires_grad)"""
    data = arguments[0]
    if not isinstance(data, View):
        raise MalformedError("a parameter without a tensor")
    return data


def _of_type(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """torch._tensor._rebuild_from_type_v2(function, class, arguments, state); the state is left out"""
    function, kind, given, _ = arguments
    if function not in _REBUILDS.values() or not isinstance(kind, Name) or type(given) is not tuple:
        raise MalformedError("a tensor with attributes is damaged")
    return function.call(given, budget)


_REBUILDS = {
    ("torch._utils", name): Name("torch._utils", name, call)
    for name, call in {
        "_rebuild_tensor": _oldest_tensor,
        "_rebuild_tensor_v2": _tensor,
        "_rebuild_tensor_v3": _tensor_of_dtype,
        "_rebuild_parameter": _parameter,
        "_rebuild_parameter_with_state": _parameter,
    }.items()
}


def _names() -> dict[tuple[str, str], Name]:
    modules = ("torch", "torch.cuda", "torch.storage")
    names = {(module, name): Name(module, name) for module in modules for name in (*_STORAGES, _UNTYPED)}
    names |= {("torch", name): Name("torch", name) for name in _DTYPES}
    calls = {
        ("torch", "Size"): _pickle_names.sequence,
        ("torch", "device"): lambda arguments, budget: ":".join(str(part)[:20] for part in arguments[:2]),
        ("torch.nn.parameter", "Parameter"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
        ("torch.tensor", "_rebuild_from_type_v2"): _of_type,  # torch 1.7 and 1.8
        ("torch", "Tensor"): None,
    }
    return names | {key: Name(*key, call) for key, call in calls.items()} | _REBUILDS | _refused()


def _refused() -> dict[tuple[str, str], Name]:
    """What tensors of other kinds ask for, with what is said of them."""
    kind = "it holds a tensor that is sparse, quantized, nested or without values; only dense ones are read"
    wrapper = (
        "it holds a tensor of a subclass whose values are in other tensors, such as a DTensor of FSDP2; save what "
        ".full_tensor() gives, or get_model_state_dict of torch.distributed.checkpoint.state_dict with "
        "StateDictOptions(full_state_dict=True)"
    )
    device = "it holds a tensor of a device without storages, such as XLA; save tensors on the CPU"
    kinds = ("qtensor", "sparse_tensor", "sparse_csr_tensor", "nested_tensor", "meta_tensor_no_storage")
    reasons = {("torch._utils", f"_rebuild_{name}"): kind for name in kinds}
    quantized = ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")
    reasons |= {("torch", f"{name}Storage"): kind for name in quantized}
    reasons["torch._utils", "_rebuild_wrapper_subclass"] = wrapper
    for name in ("xla_tensor", "device_tensor_from_numpy", "device_tensor_from_cpu_tensor"):
        reasons["torch._utils", f"_rebuild_{name}"] = device
    read = ", ".join(_DTYPES)
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype) and name not in _DTYPES and value not in _DTYPES.values():
            reasons["torch", name] = f"it holds a tensor of {name}; read are {read}"
    return {key: Name(*key, reason=reason) for key, reason in reasons.items()}


NAMES: Mapping[tuple[str, str], Name] = {**_pickle_names.NAMES, **_names()}


def tensor(view: View, stored: torch.Tensor) -> torch.Tensor:
    """The tensor of ``view``.

    Args:
        view: checked against its storage's number of elements.
        stored: the whole storage's bytes, uint8 of one dimension.
    """
    elements = torch.empty(0, dtype=view.dtype, device=stored.device)
    if 0 in view.shape:
        return elements.reshape(view.shape)
    width = view.dtype.itemsize
    start = view.storage.start * view.storage.dtype.itemsize
    part = stored[start : start + view.storage.elements * view.storage.dtype.itemsize]
    part = part[: len(part) // width * width]
    if view.dtype == torch.bool:  # a byte of a damaged file need be neither 0 nor 1
        part = part.ne(0)
    elif view.dtype != torch.uint8:
        part = part.view(view.dtype)
    values = part.as_strided(view.shape, view.strides, part.storage_offset() + view.start)
    if view.conjugated:
        values = values.conj().resolve_conj()
    return values.neg() if view.negated else values
