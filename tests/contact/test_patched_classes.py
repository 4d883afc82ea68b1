"""Methods that other code has put on a library's class: what relies on them stays as it is, and is reported."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers.accelerated import image, randomised
from helpers.networks import torchvision_style
from torch import nn

from resnet_cuda import accelerate, optimize_for_inference
from resnet_cuda.layers import FrozenBatchNorm2d as OwnNorm
from resnet_cuda.patched import is_patched

models = pytest.importorskip("torchvision.models")
from torchvision.models import resnet  # noqa: E402
from torchvision.models._utils import IntermediateLayerGetter  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d, misc  # noqa: E402


def doubled(original):
    @functools.wraps(original)
    def patch(self, *arguments):
        result = original(self, *arguments)
        if isinstance(result, dict):
            return type(result)((name, it * 2) for name, it in result.items())
        return [it * 2 for it in result] if isinstance(result, list) else result * 2

    return patch


def circular(original):
    """Another padding."""

    def patch(self, input, weight, bias):
        rows, columns = self.padding
        input = F.pad(input, (columns, columns, rows, rows), mode="circular")
        return F.conv2d(input, weight, bias, self.stride, 0, self.dilation, self.groups)

    return patch


def backwards(original):
    return lambda self: reversed(list(original(self)))


def torchvisions(**options):
    return randomised(models.resnet18(num_classes=7, **options)).double().eval()


def timms(name="resnet18d", **options):
    timm = pytest.importorskip("timm")
    return randomised(timm.create_model(name, num_classes=7, **options)).double().eval()


def body():
    return IntermediateLayerGetter(torchvisions(), {"layer1": "a", "layer4": "b"})


def layer():
    conv_norm_act = misc.Conv2dNormActivation(3, 8, 3, activation_layer=nn.ReLU)
    return nn.Sequential(randomised(conv_norm_act), nn.Conv2d(8, 8, 1)).double().eval()


def palindrome():
    return randomised(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))).double().eval()


def of_timm(path, name, make=timms):
    def found():
        pytest.importorskip("timm")
        module, _, attribute = path.rpartition(".")
        return getattr(sys.modules[module], attribute), name, make

    return found


# By what is patched: its class and method, and a network.
PATCHES = {
    "BasicBlock.forward": (resnet.BasicBlock, "forward", torchvisions),
    "BasicBlock.forward, frozen": (resnet.BasicBlock, "forward", lambda: torchvisions(norm_layer=FrozenBatchNorm2d)),
    "Bottleneck.forward": (
        resnet.Bottleneck,
        "forward",
        lambda: nn.Sequential(resnet.Bottleneck(3, 2, 1, nn.Conv2d(3, 8, 1))).double().eval(),
    ),
    "ResNet._forward_impl": (resnet.ResNet, "_forward_impl", torchvisions),
    "IntermediateLayerGetter.forward": (IntermediateLayerGetter, "forward", body),
    "FrozenBatchNorm2d.forward": (FrozenBatchNorm2d, "forward", lambda: torchvisions(norm_layer=FrozenBatchNorm2d)),
    "BatchNorm2d.forward": (nn.BatchNorm2d, "forward", torchvisions),
    "BatchNorm's base": (nn.modules.batchnorm._BatchNorm, "forward", torchvisions),
    "ReLU.forward": (nn.ReLU, "forward", torchvisions),
    "ReLU.forward, layer": (nn.ReLU, "forward", layer),
    "ReLU.forward, timm": (nn.ReLU, "forward", timms),
    "Conv2d.forward": (nn.Conv2d, "forward", torchvisions),
    "Conv2d._conv_forward": (nn.Conv2d, "_conv_forward", torchvisions),
    "Sequential.forward": (nn.Sequential, "forward", torchvisions),
    "Sequential.forward, layer": (nn.Sequential, "forward", layer),
    "Sequential.__iter__": (nn.Sequential, "__iter__", palindrome),
    "Identity.forward": (nn.Identity, "forward", layer),
    "Identity.forward, timm": (nn.Identity, "forward", lambda: timms(drop_path_rate=0.2)),
    "Module._call_impl": (nn.Module, "_call_impl", layer),
    "Module.__call__": (nn.Module, "__call__", layer),
    "own Bottleneck.forward": (type(torchvision_style(False).body.layer1[0]), "forward", lambda: own().body),
}
TIMM = {
    "timm BasicBlock.forward": of_timm("timm.models.resnet.BasicBlock", "forward"),
    "timm ResNet.forward_features": of_timm("timm.models.resnet.ResNet", "forward_features"),
    "timm FeatureListNet._collect": of_timm(
        "timm.models._features.FeatureListNet", "forward", lambda: timms(features_only=True)
    ),
    "timm DropPath.forward": of_timm("timm.layers.drop.DropPath", "forward", lambda: timms(drop_path_rate=0.2)),
}


def own():
    return torchvision_style(dcn=False).double().eval()


def patching(name):
    known, method, make = PATCHES[name] if name in PATCHES else TIMM[name]()
    model = make()  # before: constructors may call the method
    patch = {"__iter__": backwards, "_conv_forward": circular}.get(method, doubled)
    return model, known, method, patch(getattr(known, method))


def optimized(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimize_for_inference(model)


def accelerated(model):
    model = copy.deepcopy(model)
    accelerate(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize("change", [optimized, accelerated])
@pytest.mark.parametrize("name", [*PATCHES, *TIMM])
def test_patched_before(name, change, monkeypatch):
    model, known, method, patch = patching(name)
    x = image(1, 3, 48, 40)
    unpatched = model(x)
    monkeypatch.setattr(known, method, patch)
    assert is_patched(known, method)
    expected = model(x)
    if name != "Identity.forward":  # there is none before the norms are folded
        with pytest.raises(AssertionError):
            torch.testing.assert_close(expected, unpatched)
    torch.testing.assert_close(change(model)(x), expected, rtol=1e-9, atol=1e-9)
    monkeypatch.undo()
    assert not is_patched(known, method)


AFTER = ["BatchNorm2d.forward", "ReLU.forward", "ReLU.forward, timm", "Conv2d.forward", "Conv2d._conv_forward"]
AFTER += ["Sequential.forward", "Identity.forward, timm", "ResNet.forward"]
PATCHES["ResNet.forward"] = (resnet.ResNet, "forward", torchvisions)


@torch.no_grad()
@pytest.mark.parametrize("name", AFTER)
def test_a_part_of_an_accelerated_network_patched_later(name, monkeypatch):
    model, known, method, patch = patching(name)
    fast = accelerated(model)
    monkeypatch.setattr(known, method, patch)
    x = image(1, 3, 48, 40)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_sequentials_of_own_blocks(monkeypatch):
    """The shortcut of a block and a deep stem, which are run by their parts."""
    from resnet_cuda.blocks import shortcut_of
    from resnet_cuda.torchvision_stem import stem, stem_convolution

    shortcut = nn.Sequential(nn.Conv2d(3, 8, 1), OwnNorm(8))
    conv1, norm = stem_convolution(3, 8, True, OwnNorm), OwnNorm(8)
    x = image(1, 3, 16, 16).float()
    before = shortcut_of(shortcut, x), stem(conv1, norm, nn.ReLU(), x)
    monkeypatch.setattr(nn.Sequential, "forward", doubled(nn.Sequential.forward))
    after = shortcut_of(shortcut, x), stem(conv1, norm, nn.ReLU(), x)
    torch.testing.assert_close(after, (2 * before[0], norm(2 * conv1[6](conv1[:6](x) / 2)).relu()))


def test_reports(monkeypatch):
    model = torchvisions()
    monkeypatch.setattr(resnet.BasicBlock, "forward", doubled(resnet.BasicBlock.forward))
    with pytest.warns(UserWarning, match="19 in all"):
        report = optimize_for_inference(model).optimization_report
    reason = "torchvision.models.resnet.BasicBlock.forward was replaced"
    assert set(report.left.values()) == {reason} and len(report.left) == 19
    assert {"layer2.0.bn1", "layer2.0.downsample.1"} <= report.left.keys()
    assert accelerate(model).left == {f"layer{stage}.{block}": reason for stage in (1, 2, 3, 4) for block in (0, 1)}
    monkeypatch.undo()
    assert not optimize_for_inference(model).optimization_report.left


@pytest.mark.parametrize(
    ("known", "name", "reason"),
    [
        (nn.BatchNorm2d, "forward", "the norm is of a class whose forward was replaced"),
        (nn.Conv2d, "_conv_forward", "the convolution is of a class whose _conv_forward was replaced"),
        (nn.Identity, "forward", "the Identity that would take its place is of a class whose forward was replaced"),
        (nn.Module, "_call_impl", "the norm is of a class whose _call_impl was replaced"),
    ],
)
def test_reasons(known, name, reason, monkeypatch):
    model = torchvisions()
    monkeypatch.setattr(known, name, doubled(getattr(known, name)))
    left = optimized(model).optimization_report.left
    assert len(left) == 20 and set(left.values()) == {reason}


def test_a_patch_that_was_taken_back():
    """Of a method that the class inherits, which is then its own."""
    original = nn.BatchNorm2d.forward
    nn.BatchNorm2d.forward = doubled(original)
    nn.BatchNorm2d.forward = original
    try:
        assert not is_patched(nn.BatchNorm2d, "forward")
        assert not optimize_for_inference(torchvisions()).optimization_report.left
    finally:
        del nn.BatchNorm2d.forward


def test_a_method_of_another_class_of_the_library(monkeypatch):
    monkeypatch.setattr(resnet.BasicBlock, "forward", resnet.Bottleneck.forward)
    assert is_patched(resnet.BasicBlock, "forward")
    monkeypatch.setattr(resnet.BasicBlock, "forward", torch.compile(resnet.Bottleneck.forward))
    assert is_patched(resnet.BasicBlock, "forward")


@torch.no_grad()
@pytest.mark.parametrize("change", [optimized, accelerated])
def test_another_class_of_that_name(change, monkeypatch):
    class BasicBlock(resnet.BasicBlock):
        def forward(self, x):
            return super().forward(x) * 2

    monkeypatch.setattr(resnet, "BasicBlock", BasicBlock)
    model = torchvisions()
    assert type(model.layer1[0]) is BasicBlock
    x = image(1, 3, 48, 40)
    torch.testing.assert_close(change(model)(x), model(x), rtol=1e-9, atol=1e-9)


def test_conversions_refuse_it(monkeypatch):
    model = torchvisions()
    monkeypatch.setattr(nn.BatchNorm2d, "forward", doubled(nn.BatchNorm2d.forward))
    with pytest.raises(ValueError, match="BatchNorm2d has a forward of its own; it cannot be frozen"):
        OwnNorm.convert_frozen_batchnorm(model)


PROGRAM = """
import copy, warnings
import torch, torchvision
from torch import nn

