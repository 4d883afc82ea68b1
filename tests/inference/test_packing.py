"""The cache of a folded convolution's packed weights."""

from __future__ import annotations

import pytest
import torch
from helpers.folded_convolutions import folded
from helpers.threads import in_threads
from torch import nn

from resnet_cuda.inference import onednn
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.inference.packing import MOST_SHAPES, SAMPLES, Packed


@torch.no_grad()
def test_packed_weights_are_bounded_and_dropped_with_the_weight():
    conv = folded()
    if onednn.operators() is None:
        pytest.skip("this torch has no such operators")
    for size in range(5, 5 + 3 * MOST_SHAPES):
        conv(torch.zeros(1, 8, size, size))
    assert len(conv.packed) == MOST_SHAPES
    conv(torch.zeros(1, 8, size, size))
    assert len(conv.packed) == MOST_SHAPES
    conv.weight.add_(1)
    conv(torch.zeros(1, 8, size, size))
    assert len(conv.packed) == 1
    conv.to(torch.float32)
    assert len(conv.packed) == 0


def test_packed_keeps_the_most_recently_used():
    packed, conv, made = Packed(), nn.Conv2d(1, 1, 1), []

    def get(key):
        return packed.get("kind", key, conv, lambda: made.append(key) or f"value {key}")

    for key in ("a", "b", "a", "c", "a"):
        assert get(key) == f"value {key}"
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]
    with torch.no_grad():
        conv.bias.add_(1)
    get("b")
    assert made == ["a", "b", "c", "b", "b"] and len(packed) == 1


def test_threads_with_more_shapes_than_are_kept():
    packed, conv = Packed(), nn.Conv2d(1, 1, 1)

    def get(number):
        for it in range(1000):
            key = (number + it) % (2 * MOST_SHAPES)
            assert packed.get("kind", key, conv, f"value {key}".strip) == f"value {key}"

    in_threads(8, get)
    assert len(packed) <= MOST_SHAPES


def numpy(conv, values):
    conv.weight.detach().numpy()[...] = values.numpy()


def data(conv, values):
    conv.weight.data.copy_(values)


def two_new_data(conv, values):
    """The second allocation might get the address of the tensor that the first one has replaced."""
    conv.weight.data = torch.zeros_like(values)
    conv.weight.data = values.clone(memory_format=torch.preserve_format)


def in_inference_mode(conv, values):
    with torch.inference_mode():
        conv.weight.data.copy_(values)


def fused_optimizer(conv, values):
    conv.weight.requires_grad_()
    conv.weight.grad = conv.weight.detach() - values
    version = conv.weight._version
    torch.optim.SGD([conv.weight], lr=1.0, fused=True).step()
    conv.weight.requires_grad_(False)
    assert conv.weight._version == version  # or it is no example of a write without one


def swapped(conv, values):
    torch.utils.swap_tensors(conv.weight, nn.Parameter(values.clone(), False))


def swapped_by_load(conv, values):
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        conv.load_state_dict({"weight": values.clone(), "bias": conv.bias.clone()})
        conv.double().to(values.dtype)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


WRITES = (numpy, data, two_new_data, in_inference_mode, fused_optimizer, swapped, swapped_by_load)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("write", WRITES, ids=lambda it: it.__name__)
def test_writes_that_count_no_version_are_noticed(write, dtype):
    conv = folded(dtype=dtype, padding=1)
    if dtype == torch.bfloat16 and write is numpy:
        pytest.skip("NumPy has no bfloat16")
    x = torch.rand(1, 8, 9, 9, dtype=dtype)
    for _ in range(4):
        with torch.no_grad():
            conv(x)
        write(conv, torch.randn_like(conv.weight))
        with torch.no_grad():
            torch.testing.assert_close(conv(x), conv.functional(x), rtol=2e-2, atol=2e-2)


def test_one_written_value_of_few_is_noticed():
    """Weights of at most SAMPLES values are compared as a whole, and so is each bias of at most as many."""
    packed, conv, made = Packed(), nn.Conv2d(4, SAMPLES // 4, 1), []
    for _ in range(2):
        packed.get("", None, conv, lambda: made.append(1) or made)
    assert len(made) == 1
    for tensor in (conv.weight, conv.bias):
        for index in range(tensor.numel()):
            tensor.data.view(-1)[index] += 1
            packed.get("", None, conv, lambda: made.append(1) or made)
    assert len(made) == 1 + conv.weight.numel() + conv.bias.numel()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_with_nan_are_packed_once(dtype):
    packed, conv, made = Packed(), nn.Conv2d(8, 8, 3, dtype=dtype), []
    nn.init.constant_(conv.weight, float("nan"))
    for _ in range(3):
        packed.get("", None, conv, lambda: made.append(1) or made)
    assert len(made) == 1


@pytest.mark.parametrize(
    "weight",
    [torch.ones(1, 1, 1, 1).expand(8, 4, 3, 3), torch.ones(8, 4, 6, 3)[:, :, ::2]],
    ids=["expanded", "strided"],
)
def test_weights_of_any_strides(weight):
    packed, conv, made = Packed(), nn.Conv2d(4, 8, 3), []
    conv.weight = nn.Parameter(weight, False)
    for _ in range(2):
        packed.get("", None, conv, lambda: made.append(1) or made)
    assert len(made) == 1
    conv.weight = nn.Parameter(weight.clone(), False)
    packed.get("", None, conv, lambda: made.append(1) or made)
    assert len(made) == 2


@pytest.mark.parametrize("columns", [1, 2], ids=["dense", "every second"])
@torch.no_grad()
def test_another_weight_in_memory_that_was_freed(columns):
    """FSDP and offloading free a weight's memory by resize_(0): another tensor can get its address."""
    conv, x = nn.Conv2d(64, 64, 1), torch.rand(1, 64, 8, 8)
    FoldedConv2d.take_over(conv, conv.weight.detach(), None, True)

    def make(value):
        return torch.empty(64, 64 * columns, 1, 1).fill_(value)

    for _ in range(20):
        first = make(0.01)
        conv.weight = nn.Parameter(first[:, ::columns], False)
        conv(x)
        address = first.data_ptr()
        first.untyped_storage().resize_(0)
        others = [make(0.02) for _ in range(20)]
        again = next((it for it in others if it.data_ptr() == address), None)
        if again is not None:
            conv.weight = nn.Parameter(again[:, ::columns], False)
            torch.testing.assert_close(conv(x), conv.functional(x))
            return
    pytest.skip("the allocator gave no address again")
