"""What optimize_for_inference must not fold: it says why, and the outputs stay the model's."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers.networks import randomise, torchvision_style
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from resnet_cuda import optimize_for_inference
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.layers import Conv2d, FrozenBatchNorm2d, conv_norm_act


def image(*shape):
    torch.manual_seed(5)
    return torch.randn(*(shape or (1, 3, 64, 64)), dtype=torch.float64)


@torch.no_grad()
def optimized_and_same(model, x, expected_left):
    model = model.eval().double()
    with pytest.warns(UserWarning, match="norms that are not folded"):
        optimized = optimize_for_inference(model)
    for one, right in zip(_tensors(optimized(x)), _tensors(model(x)), strict=True):
        torch.testing.assert_close(one, right, rtol=1e-11, atol=1e-11, equal_nan=True)
    left = optimized.optimization_report.left
    assert left.keys() == expected_left.keys()
    for name, reason in expected_left.items():
        assert reason in left[name]
        assert reason in str(optimized.optimization_report)
    return optimized


def _tensors(output):
    return [output] if isinstance(output, torch.Tensor) else list(output.values())


def backbone():
    return torchvision_style(dcn=True, name="resnet50")


class Scaled(FrozenBatchNorm2d):
    def forward(self, x, residual=None, relu=False, inplace=False):
        return super().forward(2 * x, residual, relu)


class Doubling(nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = Conv2d(3, 4, 1), randomise(FrozenBatchNorm2d(4))

    def forward(self, x):
        return self.norm(self.conv(x).abs())


def replaced(name, make):
    model = backbone()
    parent, _, leaf = name.rpartition(".")
    parent = model.get_submodule(parent)
    setattr(parent, leaf, make(getattr(parent, leaf)))
    return model


def with_values_of(norm, new):
    new.load_state_dict(norm.state_dict())
    return new


def test_norm_of_a_subclass():
    name = "body.layer1.1.bn2"
    model = replaced(name, lambda norm: with_values_of(norm, Scaled(norm.num_features)))
    optimized = optimized_and_same(model, image(), {name: "Scaled has a forward of its own"})
    assert "body.layer1.1" not in optimized.optimization_report.fused
    assert "body.layer1.0" in optimized.optimization_report.fused
    assert "body.layer1" not in optimized.optimization_report.fused


def test_convolution_of_a_subclass():
    def make(conv):
        return with_values_of(conv, Doubling(conv.in_channels, conv.out_channels, 3, 1, 1, bias=False))

    model = replaced("body.layer1.1.conv2", make)
    optimized_and_same(model, image(), {"body.layer1.1.bn2": "Doubling"})


@pytest.mark.parametrize("what", ["conv2", "bn2"])
@pytest.mark.parametrize("kind", ["forward", "pre", "backward", "set"])
def test_hooks(what, kind):
    model = backbone()
    layer = model.get_submodule(f"body.layer1.1.{what}")
    if kind == "forward":
        layer.register_forward_hook(lambda module, arguments, output: output * 2)
    elif kind == "pre":
        layer.register_forward_pre_hook(lambda module, arguments: (arguments[0] * 2, *arguments[1:]))
    elif kind == "backward":
        layer.register_full_backward_hook(lambda *_: None)
    else:
        layer.forward = type(layer).forward.__get__(layer)
    reason = "has a forward set on it" if kind == "set" else "has hooks"
    optimized = optimized_and_same(model, image(), {"body.layer1.1.bn2": reason})
    assert "body.layer1.1.bn1" in optimized.optimization_report.folded


def test_hook_on_a_block_stays_and_sees_the_same():
    model = backbone().double().eval()
    seen = []
    model.body.layer2[1].register_forward_hook(lambda module, arguments, output: seen.append(output.clone()))
    optimized = optimize_for_inference(model)
    assert "body.layer2.1" in optimized.optimization_report.fused
    with torch.no_grad():
        model(image())
        optimized(image())
    assert len(seen) == 2
    torch.testing.assert_close(*seen, rtol=1e-11, atol=1e-11)


def hook_of_kind(module, kind):
    if kind == "set":
        module.forward = lambda x: x * 3
    else:
        module.register_forward_hook(lambda module, arguments, output: output * 3)


@pytest.mark.parametrize("kind", ["hook", "set"])
@pytest.mark.parametrize("name", ["body.bn1", "body.layer1.0.bn1", "body.layer1.0.bn3", "body.layer2.0.downsample.1"])
def test_hooks_on_nothing_in_place_of_a_norm(name, kind):
    model = replaced(name, lambda norm: nn.Identity()).eval().double()
    hook_of_kind(model.get_submodule(name), kind)
    optimized = optimize_for_inference(model)
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), model(image()), rtol=1e-11, atol=1e-11)
    around = name.rpartition(".")[0].removesuffix(".downsample")
    assert (around in optimized.optimization_report.fused) == ("downsample" in name)


@pytest.mark.parametrize("kind", ["hook", "set"])
@pytest.mark.parametrize("name", ["drop_path", "aa", "drop_block", "act1", "act2"])
def test_hooks_on_what_does_nothing_in_a_block_of_timm(name, kind):
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", drop_path_rate=0.2).double().eval()
    block = model.layer2[1]
    if not isinstance(getattr(block, name), nn.Module):
        setattr(block, name, nn.Identity())
    assert "layer2.1" in optimize_for_inference(model).optimization_report.fused
    hook_of_kind(getattr(block, name), kind)
    with torch.no_grad():
        torch.testing.assert_close(optimize_for_inference(model)(image()), model(image()), rtol=1e-11, atol=1e-11)


def test_norm_and_convolution_in_two_places():
    model = backbone()
    block = model.body.layer1
    block[2].bn2 = block[1].bn2
    names = {"body.layer1.1.bn2": "FrozenBatchNorm2d stands in 2 places"}
    optimized_and_same(model, image(), names)
    model = backbone()
    block = model.body.layer1
    block[2].conv2 = block[1].conv2
    names = {f"body.layer1.{index}.bn2": "Conv2d stands in 2 places" for index in (1, 2)}
    optimized_and_same(model, image(), names)


def test_a_block_in_two_places_is_one():
    model = backbone()
    model.body.layer1[2] = model.body.layer1[1]
    optimized = optimize_for_inference(model.double())
    assert optimized.body.layer1[2] is optimized.body.layer1[1]
    assert not optimized.optimization_report.left
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), model.eval()(image()), rtol=1e-11, atol=1e-11)


def test_parametrizations():
    model = backbone()
    parametrizations.weight_norm(model.body.layer1[1].conv2)
    with torch.no_grad():  # or it cannot be copied
        weight_norm(model.body.layer1[2].conv2)  # the older one, by a hook
    left = {"body.layer1.1.bn2": "the convolution has parametrizations", "body.layer1.2.bn2": "has hooks"}
    optimized_and_same(model, image(), left)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_variances_that_give_no_constants(value):
    model = backbone()
    norm = model.body.layer1[1].bn2
    norm.running_var[2] = value
    norm.eps = 0.0
    if value == float("inf"):
        norm.running_mean[2] = float("inf")
    reason = "not finite" if value == float("inf") else "zero, negative or NaN"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FrozenBatchNorm2d")
        optimized_and_same(model, image(), {"body.layer1.1.bn2": reason})


def test_weights_that_overflow():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4)).half()
    model[1].weight.fill_(1e6)
    with pytest.warns(UserWarning, match=r"not finite in torch\.float16"):
        optimize_for_inference(model)


def test_norm_that_stays_in_training_mode():
    class AlwaysTraining(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(True)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), AlwaysTraining(4))
    with pytest.warns(UserWarning, match="training mode"):
        optimized = optimize_for_inference(model)
    assert type(optimized[1]) is AlwaysTraining


def test_norm_without_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    optimized_and_same(model, image(2, 3, 8, 8), {"1": "no running statistics"})


def test_modules_of_unknown_class():
    optimized_and_same(Other(), image(), {"norm": "of no known class"})
    inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    class TakesApart(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = inner

        def forward(self, x):
            return self.layers(x) + self.layers[0](x)

    optimized_and_same(TakesApart(), image(), {"layers.1": "of no known class"})


def test_blocks_with_another_forward():
    resnet = pytest.importorskip("torchvision.models.resnet")

    class Pre(resnet.BasicBlock):
        def forward(self, x):
            return self.conv1(torch.relu(self.bn1(x))) + x

    model = nn.Sequential(Pre(4, 4), nn.Conv2d(4, 4, 1))
    left = {"0.bn1": "of no known class", "0.bn2": "of no known class"}
    optimized_and_same(model, image(1, 4, 8, 8), left)


@pytest.mark.parametrize("activation", ["hooked", "other"])
def test_another_activation_in_a_known_block(activation):
    resnet = pytest.importorskip("torchvision.models.resnet")
    block = resnet.BasicBlock(4, 4)
    if activation == "hooked":
        block.relu.register_forward_hook(lambda module, arguments, output: output + 1)
    else:
        block.relu = nn.SiLU()
    model = nn.Sequential(block).double().eval()
    optimized = optimize_for_inference(model)
    assert not optimized.optimization_report.left and not optimized.optimization_report.fused
    with torch.no_grad():
        torch.testing.assert_close(optimized(image(1, 4, 8, 8)), model(image(1, 4, 8, 8)))


def test_returned_levels_within_the_stem():
    models = pytest.importorskip("torchvision.models")
    from torchvision.models._utils import IntermediateLayerGetter

    for name in ("conv1", "bn1", "relu"):
        model = IntermediateLayerGetter(models.resnet18(), {name: "first", "layer1": "last"}).double().eval()
        randomise(model)
        x = image()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, expected = optimize_for_inference(model)(x), model(x)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_group_norm_is_no_constant_and_no_warning():
    model = torchvision_style(dcn=False, norm="gn").double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimized = optimize_for_inference(model)
    assert sum(isinstance(it, FoldedConv2d) for it in optimized.modules()) == 61
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), model(image()), rtol=1e-11, atol=1e-11)


def test_refuses_what_is_no_module_tree():
    with pytest.raises(TypeError, match="model is a int"):
        optimize_for_inference(3)
    with pytest.raises(TypeError, match="TopLevelTracedModule; give the module"):
        optimize_for_inference(torch.jit.trace(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4)))


def test_conv_norm_act_takes_an_optimized_convolution():
    """Other code's calls of layers.conv_norm_act on a folded pair."""
    conv, norm = Conv2d(3, 4, 1), randomise(FrozenBatchNorm2d(4))
    x = image().float()
    expected = conv_norm_act(conv, norm, x).detach()
    pair = optimize_for_inference(nn.Sequential(conv, norm))
    torch.testing.assert_close(conv_norm_act(pair[0], pair[1], x), expected)