warnings.simplefilter("ignore")
torch.manual_seed(0)
def double(known, name="forward"):
    original = getattr(known, name)
    setattr(known, name, lambda self, *arguments: original(self, *arguments) * 2)

kept, conv2d = [], nn.functional.conv2d
def keep(*arguments, **options):
    result = conv2d(*arguments, **options)
    kept.append((result, result.clone()))
    return result

PATCH
import resnet_cuda

model = torchvision.models.resnet18(num_classes=7).eval().requires_grad_(False)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.bias.uniform_(-1, 1)
        module.running_var.uniform_(50, 90)
accelerated = copy.deepcopy(model)
resnet_cuda.accelerate(accelerated)
x = torch.randn(1, 3, 48, 40)
expected = model(x)
torch.testing.assert_close(resnet_cuda.optimize_for_inference(model)(x), expected, rtol=1e-3, atol=1e-3)
torch.testing.assert_close(accelerated(x), expected, rtol=1e-3, atol=1e-3)
assert all(torch.equal(one, before) for one, before in kept)
"""


@pytest.mark.parametrize(
    "patch",
    [
        "double(torchvision.models.resnet.BasicBlock)",
        "double(nn.BatchNorm2d)",
        "double(nn.ReLU)",
        "double(nn.Sequential)",
        "double(nn.Identity)",
        "double(nn.Conv2d, '_conv_forward')",
        "nn.functional.conv2d = keep",
    ],
)
def test_patched_before_the_import(patch):
    subprocess.run([sys.executable, "-c", PROGRAM.replace("PATCH", patch)], check=True, timeout=300)
