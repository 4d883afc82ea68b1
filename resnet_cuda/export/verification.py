"""Compares an ONNX file with the network that it was exported from."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from resnet_cuda.export.signature import Example, tensors_of


def largest_difference(model: nn.Module, path: str, inputs: Iterable[Example]) -> float:
    """The largest difference between ONNX Runtime's outputs and the model's, relative to each output's largest value;
    infinity if shapes or non-finite values differ."""
    import onnxruntime  # type: ignore[import-not-found, unused-ignore]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    largest = 0.0
    for example in inputs:
        array = (example[0] if isinstance(example, list) else example).cpu().numpy()
        with torch.no_grad():
            expected = [it.cpu().numpy() for it in tensors_of(model(example))]
        got = session.run(None, {name: array})
        if len(got) != len(expected):
            return math.inf
        largest = max(largest, *(_difference(one, right) for one, right in zip(got, expected, strict=True)))
    return largest


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape:
        return math.inf
    if got.size == 0:
        return 0.0
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return math.inf
    if not finite.any():
        return 0.0
    error = np.abs(got[finite] - expected[finite]).max()
    return float(error / max(np.abs(expected[finite]).max(), np.finfo(np.float32).tiny))
