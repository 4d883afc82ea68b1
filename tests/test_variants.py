"""V1d, dilated stages and other input channels of resnet_fpn_backbone, against timm's and torchvision's networks."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.levels import check_levels
from helpers.networks import assert_equal, levels_of, loss_of, narrow_fpn, randomise
from torch import nn

from resnet_cuda import calibrate, resnet_fpn_backbone, torchvision_body
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d
from resnet_cuda.torchvision_body import Variant

WIDTH = 8
TIMM_LAYERS = {"resnet18d": ("BasicBlock", (2, 2, 2, 2)), "resnet50d": ("Bottleneck", (3, 4, 6, 3))}
DILATIONS = list(itertools.product([False, True], repeat=3))
LEVELS = ["0", "1", "2", "3", "pool"]


@pytest.fixture
def timms():
    """A narrow network of timm's in float64, and its four levels."""
    module = pytest.importorskip("timm.models.resnet", reason="compares with timm")

    def make(name, **options):
        block, layers = TIMM_LAYERS[name]
        deep = {"stem_width": WIDTH // 2, "stem_type": "deep", "avg_down": True}
        channels = tuple(WIDTH * 2**index for index in range(4))
        network = module.ResNet(getattr(module, block), layers, channels=channels, **deep, **options)
        return randomise(network.double().eval())

    return make


def levels_of_timms(network, x):
    return network.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)


def gradients_of(levels, x, parameters):
    loss = sum((level * level).mean() for level in levels)
    return torch.autograd.grad(loss, [x, *parameters.values()])


def ours_of(theirs, name, **options):
    """Our body with the values of timm's, every key of which it must know."""
    body = narrow_fpn_body(name, **options)
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    body.load_state_dict(state)
    return body


def narrow_fpn_body(name, **options):
    options = {"width": WIDTH, "fpn_channels": 4, "trainable_layers": 5} | options
    return resnet_fpn_backbone(name, **options).body.double().eval()


def compare_with_timms(theirs, ours, x):
    expected, got = levels_of_timms(theirs, x), levels_of(ours(x))
    assert len(got) == 4
    for one, other in zip(got, expected, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other)
    names = [name for name, _ in ours.named_parameters()]
    other_parameters = dict(theirs.named_parameters())
    expected = gradients_of(expected, x, {name: other_parameters[name] for name in names})
    got = gradients_of(got, x, dict(ours.named_parameters()))
    assert_equal(
        dict(zip(["x", *names], got, strict=True)),
        dict(zip(["x", *names], expected, strict=True)),
        rtol=1e-7,
        atol=1e-12,
    )


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
@pytest.mark.parametrize("name", ["resnet18d", "resnet50d"])
@pytest.mark.parametrize("size", [(64, 96), (45, 67)], ids=str)
def test_v1d_equals_timms(name, norm, size, timms, backend):
    """Every level and every gradient, fused and in place."""
    theirs = timms(name)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    compare_with_timms(theirs, ours_of(theirs, name, norm_layer=norm), x)


@pytest.mark.parametrize("name", ["resnet18d", "resnet50d"])
@pytest.mark.parametrize(("output_stride", "dilated"), [(16, (False, False, True)), (8, (False, True, True))])
def test_dilated_v1d_equals_timms(name, output_stride, dilated, timms, backend):
    theirs = timms(name, output_stride=output_stride)
    ours = ours_of(theirs, name, replace_stride_with_dilation=dilated)
    x = torch.randn(1, 3, 77, 65, dtype=torch.float64, requires_grad=True)
    compare_with_timms(theirs, ours, x)
    assert ours.feature_info.reduction() == [info["reduction"] for info in theirs.feature_info[1:]]


