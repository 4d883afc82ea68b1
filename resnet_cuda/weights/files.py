"""Reads and writes weight files.

A file's format is recognised by its content. No code in a file runs, and reading takes at most a small multiple of the
file's size in memory: see :mod:`resnet_cuda.weights.restricted_pickle` for pickles, alone and within torch's files.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from resnet_cuda._atomic_write import replacing
from resnet_cuda.weights import _safetensors, _torch_files, _zip_records, other_formats, restricted_pickle
from resnet_cuda.weights._malformed import MalformedError
from resnet_cuda.weights._pickle_writer import DetectronPickler
from resnet_cuda.weights.values import is_wrapper, plain_again

CONTAINERS = ("torch", "pickle", "safetensors")

# The instructions that a pickle of protocol 0 or 1 of a container begins with.
_OLD_PICKLE = b"(]}c"
# A file of torch before 1.6 with a pickle of protocol 0 or 1: its magic number, a LONG.
_OLD_TORCH = f"L{_torch_files.LEGACY_MAGIC}L\n.".encode()


class FileError(ValueError):
    """A file that cannot be read or written as weights; the message begins with its name."""

    @classmethod
    def about(cls, name: str, problem: str) -> FileError:
        """The error for the file ``name``; ``problem`` may quote the file: unprintable characters are escaped."""
        printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in problem)
        return cls(f"{name}: {printable}")


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The content of a file of torch.save, of pickle (Caffe2, Detectron, detectron2) or of safetensors.

    Returns:
        Dictionaries, lists, tuples, sets, strings, bytes, numbers and None, with tensors on the CPU. NumPy's arrays
        become tensors, its numbers Python's. An OrderedDict's attributes (torch's ``_metadata``) are left out.

    Raises:
        FileError: for a file that is missing, truncated, damaged or of another format; that refers to a function or
            class which could run code; or that expands to far more than its size.
    """
    name = os.fspath(path)
    try:
        content = _read(name)
    except MalformedError as error:
        raise FileError.about(name, str(error)) from None
    except FileNotFoundError:
        raise FileError.about(name, "there is no such file") from None
    except OSError as error:
        raise FileError.about(name, error.strerror or str(error)) from None
    except (MemoryError, RecursionError) as error:
        raise FileError.about(name, f"reading it takes more memory than there is ({type(error).__name__})") from None
    except Exception as error:  # a path with a zero byte; what a damaged file makes a library raise
        raise FileError.about(name, f"it cannot be read: {type(error).__name__}: {str(error)[:300]}") from error
    if not isinstance(content, dict):
        raise FileError.about(
            name, f"it holds a {type(content).__name__}; weights are a dictionary of names and tensors"
        )
    strange = next((key for key in content if not isinstance(key, str)), None)
    if strange is not None or None in content:
        raise FileError.about(name, f"it holds the key {strange!r:.80}; names of weights are strings")
    return content


def _read(name: str) -> Any:
    status = os.stat(name)  # before it is opened: a pipe waits for its other end
    if stat.S_ISDIR(status.st_mode):
        raise MalformedError(_what_directory(name))
    if not stat.S_ISREG(status.st_mode):
        raise MalformedError("it is not a regular file")
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise MalformedError("it is empty")
        head = file.read(64)
        if head.startswith(_zip_records.MAGIC):
            return _torch_files.read_zip(file, size)
        if _safetensors.is_safetensors(head):
            return _safetensors.read(file, size)
        if head[:1] == b"\x80" or head[0] in _OLD_PICKLE or head.startswith(_OLD_TORCH):
            file.seek(0)
            data = file.read()
            return _torch_files.read_legacy(data) if _torch_files.is_legacy(data) else restricted_pickle.loads(data)
    raise MalformedError(f"it is not a file of weights: {_what_it_is(head, name)}")


def _what_directory(name: str) -> str:
    if os.path.isfile(os.path.join(name, ".metadata")):
        return (
            "it is a directory of torch.distributed.checkpoint; "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(directory, file) makes a file of it"
        )
    return "it is a directory, not a file"


