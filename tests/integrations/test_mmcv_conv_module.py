"""optimize_for_inference and accelerate on mmcv's ConvModule, of which mmdetection's heads and necks are made."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from same import randomise
from torch import nn

from resnet_cuda import accelerate, optimize_for_inference


def image():
    torch.manual_seed(5)
    return torch.randn(2, 3, 64, 96, dtype=torch.float64)


def conv_module(**options):
    from mmcv.cnn import ConvModule

    torch.manual_seed(0)
    module = ConvModule(3, 6, 3, **{"padding": 1, "norm_cfg": {"type": "BN"}, **options})
    return randomise(module).double().eval().requires_grad_(False)


CONV_MODULES = {
    "usual": ({}, True),
    "no activation": ({"act_cfg": None}, True),
    "another activation": ({"act_cfg": {"type": "LeakyReLU"}}, True),
    "reflecting": ({"padding_mode": "reflect"}, True),
    "bias": ({"bias": True}, True),
    "folded by mmcv": ({"efficient_conv_bn_eval": True}, False),
    "no norm": ({"norm_cfg": None}, False),
    "GN": ({"norm_cfg": {"type": "GN", "num_groups": 2}}, False),
    "another order": ({"order": ("act", "norm", "conv")}, False),
}


def assert_same_calls(module, original, calls=({}, {"activate": False}, {"norm": False})):
    x = image()
    for call in calls:
        torch.testing.assert_close(module(x, **call), original(x, **call), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CONV_MODULES)
def test_mmcvs_conv_module_accelerated(mmdet, name, monkeypatch):
    from resnet_cuda.acceleration import fused

    options, is_fused = CONV_MODULES[name]
    module, original = conv_module(**options), conv_module(**options)
    passes, plain = [], fused.frozen_batch_norm
    monkeypatch.setattr(fused, "frozen_batch_norm", lambda *a, **k: passes.append(k["inplace"]) or plain(*a, **k))
    found = accelerate(module)
    assert found.replaced == {"": "mmcv.cnn.bricks.conv_module.ConvModule"}
    assert_same_calls(module, original)
    assert passes == ([True, True] if is_fused else [])  # not with norm=False
    found.undo()
    assert type(module) is type(original)


@pytest.mark.parametrize("norm", ["BN3d", "SyncBN"])
def test_mmcvs_conv_module_of_videos_accelerated(mmdet, norm):
    options = {"conv_cfg": {"type": "Conv3d"}, "norm_cfg": {"type": norm}, "inplace": False}
    module, original = conv_module(**options), conv_module(**options)
    assert accelerate(module).replaced
    x = image()[:, :, None].repeat(1, 1, 4, 1, 1)
    for call in ({}, {"activate": False}, {"norm": False}):
        torch.testing.assert_close(module(x, **call), original(x, **call))


@pytest.mark.parametrize("part", ["conv", "bn", "activate", ""])
def test_hooks_in_mmcvs_conv_module(mmdet, part):
    module, original = conv_module(inplace=False), conv_module(inplace=False)
    seen = []
    for one in (module, original):
        one.get_submodule(part).register_forward_hook(
            lambda module, arguments, out: seen.append(out.clone()) or out * 2
        )
    accelerate(module)
    assert_same_calls(module, original, [{}])
    torch.testing.assert_close(*seen, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CONV_MODULES)
def test_mmcvs_conv_module_optimized(mmdet, name):
    options, is_fused = CONV_MODULES[name]
    if name == "folded by mmcv":
        is_fused = True  # for good
    module = conv_module(**options)
    left = 1 if name == "another order" else 0
    with pytest.warns(UserWarning, match="not folded") if left else contextlib.nullcontext():
        optimized = optimize_for_inference(module)
    report = optimized.optimization_report
    assert (len(report.folded), len(report.fused), len(report.left)) == (is_fused, is_fused, left)
    assert isinstance(optimized, type(module))
    if not is_fused:
        assert_same_calls(optimized, module)
        return
    assert_same_calls(optimized, module, [{}, {"activate": False}])
    assert_same_calls(copy.deepcopy(optimized), module, [{}])
    with pytest.raises(RuntimeError, match="norm is False; it must be True after optimize_for_inference"):
        optimized(image(), norm=False)


def test_mmcvs_conv_modules_that_share_a_convolution(mmdet):
    """As the heads of mmdetection do that have a norm for each level."""
    first, second = conv_module(), conv_module()
    second.conv = first.conv
    randomise(second.bn, seed=3)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            return self.first(x), self.second(x)

    model = Both()
    with pytest.warns(UserWarning, match="stands in 2 places"):
        optimized = optimize_for_inference(model)
    torch.testing.assert_close(optimized(image()), model(image()))