@pytest.mark.parametrize("name", ["resnet18d", "resnet34d", "resnet50d", "resnet101d", "resnet152d"])
def test_v1d_by_name_has_timms_keys(name):
    timm = pytest.importorskip("timm", reason="compares with timm")
    plain = name.removesuffix("d")
    with torch.device("meta"):
        theirs = timm.create_model(name)
        networks = [
            resnet_fpn_backbone(name, norm_layer="bn"),
            resnet_fpn_backbone(plain, norm_layer="bn", deep_stem=True, avg_down=True),
        ]
        expected = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
        for ours in networks:
            assert {key: tuple(value.shape) for key, value in ours.body.state_dict().items()} == expected
        undone = resnet_fpn_backbone(name, deep_stem=False, avg_down=False)
        assert undone.state_dict().keys() == resnet_fpn_backbone(plain).state_dict().keys()


@pytest.mark.parametrize("part", ["deep_stem", "avg_down"])
def test_stem_and_shortcut_are_chosen_by_themselves(part):
    with torch.device("meta"):
        keys = set(resnet_fpn_backbone("resnet50", **{part: True}).body.state_dict())
    assert ("conv1.6.weight" in keys) == (part == "deep_stem")
    assert ("layer1.0.downsample.2.weight" in keys) == (part == "avg_down")
    assert ("conv1.weight" in keys) == (part != "deep_stem")
    assert ("layer1.0.downsample.0.weight" in keys) == (part != "avg_down")


