"""Names in which wrappers of a whole network or of parts of it stand: torch.compile, checkpointing, FSDP, DDP."""

from __future__ import annotations

import pytest
import torch
from helpers.loading import assert_refused, assert_same_state
from helpers.networks import narrow_fpn, randomise, torchvision_style
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from resnet_cuda import load_weights
from resnet_cuda.weights.convert import convert

WRAPPERS = ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"]
PLACES = ["", "body", "body.layer1", "body.layer2.0", "body.layer3.1.conv1", "fpn", "fpn.inner_blocks"]


def wrapped(state, place, *names):
    """``state`` with these names after ``place``."""
    prefix = f"{place}." if place else ""
    inner = "".join(f"{name}." for name in names)
    return {
        f"{prefix}{inner}{key.removeprefix(prefix)}" if key.startswith(prefix) else key: value
        for key, value in state.items()
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("names", [*([it] for it in WRAPPERS), WRAPPERS, ["_orig_mod", "_orig_mod"]])
def test_sources_with_wrapped_parts(place, names):
    state = randomise(narrow_fpn()).state_dict()
    given = wrapped(state, place, *names)
    assert given.keys() != state.keys()
    model = narrow_fpn()
    report = load_weights(model, given)
    assert_same_state(model, state)
    assert not report.missing
    assert not report.unexpected
    converted = convert(given, "detectron2").weights
    assert converted.keys() == convert(state, "detectron2").weights.keys()


def test_several_parts_at_once_behind_prefixes():
    state = randomise(narrow_fpn()).state_dict()
    given = wrapped(state, "body.layer1", "_orig_mod")
    given = wrapped(given, "body.layer4.0", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
    given = {f"_orig_mod.module._orig_mod.{key}": value for key, value in given.items()}
    model = narrow_fpn()
    load_weights(model, given)
    assert_same_state(model, state)


@pytest.mark.parametrize("wrap", [torch.compile, checkpoint_wrapper])
@pytest.mark.parametrize("place", PLACES[1:])
def test_models_with_wrapped_parts(wrap, place):
    state = randomise(narrow_fpn()).state_dict()
    model = narrow_fpn()
    parent, _, leaf = place.rpartition(".")
    setattr(model.get_submodule(parent), leaf, wrap(model.get_submodule(place)))
    report = load_weights(model, state)
    assert not report.missing
    for got, expected in zip(model.state_dict().values(), state.values(), strict=True):
        assert torch.equal(got, expected)
    load_weights(again := narrow_fpn(), model)
    assert_same_state(again, state)


@pytest.mark.parametrize("wrap", [torch.compile, checkpoint_wrapper])
def test_the_epsilon_of_a_wrapped_norm_is_its_own(wrap):
    """torchvision's layer has another epsilon here than the format."""
    network, model = randomise(torchvision_style(dcn=False)), torchvision_style(dcn=False)
    for layer in network.modules():
        if hasattr(layer, "running_var"):
            layer.eps = 1e-2
    state = network.state_dict()
    model.body.layer1 = wrap(model.body.layer1)
    load_weights(model, state, eps=1e-2)
    plain = torchvision_style(dcn=False)
    load_weights(plain, state, eps=1e-2)
    for got, expected in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(got, expected)
    network.body.layer1 = wrap(network.body.layer1)
    load_weights(other := torchvision_style(dcn=False), network)
    assert_same_state(other, plain.state_dict())


def test_two_keys_that_become_one_are_refused():
    state = dict(randomise(narrow_fpn()).state_dict())
    state["body._orig_mod.layer1.0.conv1.weight"] = state["body.layer1.0.conv1.weight"].clone()
    message = (
        r"body\.layer1\.0\.conv1\.weight and body\._orig_mod\.layer1\.0\.conv1\.weight differ only in what a wrapper "
        r"adds to names: module, _orig_mod"
    )
    assert_refused(narrow_fpn(), state, message)
    with pytest.raises(ValueError, match=message):
        convert(state, "detectron2")


def test_names_that_only_contain_a_wrappers_are_names():
    state = dict(randomise(narrow_fpn()).state_dict())
    state["body.layer1.0.my_orig_mod.weight"] = torch.zeros(2)
    state["body.layer1.0.se._orig_mod"] = torch.zeros(2)
    refused = r"unexpected: body\.layer1\.0\.my_orig_mod\.weight, body\.layer1\.0\.se\._orig_mod"
    assert_refused(narrow_fpn(), state, refused)


def test_heads_that_are_compiled():
    """A detector's part behind a wrapper is still matched by its key."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = narrow_fpn()
            self.rpn_head = nn.Sequential(nn.Conv2d(8, 8, 3))

    network, model = Detector(), Detector()
    state = {key: value.clone() for key, value in randomise(network).state_dict().items()}
    model.rpn_head = torch.compile(model.rpn_head)
    report = load_weights(model, state)
    assert "rpn_head._orig_mod.0.weight" in report.loaded
    assert torch.equal(model.rpn_head.get_parameter("0.weight"), state["rpn_head.0.weight"])


@pytest.mark.parametrize("wrap", [torch.compile, checkpoint_wrapper])
@pytest.mark.parametrize("place", ["fpn.inner_blocks.0", "fpn.inner_blocks.0.0"])
def test_the_relu_of_a_wrapped_pyramid_is_seen(wrap, place):
    """A ReLU behind the convolutions of one pyramid alone is warned of, wrapped or not."""
    network, model = randomise(narrow_fpn()), narrow_fpn()
    for block in (network.fpn.inner_blocks[0], model.fpn.inner_blocks[0]):
        block.append(nn.ReLU())
    parent, _, leaf = place.rpartition(".")
    setattr(model.get_submodule(parent), leaf, wrap(model.get_submodule(place)))
    assert not [note for note in load_weights(model, network).notes if "ReLU" in note]


@pytest.mark.parametrize("wrap", [torch.compile, checkpoint_wrapper])
def test_a_wrapped_modulated_layer_gets_its_doubled_weight(wrap):
    model = narrow_fpn(dcn_stages=(False, False, False, True))
    plain = randomise(narrow_fpn())
    block = model.body.layer4[0]
    block.conv2 = wrap(block.conv2)
    report = load_weights(model, plain)
    assert any("2 modulated layers" in note for note in report.notes)
    loaded = [value for key, value in model.state_dict().items() if key.startswith("body.layer4.0.conv2.")]
    assert any(torch.equal(value, plain.body.layer4[0].conv2.weight * 2) for value in loaded)
