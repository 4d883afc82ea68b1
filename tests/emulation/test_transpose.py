"""``csrc/common/transpose.cuh``, emulated: every element in its place, and nothing else written."""

from __future__ import annotations

import pytest
import torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# [batch, rows, columns]
SHAPES = (
    (1, 1, 1),
    (2, 32, 32),
    (1, 64, 64),
    (2, 33, 65),
    (3, 66, 130),
    (1, 1, 200),
    (1, 200, 1),
    (2, 65, 2),
    (2, 2, 63),
    (150, 3, 5),  # more tiles than blocks
    (0, 4, 4),
    (2, 0, 4),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transpose(transpose, shape, dtype):
    source = torch.randn(shape, dtype=torch.float64).to(dtype)
    assert torch.equal(transpose(source), source.transpose(1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_order_does_not_matter(transpose, seed, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
    source = torch.randn(2, 35, 67)
    assert torch.equal(transpose(source), source.transpose(1, 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_source_that_begins_anywhere(transpose, dtype):
    """Two elements of 2 bytes are read as one only where they are aligned."""
    source = torch.randn(1 + 2 * 34 * 36, dtype=torch.float64).to(dtype)[1:].view(2, 34, 36)
    assert torch.equal(transpose(source), source.transpose(1, 2))


def test_grid_stride_on_one_multiprocessor(transpose, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", "1")
    source = torch.randn(35, 33, 33)
    assert torch.equal(transpose(source), source.transpose(1, 2))