def test_v1d_takes_timms_weights():
    timm = pytest.importorskip("timm", reason="compares with timm")
    theirs = timm.create_model("resnet18d")
    randomise(theirs)
    body = resnet_fpn_backbone("resnet18d", weights=theirs.state_dict()).body.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(levels_of(body(x)), levels_of_timms(theirs.eval(), x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


# The stem's parts; a hook on the 7x7 of a plain stem is tests/contact's.
OBSERVED = ["conv1", *[f"conv1.{index}" for index in range(7)], "bn1", "layer2.0.downsample"]
OBSERVED += [f"layer2.0.downsample.{index}" for index in range(3)]


@pytest.mark.parametrize("which", [*[[name] for name in OBSERVED], OBSERVED], ids=lambda names: " ".join(names)[:25])
def test_hooks_see_and_may_keep_what_timms_shows(which, timms, backend):
    theirs = timms("resnet18d")
    ours = ours_of(theirs, "resnet18d")
    x = torch.randn(1, 3, 33, 41, dtype=torch.float64)
    kept = []
    for network in (ours, theirs):
        seen = {}

        def keep(name, seen=seen, copies=network is theirs):
            # A copy of timm's, whose ReLU overwrites what a hook keeps.
            def hook(module, arguments, output):
                seen[name] = output.clone() if copies else output

            return hook

        for name in which:
            network.get_submodule(name).register_forward_hook(keep(name))
        kept.append(seen)
        network.requires_grad_(network is ours)  # in place without gradients, too
        network(x)
    assert kept[0].keys() == kept[1].keys() == set(which)
    for name in which:
        torch.testing.assert_close(kept[0][name], kept[1][name], msg=name)


def test_a_changed_stem_is_called_as_it_is(backend):
    """A module of the user's in the deep stem's place, or a ReLU of another class in it."""
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    body = randomise(narrow_fpn_body("resnet18d"))
    plain = body(x)["0"]
    body.conv1[2] = nn.LeakyReLU(0.5)
    leaky = body(x)["0"]
    assert not torch.allclose(leaky, plain)
    stem = body.conv1
    expected = stem[6](stem[4](stem[3](stem[2](stem[1](stem[0](x))))).relu())
    seen = []
    body.bn1.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    body(x)
    torch.testing.assert_close(seen[0], expected)
    body.conv1 = nn.Conv2d(3, WIDTH, 1, 2).double()
    assert body(x)["0"].shape == plain.shape


# Dilation


@pytest.fixture
def tiny(monkeypatch):
    """A bottleneck variant that is quick at torchvision's 64 channels."""
    monkeypatch.setitem(torchvision_body.VARIANTS, "tiny", Variant(True, (1, 2, 2, 2)))
    return "tiny"


@pytest.mark.parametrize("dilated", DILATIONS, ids=str)
def test_dilation_equals_torchvisions(dilated, tiny, native):
    models = pytest.importorskip("torchvision.models", reason="compares with torchvision")
    block = models.resnet.Bottleneck
    theirs = models.ResNet(block, [1, 2, 2, 2], 1, replace_stride_with_dilation=list(dilated)).double().eval()
    randomise(theirs)
    ours = resnet_fpn_backbone(tiny, replace_stride_with_dilation=dilated, fpn_channels=4).double().eval()
    ours.body.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(1, 3, 33, 49, dtype=torch.float64)
    with torch.no_grad():
        levels = ours.body(x)
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for index, name in enumerate(levels):
            expected = getattr(theirs, f"layer{index + 1}")(expected)
            assert expected.abs().max() > 0
            torch.testing.assert_close(levels[name], expected)


@pytest.mark.parametrize("dilated", DILATIONS, ids=str)
@pytest.mark.parametrize(("name", "avg_down"), [("resnet18", True), ("resnet50", False)])
def test_levels_of_dilated_networks(dilated, avg_down, name):
    network = resnet_fpn_backbone(
        name, width=8, fpn_channels=4, replace_stride_with_dilation=dilated, avg_down=avg_down
    )
    strides = [4]
    for kept in dilated:
        strides.append(strides[-1] * (1 if kept else 2))
    check_levels(network, LEVELS, strides=[*strides, 2 * strides[-1]])


def test_a_network_of_one_level_has_out_channels():
    body = narrow_fpn(returned_layers=[4], replace_stride_with_dilation=(False, False, True)).body
    assert body.out_channels == body(torch.randn(1, 3, 64, 64))["0"].shape[1] == 64
    check_levels(body, ["0"], strides=[16])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("dilated", [(False, False, True), (False, True, False)], ids=str)
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_stages_dilate_too(name, dilated, modulated, backend):
    """At offsets of 0 the dilated deformable network is the plain dilated one, v2's mask being 1/2."""
    options = {"replace_stride_with_dilation": dilated}
    plain = randomise(narrow_fpn_body(name, **options))
    dcn = (False, False, True, True)
    ours = narrow_fpn_body(name, dcn_stages=dcn, modulated=modulated, deformable_groups=2, **options)
    state = dict(plain.state_dict())
    for key, layer in ours.named_modules():
        if isinstance(layer, DFConv2d):
            expected = plain.get_submodule(key)
            assert layer.conv.dilation == layer.offset.dilation == expected.dilation
            assert layer.conv.stride == expected.stride
            assert layer.conv.padding == layer.offset.padding == expected.padding
            state[f"{key}.conv.weight"] = state.pop(f"{key}.weight") * (2 if modulated else 1)
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(".offset." in key for key in missing)
    x = torch.randn(1, 3, 65, 50, dtype=torch.float64)
    with torch.no_grad():
        got, expected = ours(x), plain(x)
    assert_equal(dict(got), dict(expected))


def test_moving_offsets_in_a_dilated_stage_equal_torchvisions_operator(native):
    operators = pytest.importorskip("torchvision.ops", reason="compares with torchvision")
    body = narrow_fpn_body(
        "resnet50", dcn_stages=(False, False, False, True), replace_stride_with_dilation=(False, False, True)
    )
    layer = randomise(body).layer4[1].conv2
    assert layer.conv.dilation == (2, 2)
    x = torch.randn(1, layer.conv.in_channels, 7, 9, dtype=torch.float64)
    predicted = nn.functional.conv2d(x, layer.offset.weight, layer.offset.bias, 1, 2, 2)
    offset, mask = predicted[:, :18], predicted[:, 18:].sigmoid()
    assert offset.abs().max() > 0.1
    expected = operators.deform_conv2d(x, offset, layer.conv.weight, None, 1, 2, 2, mask)
    torch.testing.assert_close(layer(x), expected)


# Input channels


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_input_channels(channels, name):
    network = resnet_fpn_backbone(name, width=8, fpn_channels=4, in_channels=channels)
    check_levels(network, LEVELS, channels)
    with pytest.raises(RuntimeError):
        network(torch.randn(1, channels + 1, 32, 32))


@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_pretrained_stems_are_adapted(name):
    source = randomise(resnet_fpn_backbone(name, width=8).body)
    body = resnet_fpn_backbone(name, width=8, in_channels=1, weights=source.state_dict()).body.eval()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        got, expected = body(grey), source.eval()(grey.expand(1, 3, 64, 64))
    for level in expected:
        torch.testing.assert_close(got[level], expected[level], rtol=1e-4, atol=1e-4)


SIZES = [(1, 1), (3, 1), (7, 5), (2, 65)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dilated", DILATIONS[::3], ids=str)
def test_any_image_size_works(size, dilated, backend):
    network = resnet_fpn_backbone(
        "resnet50d",
        width=8,
        fpn_channels=4,
        trainable_layers=5,
        replace_stride_with_dilation=dilated,
        dcn_stages=(False, True, True, True),
    ).eval()
    x = torch.randn(1, 3, *size, requires_grad=True)
    output = network(x)
    for level, shape in zip(levels_of(output), network.output_shape().values(), strict=True):
        assert level.shape[2:] == tuple(-(-it // shape.stride) for it in size)
    loss_of(output).backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "resnet_fpn_backbone: in_channels is 0; it must be at least 1"),
        ({"in_channels": 3.0}, ValueError, "in_channels is 3.0; it must be an integer"),
        (
            {"replace_stride_with_dilation": (True, False)},
            ValueError,
            r"replace_stride_with_dilation is \(True, False\); it must be 3 of True and False",
        ),
        ({"replace_stride_with_dilation": None}, ValueError, "replace_stride_with_dilation is None; it must be 3 of"),
        ({"deep_stem": "no"}, ValueError, "deep_stem is 'no'; it must be True or False"),
        ({"avg_down": 1}, ValueError, "avg_down is 1; it must be True or False"),
        ({"deep_stem": True, "width": 7}, ValueError, "width is 7; it must be even in a network with a deep stem"),
        (
            {"fpn_norm_layer": "batch"},
            KeyError,
            "unknown fpn_norm_layer 'batch'; allowed are bn, frozen_bn, gn, sync_bn or a callable",
        ),
        ({"norm_layer": ["bn"]}, KeyError, r"unknown norm_layer \['bn'\]; allowed are bn, frozen_bn, gn, sync_bn or"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message), torch.device("meta"):
        resnet_fpn_backbone("resnet18", **arguments)


def test_it_compiles_and_exports_whole(native):
    network = randomise(
        resnet_fpn_backbone(
            "resnet18d",
            width=8,
            fpn_channels=4,
            in_channels=4,
            fpn_norm_layer="frozen_bn",
            replace_stride_with_dilation=(False, False, True),
        )
    ).eval()
    x = torch.randn(1, 4, 48, 33)
    expected = dict(network(x))
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert_equal(dict(compiled(x)), expected)
    exported = torch.export.export(network, (x,)).module()
    assert_equal(dict(exported(x)), expected)


def test_v1d_is_calibrated():
    """Every norm of the stem, the shortcuts and the pyramid is reached and measured."""
    network = resnet_fpn_backbone("resnet18d", width=8, fpn_channels=4, fpn_norm_layer="frozen_bn").eval()
    images = torch.randn(4, 3, 64, 64)
    norms = [layer for layer in network.modules() if isinstance(layer, FrozenBatchNorm2d)]
    assert calibrate(network, images) == len(norms) == 3 + 16 + 3 + 8
    seen = []
    network.fpn.layer_blocks[0][1].register_forward_hook(lambda module, arguments, output: seen.append(output))
    network(images)
    variance, mean = torch.var_mean(seen[0], dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(variance, torch.ones(4), atol=1e-2, rtol=0)
