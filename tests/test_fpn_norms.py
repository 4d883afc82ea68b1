"""torchvision's pyramid: norms in it, and the keys of its older files."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from helpers.networks import gradients, levels_of, narrow_fpn, randomise
from torch import nn

from resnet_cuda import resnet_fpn_backbone
from resnet_cuda.fpn import FeaturePyramidNetwork
from resnet_cuda.layers import FrozenBatchNorm2d

NORMS = {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d, "sync_bn": nn.SyncBatchNorm, "gn": nn.GroupNorm}


@pytest.mark.parametrize("name", NORMS)
def test_every_convolution_has_a_norm(name):
    network = narrow_fpn(fpn_norm_layer=name)
    for blocks in (network.fpn.inner_blocks, network.fpn.layer_blocks):
        assert len(blocks) == 4
        for block in blocks:
            assert [type(part) for part in block] == [type(block[0]), NORMS[name]]
            assert block[0].bias is None
    assert all(parameter.requires_grad for parameter in network.fpn.parameters())


def test_a_callable_makes_the_norms():
    network = narrow_fpn(fpn_norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=1e-3))
    assert {it.eps for it in network.fpn.modules() if isinstance(it, nn.BatchNorm2d)} == {1e-3}


def test_keys_and_order_are_those_of_torchvisions_v2():
    detection = pytest.importorskip("torchvision.models.detection", reason="compares with torchvision")
    with torch.device("meta"):
        theirs = detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).backbone
        ours = resnet_fpn_backbone("resnet50", norm_layer="bn", fpn_norm_layer="bn", trainable_layers=5)
    shapes = [[(key, tuple(value.shape)) for key, value in it.state_dict().items()] for it in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]


@pytest.mark.parametrize(("ours_norm", "training"), [("bn", False), ("bn", True), ("frozen_bn", False)])
def test_values_and_gradients_equal_torchvisions(training, ours_norm, backend):
    utils = pytest.importorskip("torchvision.models.detection.backbone_utils", reason="compares with torchvision")
    models = pytest.importorskip("torchvision.models")
    theirs = randomise(utils._resnet_fpn_extractor(models.resnet18(), 5, norm_layer=nn.BatchNorm2d))
    theirs = theirs.double().train(training)
    ours = resnet_fpn_backbone("resnet18", norm_layer=ours_norm, fpn_norm_layer=ours_norm, trainable_layers=5)
    ours = ours.double().train(training)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 65, 50, dtype=torch.float64)
    found = []
    for network in (ours, theirs):
        levels = network(x)
        sum(level.square().mean() for level in levels_of(levels)).backward()
        found.append((dict(levels), gradients(network)))
    assert list(found[0][0]) == ["0", "1", "2", "3", "pool"]
    torch.testing.assert_close(found[0][0], found[1][0])
    names = found[0][1].keys()
    assert any(name.startswith("fpn.layer_blocks.3.0") for name in names)
    torch.testing.assert_close(found[0][1], {name: found[1][1][name] for name in names})
    if training:
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value)


def test_a_hook_in_the_pyramid_sees_the_convolutions_result(backend):
    """The frozen norm behind it is in place where nobody looks."""
    network = randomise(narrow_fpn(fpn_norm_layer="frozen_bn")).eval()
    x, kept = torch.randn(1, 3, 64, 64), {}
    expected = network(x)
    for name in ("fpn.inner_blocks.1.0", "fpn.inner_blocks.1.1", "fpn.inner_blocks.1", "fpn.layer_blocks.1.0"):
        network.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: kept.__setitem__(name, (arguments[0].clone(), output))
        )
    torch.testing.assert_close(dict(network(x)), dict(expected))
    assert len(kept) == 4
    for name in ("fpn.inner_blocks.1.0", "fpn.layer_blocks.1.0"):
        conv, (given, result) = network.get_submodule(name), kept[name]
        torch.testing.assert_close(result, nn.functional.conv2d(given, conv.weight, None, 1, conv.padding))
    given, result = kept["fpn.inner_blocks.1.1"]
    assert not torch.allclose(given, result)
    torch.testing.assert_close(kept["fpn.inner_blocks.1"][1], result)


# Files from before torchvision 0.13


def old_key(key):
    """Without .0, as in the published file of maskrcnn_resnet50_fpn."""
    parts = key.split(".")
    for name in ("inner_blocks", "layer_blocks"):
        if name in parts:
            at = parts.index(name)
            assert parts[at + 2] == "0"
            return ".".join(parts[: at + 2] + parts[at + 3 :])
    return key


class Around(nn.Module):
    """A detector around it."""

    def __init__(self, network):
        super().__init__()
        self.module = nn.ModuleDict({"backbone": network})


@pytest.mark.parametrize("wrap", [lambda it: it.fpn, lambda it: it, Around], ids=["fpn", "backbone", "detector"])
@pytest.mark.parametrize("metadata", [False, True])
def test_old_keys_load_under_any_prefix(wrap, metadata):
    source, target = wrap(narrow_fpn()), wrap(narrow_fpn())
    state = OrderedDict((old_key(key), value) for key, value in source.state_dict().items())
    if metadata:
        state._metadata = source.state_dict()._metadata
    assert not any("_blocks.0.0." in key for key in state)
    given = list(state)
    target.load_state_dict(state)
    assert list(state) == given
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_torchvision_loads_ours_and_both_load_old_ones_alike():
    pyramids = pytest.importorskip("torchvision.ops", reason="compares with torchvision")
    ours, theirs = FeaturePyramidNetwork([3, 4], 5), pyramids.FeaturePyramidNetwork([3, 4], 5)
    theirs.load_state_dict(ours.state_dict())
    assert ours.state_dict()._metadata[""] == theirs.state_dict()._metadata[""] == {"version": 2}
    state = {old_key(key): value for key, value in FeaturePyramidNetwork([3, 4], 5).state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def problems(module, state):
    result = module.load_state_dict(state, strict=False)
    return sorted(result.missing_keys), sorted(result.unexpected_keys)


def test_what_is_wrong_is_still_reported():
    fpn = FeaturePyramidNetwork([3, 4], 5)
    new = fpn.state_dict()
    state = {old_key(key): value for key, value in new.items()}
    both = {**new, "inner_blocks.1.weight": torch.zeros(5, 4, 1, 1)}
    assert problems(fpn, both) == ([], ["inner_blocks.1.weight"])
    assert torch.equal(fpn.state_dict()["inner_blocks.1.0.weight"], new["inner_blocks.1.0.weight"])
    assert problems(fpn, {k: v for k, v in state.items() if k != "inner_blocks.0.bias"}) == (
        ["inner_blocks.0.0.bias"],
        [],
    )
    assert problems(fpn, {**state, "inner_blocks.2.weight": torch.zeros(1)}) == ([], ["inner_blocks.2.weight"])
    with pytest.raises(RuntimeError, match=r"size mismatch for layer_blocks.0.0.weight"):
        fpn.load_state_dict({**state, "layer_blocks.0.weight": torch.zeros(1)})
    normed = FeaturePyramidNetwork([3], 5, norm_layer=nn.BatchNorm2d)
    missing, unexpected = problems(normed, {k: v for k, v in state.items() if ".0." in k})
    assert unexpected == ["inner_blocks.0.0.bias", "layer_blocks.0.0.bias"]
    assert "inner_blocks.0.1.weight" in missing
