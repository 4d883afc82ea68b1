"""What load_weights refuses, without a change to the model, and what strict=False leaves out."""

from __future__ import annotations

import pytest
import torch
from helpers.loading import assert_refused, assert_same_state
from helpers.networks import (
    narrow_fpn,
    randomise,
)
from torch import nn
from torch.nn.utils import parametrizations, prune

from resnet_cuda import load_weights, optimize_for_inference, resnet_fpn_backbone
from resnet_cuda.weights.convert import convert


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("body.layer4.1.bn2.weight"), "missing: body.layer4.1.bn2.weight"),
        (lambda state: state.pop("fpn.layer_blocks.3.0.bias"), "missing: fpn.layer_blocks.3.0.bias"),
        (
            lambda state: state.update({"body.layer1.0.se.weight": torch.zeros(2)}),
            "unexpected: body.layer1.0.se.weight",
        ),
        (
            lambda state: state.update({"body.layer1.7.conv1.weight": torch.zeros(8, 8, 3, 3)}),
            "unexpected: body.layer1.7",
        ),
        (
            lambda state: state.update({"body.conv1.weight": torch.zeros(8, 3, 5, 5)}),
            r"of another shape: body.conv1.weight \(8, 3, 5, 5\) for body.conv1.weight \(8, 3, 7, 7\)",
        ),
        (
            lambda state: state.update({"body.conv1.weight": torch.zeros(8, 2, 7, 7)}),
            "of another shape: body.conv1.weight",
        ),
        (lambda state: state["body.bn1.bias"].fill_(float("nan")), "NaN or infinite values: body.bn1.bias"),
        (lambda state: state["body.bn1.bias"].fill_(float("inf")), "NaN or infinite values: body.bn1.bias"),
        (lambda state: state["body.bn1.running_var"].fill_(-1), "negative variances: body.bn1.running_var"),
        (lambda state: state.update({"body.bn1.bias": torch.zeros(8, dtype=torch.int64)}), "of int64: body.bn1.bias"),
        (
            lambda state: state.update({"body.bn1.bias": torch.zeros(8, dtype=torch.complex64)}),
            "real numbers: body.bn1.bias",
        ),
        (lambda state: state.update({"body.bn1.bias": torch.zeros(8).to_sparse()}), "not a dense tensor"),
        (lambda state: state.update({"body.bn1.bias": torch.zeros(8, device="meta")}), "meta device: body.bn1.bias"),
        (
            lambda state: [state.update({f"twin.{key}": value}) for key, value in list(state.items())],
            "there are 2 of a",
        ),
    ],
)
def test_wrong_weights_are_named_and_change_nothing(change, message):
    state = {key: value.clone() for key, value in randomise(narrow_fpn()).state_dict().items()}
    change(state)
    assert_refused(narrow_fpn(), state, message)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no tensors found"),
        ({"model": {}}, "no tensors found; its entries: model"),
        ({"epoch": 3, "name": "x"}, "no tensors found; its entries: epoch, name"),
        ({"features.0.weight": torch.zeros(3)}, "no key is one of a ResNet backbone .* first keys: features.0.weight"),
    ],
)
def test_what_is_no_backbone_is_said(weights, message):
    assert_refused(narrow_fpn(), weights, message)