def _what_it_is(head: bytes, name: str) -> str:
    """For what a download leaves in the place of weights, the index of several files, other formats, and the rest."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a page of HTML or XML, which a download leaves where it fails"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; `git lfs pull` brings the file"
    if start.startswith(b"{") and name.endswith(".index.json"):
        return (
            "it is the index of weights in several files; merge what resnet_cuda.weights.files.read gives for each of "
            "them into one state dict, and hand that over"
        )
    other = other_formats.of_bytes(head, name)
    if other is not None:
        return f"it is {other}"
    return f"it begins with {head[:16]!r}, as none of torch, pickle and safetensors does"


def write(content: Mapping[str, Any], path: str | os.PathLike[str], container: str) -> None:
    """Writes ``content`` to ``path``, atomically.

    Args:
        content: names and tensors, with further dictionaries, lists and plain values; flat for safetensors.
        path: an existing file is replaced and keeps its permissions; of a symbolic link the target is replaced.
        container: "torch", as by torch.save; "pickle", protocol 2 with NumPy arrays, as Detectron and detectron2 read
            it; "safetensors", which needs the package of that name.

    Raises:
        ValueError: for another container, and without the package safetensors.
        FileError: for content that the container does not support, if the file cannot be written, and if ``path`` is a
            directory, pipe or device.
    """
    if container not in CONTAINERS:
        raise ValueError(f"container is {container!r}; allowed are {', '.join(CONTAINERS)}")
    name = os.fspath(path)
    if not isinstance(content, Mapping):
        raise TypeError(f"content is a {type(content).__name__}; it must be a mapping of names and tensors")
    save = {"torch": _save_torch, "pickle": _save_pickle, "safetensors": _save_safetensors}[container]
    try:
        with replacing(name) as temporary:
            save(content, temporary)
    except MalformedError as error:
        raise FileError.about(name, str(error)) from None
    except OSError as error:
        raise FileError.about(name, error.strerror or str(error)) from None


def _save_torch(content: Mapping[str, Any], path: str) -> None:
    plain, handled = _converted(content, _compact, ""), sys.exc_info()[1]
    try:
        with open(path, "wb") as file:  # given a path, torch does not say why, such as that the disk is full
            torch.save(plain, file)
    except RuntimeError as error:
        # Whatever ends the writing early, Ctrl-C too, makes torch complain of the file's size as it closes it.
        first = error.__context__
        if first is None or first is handled or isinstance(first, RuntimeError):
            raise OSError(str(error)) from None
        raise first from None


def _save_pickle(content: Mapping[str, Any], path: str) -> None:
    with open(path, "wb") as file:
        DetectronPickler(file).dump(_converted(content, _array, ""))


def _save_safetensors(content: Mapping[str, Any], path: str) -> None:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ValueError(
            f"container is 'safetensors', which needs the package: pip install safetensors ({error})"
        ) from error
    strange = next((key for key, value in content.items() if not isinstance(value, torch.Tensor)), None)
    if strange is not None:
        raise MalformedError(f"{strange!r:.80} is not a tensor; safetensors holds a flat dictionary of tensors")
    for key, value in content.items():
        _refuse_wrapper(value, f"[{key!r:.80}]")
    # Clones, since tensors that share a storage are refused there.
    tensors = {key: _settled(value).contiguous().clone() for key, value in content.items()}
    Path(path).write_bytes(save(tensors, {"format": "pt"}))


def _converted(value: Any, tensor: Any, name: str) -> Any:
    """``value`` in plain containers, with its tensors through ``tensor``."""
    if isinstance(value, torch.Tensor):
        _refuse_wrapper(value, name)
        return tensor(_settled(value), name)
    if isinstance(value, Mapping):
        return {key: _converted(entry, tensor, f"{name}[{key!r:.80}]") for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_converted(entry, tensor, f"{name}[{index}]") for index, entry in enumerate(value))
    if type(value) in (str, int, float, complex, bytes, bool, type(None)):
        return value
    raise MalformedError(
        f"content{name} is a {type(value).__name__}; tensors, containers, strings and numbers are written"
    )


def _settled(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, its values as they are stored: safetensors and NumPy know no bit that negates or conjugates them."""
    return tensor.detach().cpu().resolve_conj().resolve_neg()


def _refuse_wrapper(tensor: torch.Tensor, name: str) -> None:
    if is_wrapper(tensor):
        raise MalformedError(
            f"content{name} is a {type(tensor).__name__}, whose values are in other tensors; {plain_again(tensor)}"
        )


def _compact(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """torch.save writes the whole storage of a view."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


def _array(tensor: torch.Tensor, name: str) -> Any:
    try:
        return tensor.contiguous().numpy()
    except TypeError:
        raise MalformedError(f"content{name} is {tensor.dtype}, which NumPy lacks; convert it to float32") from None
