"""Weights that anyone can make again from keys and shapes alone, and the numbers by which an output is known."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
IMAGE = (2, 3, 64, 96)  # detectron2's and maskrcnn-benchmark's pyramids need multiples of 32
_SAMPLES = 24


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """float32 tensors: a function of key and shape, with statistics far from 0 and 1 and offsets that move."""
    return {key: _tensor(key, tuple(shape)) for key, shape in shapes.items()}


def _tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    random = np.random.RandomState(zlib.crc32(key.encode()))  # whose numbers never change between NumPy's versions
    if key.endswith("num_batches_tracked"):
        return torch.tensor(7)
    values = random.uniform(-1, 1, shape)
    if "offset" in key:
        values *= 0.05 if len(shape) == 4 else 0.5
    elif key.endswith(("running_var", "_riv")):
        values = 1 + 0.3 * values
    elif len(shape) == 4:
        values *= (5 / np.prod(shape[1:])) ** 0.5
    elif key.endswith(("weight", "_s")):
        values = 0.6 + 0.3 * values
    else:
        values *= 0.3
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def image() -> Tensor:
    return torch.from_numpy(np.random.RandomState(3).uniform(-1, 1, IMAGE))


def numbers(levels: Sequence[Tensor], x: Tensor) -> dict[str, list]:
    """By which ``levels``, computed from ``x``, are known: shapes, values here and there, and x's gradient's."""
    weights = [torch.from_numpy(np.random.RandomState(i).uniform(-1, 1, level.shape)) for i, level in enumerate(levels)]
    loss = sum((level * weight).sum() for level, weight in zip(levels, weights, strict=True))
    (gradient,) = torch.autograd.grad(loss, x)
    return {
        "shapes": [list(level.shape) for level in levels],
        "values": [_some(level) for level in levels],
        "gradient": _some(gradient),
    }


def _some(tensor: Tensor) -> list[float]:
    flat = tensor.detach().flatten()
    step = max(1, flat.numel() // _SAMPLES)
    return [*flat[::step][:_SAMPLES].tolist(), flat.norm().item()]


def assert_known(found: Mapping[str, list], expected: Mapping[str, list], relative: float = 1e-9) -> None:
    """Every number of ``found`` is that of ``expected``, relative to the largest beside it."""
    assert found["shapes"] == expected["shapes"]
    pairs = [*zip(found["values"], expected["values"], strict=True), (found["gradient"], expected["gradient"])]
    for got, wanted in pairs:
        got, wanted = np.array(got), np.array(wanted)
        largest = np.abs(wanted[:-1]).max()
        assert largest > 0
        assert np.abs(got - wanted).max() <= relative * max(largest, abs(wanted[-1]))


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def write(name: str, content: Mapping) -> None:
    lines = [f'  "{key}": {json.dumps(value)}' for key, value in content.items() if key != "keys"]
    keys = ",\n    ".join(f"{json.dumps(key)}: {shape}" for key, shape in content["keys"].items())
    lines.append(f'  "keys": {{\n    {keys}\n  }}')
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