def test_group_norms_are_not_batch_norms():
    gn, bn = narrow_fpn(norm_layer="gn"), narrow_fpn()
    assert_refused(bn, gn.state_dict(), "missing: body.bn1.weight")
    assert_refused(gn, bn.state_dict(), "missing: body.bn1.weight")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "resnet50"}, TypeError, "model is str; it must be a torch.nn.Module"),
        ({"strict": "yes"}, ValueError, "strict is 'yes'; it must be True or False"),
        ({"eps": -1}, ValueError, "eps is -1; it must be None or a number from 0"),
        ({"eps": True}, ValueError, "eps is True; it must be None or a number"),
        ({"pixels": "rgb"}, ValueError, "pixels is 'rgb'; it must be one of torchvision"),
        ({"compensate_mask": 1}, ValueError, "compensate_mask is 1; it must be True or False"),
        ({"source": 5}, TypeError, "source is 5; it must be a path, a state dict"),
        ({"model": nn.Linear(2, 2)}, ValueError, "model is a Linear: no key is one of a ResNet"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        load_weights(**{"model": narrow_fpn(), "source": narrow_fpn().state_dict(), **arguments})


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm_layer": "gn"}, {"dcn_stages": (False, True, True, True)}])
def test_folded_norms_and_norms_are_not_mixed(options, strict):
    model = narrow_fpn(**options)
    optimized = optimize_for_inference(narrow_fpn())
    before = {key: value.clone() for key, value in optimized.state_dict().items()}
    with pytest.raises(ValueError, match=r"has norms, the model has them folded .* then optimize again"):
        load_weights(optimized, model, strict=strict)
    assert all(torch.equal(value, before[key]) for key, value in optimized.state_dict().items())
    with pytest.raises(ValueError, match=r"has its norms folded .* load the weights of the model that was optimized"):
        load_weights(model, optimized.state_dict(), strict=strict)
    load_weights(optimize_for_inference(narrow_fpn()), optimized)


def test_models_on_the_meta_device_are_refused():
    with torch.device("meta"):
        model = narrow_fpn()
    problem = "without data, on the meta device: body.conv1.weight"
    with pytest.raises(ValueError, match=rf"{problem}.*The model has no memory: .* to_empty\(device=\.\.\.\)"):
        load_weights(model, narrow_fpn().state_dict())
    with pytest.raises(ValueError, match=f"{problem}.*The source has no values"):
        load_weights(narrow_fpn(), model.state_dict())


def test_a_write_that_fails_is_undone(monkeypatch):
    network, model = randomise(narrow_fpn()), narrow_fpn()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = model.state_dict()
    broken = state["fpn.layer_blocks.1.0.weight"]
    copy = torch.Tensor.copy_

    def fails(self, value, *arguments):
        if self.data_ptr() == broken.data_ptr() and torch.equal(value, network.fpn.layer_blocks[1][0].weight):
            raise RuntimeError("out of memory")
        return copy(self, value, *arguments)

    monkeypatch.setattr(torch.Tensor, "copy_", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        load_weights(model, network)
    monkeypatch.undo()
    assert_same_state(model, before)


def test_without_strict_what_fits_is_loaded_and_the_rest_reported():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = dict(network.state_dict())
    del state["body.layer4.1.bn2.weight"]
    state["body.layer1.0.se.weight"] = torch.zeros(2)
    state["fpn.inner_blocks.0.0.bias"] = torch.zeros(5)
    report = load_weights(model, state, strict=False)
    assert report.missing == ["fpn.inner_blocks.0.0.bias", "body.layer4.1.bn2.weight"]
    assert report.unexpected == ["fpn.inner_blocks.0.0.bias", "body.layer1.0.se.weight"]
    after = model.state_dict()
    for key in report.missing:
        assert torch.equal(after[key], before[key])
    assert torch.equal(after["body.conv1.weight"], state["body.conv1.weight"])


def test_parts_that_the_source_does_not_have_stay_and_are_reported():
    network, model = randomise(narrow_fpn()), randomise(narrow_fpn(), seed=9)
    pyramid = {key: value.clone() for key, value in model.fpn.state_dict().items()}
    report = load_weights(model, network.body.state_dict())
    assert_same_state(model.fpn, pyramid)
    assert all(key.startswith("fpn.") for key in report.missing)
    assert "the source has no pyramid; the model's stays as it is" in report.notes


# Hints


@pytest.mark.parametrize(
    ("model", "source", "hint"),
    [
        ({}, {"backbone_name": "resnet34"}, r"stages of 3, 4, 6, 3 blocks, the model of 2, 2, 2, 2"),
        ({"backbone_name": "resnet50"}, {"backbone_name": "resnet34"}, "bottlenecks, the other basic blocks"),
        ({}, {"backbone_name": "resnet18d"}, "source has a deep stem, the model not .deep_stem="),
        ({"backbone_name": "resnet18d"}, {}, "model has a deep stem, the source not"),
        ({}, {"norm_layer": "gn"}, 'source has group norms in the body, the model not .norm_layer="gn"'),
        ({}, {"fpn_norm_layer": "bn"}, "source has norms in the pyramid, the model not .fpn_norm_layer="),
        ({}, {"dcn_stages": (False, False, False, True)}, "source has deformable layers, the model not .dcn_stages="),
        (
            {"dcn_stages": (False, False, False, True), "deformable_groups": 2},
            {"dcn_stages": (False, False, False, True)},
            "modulated= or deformable_groups= differ",
        ),
    ],
)
def test_hints_say_why(model, source, hint):
    def build(backbone_name="resnet18", **options):
        return resnet_fpn_backbone(backbone_name, width=8, fpn_channels=8, **options)

    assert_refused(build(**model), build(**source).state_dict(), hint)


def test_both_pyramids_are_refused():
    twice = nn.Module()
    twice.backbone = narrow_fpn()
    twice.fpn2 = narrow_fpn().fpn
    assert_refused(narrow_fpn(), twice.state_dict(), "there are 2 of a pyramid with torchvision's names")
    assert_refused(twice, narrow_fpn().state_dict(), "there are 2 of a pyramid with torchvision's names")


def test_tied_tensors_take_one_value_and_are_restored():
    model = narrow_fpn()
    model.fpn.layer_blocks[1] = model.fpn.layer_blocks[0]
    load_weights(model, narrow_fpn().body.state_dict())
    assert_refused(
        model, randomise(narrow_fpn(), 3).state_dict(), "are one tensor in the model and differ in the source"
    )


def _pruned(layer):
    prune.l1_unstructured(layer, "weight", 0.3)


OTHER_TENSORS = {  # what computes a weight from other tensors, and what undoes it
    "pruned": (_pruned, r"prune\.remove\(layer, 'weight'\)"),
    "parametrized": (parametrizations.weight_norm, r"parametrize\.remove_parametrizations\(layer, 'weight'\)"),
    "parametrized ": (parametrizations.spectral_norm, r"parametrize\.remove_parametrizations\(layer, 'weight'\)"),
    "weight-normalised": (nn.utils.weight_norm, r"remove_weight_norm\(layer, 'weight'\)"),
    "spectrally normalised": (nn.utils.spectral_norm, r"remove_spectral_norm\(layer, 'weight'\)"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv1", "layer2.1.conv2"])
@pytest.mark.parametrize("what", OTHER_TENSORS)
def test_weights_that_are_computed_from_others_are_told_what_to_do(what, layer):
    change, remedy = OTHER_TENSORS[what]
    other = narrow_fpn()
    change(other.body.get_submodule(layer))
    source = other.state_dict()
    model = narrow_fpn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"source is of a {what.strip()} model .*{remedy}") as caught:
        load_weights(model, source)
    assert "depth" not in str(caught.value)
    assert_same_state(model, before)
    with pytest.raises(ValueError, match=rf"model is {what.strip()} .*{remedy}") as caught:
        load_weights(other, before)
    assert "depth" not in str(caught.value)
    with pytest.raises(ValueError, match=remedy):
        convert(source, "detectron2")


def test_a_model_all_of_whose_convolutions_are_pruned():
    other = narrow_fpn()
    for layer in other.modules():
        if isinstance(layer, nn.Conv2d):
            _pruned(layer)
    with pytest.raises(ValueError, match=r"no key is one of a ResNet backbone.*call torch\.nn\.utils\.prune\.remove"):
        load_weights(narrow_fpn(), other.state_dict())


def test_another_depth_is_told_of_a_pruned_network_too():
    other = resnet_fpn_backbone("resnet50", width=8, fpn_channels=16)
    _pruned(other.body.layer1[0].conv3)
    with pytest.raises(ValueError, match=r"of a pruned model .*networks of another depth"):
        load_weights(resnet_fpn_backbone("resnet34", width=8, fpn_channels=16), other.state_dict())
