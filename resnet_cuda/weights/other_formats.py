"""Names the format of a file of weights that is not read, and says how its tensors can be handed over."""

from __future__ import annotations

import os
from collections.abc import Iterable

_ARRAYS = "hand over a state dict: its arrays as tensors, under the names of torchvision"
_HWIO = f"{_ARRAYS}, kernels (kh, kw, in, out) permuted to (out, in, kh, kw)"
_FOLDED = "; where batch norms are folded into its kernels, each norm is an identity with the kernel's bias"

# By the first bytes, from the given position on.
_BY_CONTENT = (
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file, such as Keras writes; read it with h5py and {_HWIO}"),
    (0, b"\x93NUMPY", f"an array of NumPy; read it with numpy.load and {_ARRAYS}"),
    (4, b"TFL3", f"a TensorFlow Lite file; load the weights that it was made of and {_HWIO}"),
    (0, b"GGUF", f"a GGUF file; read it with the package gguf and {_ARRAYS}"),
)
# Protocol buffers have no signature: their first byte only tells the number and type of a field. By that byte and the
# name's end.
_BY_NAME = (
    (".onnx", b"\x08", f"an ONNX file; read its initializers with the package onnx and {_ARRAYS}{_FOLDED}"),
    (".caffemodel", b"\x0a", f"a Caffe model; read its blobs with a reader of Caffe's files and {_ARRAYS}"),
    (".pb", b"\x0a", f"a graph of TensorFlow; read its constants with TensorFlow and {_HWIO}"),
)


def of_bytes(head: bytes, path: str) -> str | None:
    """What a file is and what to do, from its first bytes and, where they do not tell, its name."""
    for start, signature, text in _BY_CONTENT:
        if head.startswith(signature, start):
            return text
    ending = os.path.splitext(path)[1].lower()
    return next((text for end, first, text in _BY_NAME if ending == end and head.startswith(first)), None)


def of_zip(records: Iterable[str]) -> str | None:
    """The same for a zip file, from the names of its records."""
    names = list(records)
    if "model.weights.h5" in names:
        return f"a Keras file; read it with Keras and {_HWIO}"
    if names and all(name.endswith(".npy") for name in names):
        return f"a file of numpy.savez; read it with numpy.load and {_ARRAYS}"
    return None
