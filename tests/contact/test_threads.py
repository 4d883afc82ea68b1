"""What other threads compute while one of them exports a model: torch's flag for that is the whole process's."""

from __future__ import annotations

import contextlib
import copy
import threading

import pytest
import torch
from helpers.networks import randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import resnet_cuda
from resnet_cuda import layers

pytest.importorskip("onnx")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters


class Block(nn.Module):
    """A convolution, a deformable one, and a frozen norm with ReLU."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2d(3, 8, 3, padding=1, bias=False)
        self.deformable = layers.DFConv2d(8, 8)
        self.norm = layers.FrozenBatchNorm2d(8)

    def forward(self, x):
        return layers.conv_norm_act(self.deformable, self.norm, self.conv(x))


class Serving(nn.Module):
    """Calls ``other`` in another thread within its own forward, which the exporters trace."""

    def __init__(self, block, other):
        super().__init__()
        self.block, self.other = block, other

    def forward(self, x):
        thread = threading.Thread(target=self.other)
        thread.start()
        thread.join()
        return self.block(x)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    "mode",
    [pytest.param(contextlib.nullcontext, id="none"), pytest.param(lambda: FlopCounterMode(display=False), id="FLOPs")],
)
def test_values_during_an_export_to_onnx_in_another_thread(mode, dynamo, gradient, backend, tmp_path):
    if dynamo:
        pytest.importorskip("onnxscript")
    block, x = randomise(Block()).eval(), torch.randn(2, 3, 12, 14)

    def call(module, images):
        with torch.set_grad_enabled(gradient), mode():
            return module(images).detach()

    expected = call(block, x)
    with torch.no_grad():
        seen = []
        served = Serving(copy.deepcopy(block), lambda: seen.append(call(block, x))).eval()
        torch.onnx.export(
            served, (torch.randn(1, 3, 10, 10),), str(tmp_path / "a.onnx"), dynamo=dynamo, opset_version=20
        )
    assert seen
    for got in seen:
        torch.testing.assert_close(got, expected)


def test_an_optimized_copy_during_an_export_in_another_thread(native, tmp_path):
    pytest.importorskip("onnxscript")
    block, x = randomise(Block()).eval(), torch.randn(2, 8, 12, 14)
    fast = resnet_cuda.optimize_for_inference(nn.Sequential(block.deformable, block.norm, nn.ReLU()))

    @torch.no_grad()
    def call(images):
        return fast(images)

    with torch.no_grad():
        expected = call(x)
        seen = []
        served = Serving(copy.deepcopy(block), lambda: seen.append(call(x))).eval()
        torch.onnx.export(served, (torch.randn(1, 3, 10, 10),), str(tmp_path / "a.onnx"), dynamo=True)
    assert seen
    for got in seen:
        torch.testing.assert_close(got, expected)
