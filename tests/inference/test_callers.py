"""What other people's code does to an optimized copy: hooks, modes, gradients, other shortcuts, other layers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

import resnet_cuda

torchvision = pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def network():
    """torchvision's ResNet-18 with statistics that are not 0 and 1."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.normal_(norm.running_mean, std=0.1)
    return model


@pytest.fixture
def optimized(network):
    return resnet_cuda.optimize_for_inference(network)


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


def assert_same(found, expected, tolerance=1e-4):
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.detach().abs().max()))


def returns_input(_module, arguments):
    return arguments[0]


def returns_all(_module, arguments, names):
    return arguments, names


@torch.no_grad()
@pytest.mark.parametrize("name", ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv2", "layer2.0.downsample.0"])
@pytest.mark.parametrize("with_names", [False, True])
def test_a_pre_hook_that_returns_the_input(name, with_names, network, optimized, images):
    """What it returns takes the place of all positional arguments: the residual is none of them."""
    hook = returns_all if with_names else returns_input
    optimized.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=with_names)
    assert_same(optimized(images), network(images))


@torch.no_grad()
def test_a_global_pre_hook_that_returns_the_input(network, optimized, images):
    expected = network(images)
    handle = register_module_forward_pre_hook(returns_input)
    try:
        assert_same(optimized(images), expected)
    finally:
        handle.remove()


@torch.no_grad()
def test_a_global_pre_hook_on_a_pyramid():
    torch.manual_seed(0)
    model = resnet_cuda.resnet_fpn_backbone("resnet18", norm_layer="bn").eval()
    folded, images = resnet_cuda.optimize_for_inference(model), torch.rand(1, 3, 64, 64)

    def convolutions_input(module, arguments):
        return arguments[0] if hasattr(module, "kernel_size") else None

    expected = model(images)
    handle = register_module_forward_pre_hook(convolutions_input)
    try:
        found = folded(images)
    finally:
        handle.remove()
    for name in expected:
        assert_same(found[name], expected[name])


class Doubles(TorchFunctionMode):
    """As a simulation of noise or of quantization changes the results of convolutions."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (F.conv2d, torch.conv2d):
            self.calls += 1
        return result


@torch.no_grad()
def test_a_function_mode_sees_the_convolutions(optimized, images):
    expected = optimized(images)
    with Doubles() as mode:
        found = optimized(images)
    assert mode.calls == 20
    assert_same(found, expected)


@torch.no_grad()
def test_a_patched_convolution_is_called(optimized, images, monkeypatch):
    original = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args: original(*args) * 0)
    assert optimized(images).eq(optimized.fc.bias).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_require_a_gradient_get_one(dtype, network, images):
    """As hypernetworks and meta-learning call a network."""
    optimized = resnet_cuda.optimize_for_inference(copy.deepcopy(network).to(dtype))
    with torch.no_grad():
        optimized(images.to(dtype))
    weights = {name: it.detach().clone().requires_grad_() for name, it in optimized.named_parameters()}
    torch.func.functional_call(optimized, weights, images.to(dtype)).sum().backward()
    assert [name for name, it in weights.items() if it.grad is None or not it.grad.any()] == []
    optimized.requires_grad_()
    optimized(images.to(dtype)).sum().backward()
    for name, it in optimized.named_parameters():
        torch.testing.assert_close(it.grad, weights[name].grad)


@torch.no_grad()
def test_what_replaces_convolutions_leaves_the_copys_alone(network, optimized, images):
    """They end in a ReLU, which a torch.nn.Conv2d does not have."""
    for model in (network, optimized):
        pointwise = [it for it in model.modules() if isinstance(it, nn.Conv2d) and it.kernel_size == (1, 1)]
        assert len(pointwise) == (3 if model is network else 0)
    conv = optimized.conv1
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride) == (3, 64, (7, 7), (2, 2))
    assert "3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), relu=True" in repr(conv)


class Broadcasts(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3), keepdim=True)


SHORTCUTS = {"pooled": lambda: nn.AdaptiveAvgPool2d(1), "one value": Broadcasts}


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", ["layer1.1", "layer2.1"])
@pytest.mark.parametrize("shortcut", list(SHORTCUTS))
@pytest.mark.parametrize("size", [32, 96])
def test_a_shortcut_that_broadcasts(shortcut, block, dtype, size, network):
    """As ``out += identity`` does."""
    model = copy.deepcopy(network)
    model.get_submodule(block).downsample = SHORTCUTS[shortcut]()
    optimized, images = resnet_cuda.optimize_for_inference(model).to(dtype), torch.rand(2, 3, size, size)
    expected = model(images)
    found = optimized(images.to(dtype)).float()
    assert_same(found, expected, 1e-4 if dtype == torch.float32 else 6e-2)


class Double(nn.Module):
    def forward(self, x):
        return x.double()


@pytest.mark.parametrize("needs_gradient", [False, True])
def test_the_result_keeps_the_convolutions_dtype(needs_gradient, network, images):
    model = copy.deepcopy(network)
    model.layer1[1].downsample = Double()
    optimized = resnet_cuda.optimize_for_inference(model)
    x = torch.rand(2, 64, 16, 16, requires_grad=needs_gradient)
    with torch.set_grad_enabled(needs_gradient):
        assert_same(optimized.layer1(x), model.layer1(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(optimized.layer1(x).float(), model.layer1(x).float(), 6e-2)
            assert optimized.layer1(x).dtype == model.layer1(x).dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.complex64])
def test_autocast_casts_floating_point_only(dtype, network, optimized):
    images = torch.ones(1, 3, 64, 64).to(dtype)
    for model in (network, optimized):
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match=r"type|unsupported"):
            model(images)


@pytest.mark.parametrize("way", ["plain", "needs gradient", "function mode", "compiled"])
@pytest.mark.parametrize("deformable", [False, True])
def test_a_residual_larger_than_the_result(way, deformable):
    """It raises, as ``out += identity`` does."""
    if deformable:
        body = resnet_cuda.resnet_fpn_backbone("resnet18", dcn_stages=(False, False, False, True)).body
        block, size = copy.deepcopy(body.layer4[1]).eval(), (2, 512, 8, 8)
    else:
        block, size = torchvision.models.resnet.BasicBlock(4, 4).eval(), (2, 4, 8, 8)
    block.conv1.stride = (8, 8)
    optimized = resnet_cuda.optimize_for_inference(block)
    x = torch.randn(size, requires_grad=way == "needs gradient")
    call = torch.compile(optimized, backend="eager") if way == "compiled" else optimized
    with torch.set_grad_enabled(x.requires_grad), Doubles() if way == "function mode" else torch.device("cpu"):
        for run in (block, call):
            with pytest.raises(RuntimeError, match=r"shape|size"):
                run(x)


@torch.no_grad()
@pytest.mark.parametrize("argument", [[torch.ones(3, 64, 64)], torch.ones(1, 3, 64, 64).numpy(), None])
def test_what_is_no_tensor(argument, network, optimized):
    """Lists are what torchvision's detectors take, and easily given to a backbone."""
    for model in (network, optimized):
        with pytest.raises(TypeError, match=f"conv2d.*got \\(.*{type(argument).__name__}"):
            model(argument)
