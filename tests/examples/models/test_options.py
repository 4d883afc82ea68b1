"""Options: what is allowed, and what JSON and YAML give back."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import yaml
from detection.models.options import COINS, ModelOptions


@pytest.mark.parametrize(
    "through", [lambda it: json.loads(json.dumps(it)), lambda it: yaml.safe_load(yaml.safe_dump(it))]
)
def test_options_are_the_same_through_a_file(through):
    options = replace(
        COINS, category_ids=(7,), keypoint_names=("left", "right"), anchor_ratios=(1.0,), min_size=(96, 128)
    )
    assert ModelOptions.from_dict(through(options.as_dict())) == options
    assert ModelOptions.from_dict(through(ModelOptions().as_dict())) == ModelOptions()


def test_a_file_may_say_less_and_simpler():
    options = ModelOptions.from_dict({"min_size": 400, "anchor_ratios": [1, 2], "kind": "retinanet"})
    assert options == ModelOptions(min_size=(400,), anchor_ratios=(1.0, 2.0), kind="retinanet")
    assert all(isinstance(ratio, float) for ratio in options.anchor_ratios)
    assert ModelOptions.from_dict({}) == ModelOptions()


def test_every_field_has_its_help():
    for field in fields(ModelOptions):
        assert field.metadata["help"], field.name
        assert field.metadata["choices"] is None or field.default in field.metadata["choices"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 0, "width is 0; it must be at least 1"),
        ("width", -3, "width is -3; it must be at least 1"),
        ("width", "64", "width is '64'; it must be an integer"),
        ("width", 8.0, "width is 8.0; it must be an integer"),
        ("width", True, "width is True; it must be an integer"),
        ("fpn_channels", 0, "fpn_channels is 0; it must be at least 1"),
        ("head_channels", 0, "head_channels is 0; it must be at least 1"),
        ("proposals", 0, "proposals is 0; it must be at least 1"),
        ("rois", 0, "rois is 0; it must be at least 1"),
        ("max_size", 0, "max_size is 0; it must be at least 1"),
        ("min_size", (1400,), "min_size is (1400,); it must be one or more integers of 1 to max_size, 1333"),
        ("min_size", (), "min_size is (); it must be one or more integers of 1 to max_size, 1333"),
        ("min_size", 0, "min_size is (0,); it must be one or more integers of 1 to max_size, 1333"),
        ("trainable_layers", 6, "trainable_layers is 6; it must be 0 to 5"),
        ("trainable_layers", -1, "trainable_layers is -1; it must be 0 to 5"),
        ("trainable_layers", "3", "trainable_layers is '3'; it must be an integer"),
        ("kind", "yolo", "kind is 'yolo'; it must be one of maskrcnn, fasterrcnn, keypointrcnn, retinanet"),
        ("norm", "ln", "norm is 'ln'; it must be one of frozen_bn, bn, sync_bn, gn"),
        ("dcn_stages", (True,), "dcn_stages is (True,); it must be 4 of True and False"),
        ("dcn_stages", (0, 1, 1, 1), "dcn_stages is (0, 1, 1, 1); it must be 4 of True and False"),
        ("dcn_stages", 73, "dcn_stages is 73; it must be 4 of True and False"),
        ("anchor_ratios", (), "anchor_ratios is (); it must be one or more numbers above 0"),
        ("anchor_ratios", (1.0, 0), "anchor_ratios is (1.0, 0); it must be one or more numbers above 0"),
        ("anchor_ratios", (float("inf"),), "anchor_ratios is (inf,); it must be one or more numbers above 0"),
        ("anchor_ratios", "0.5", "anchor_ratios is '0.5'; it must be one or more numbers above 0"),
        ("class_names", "coin", "class_names is 'coin'; it must be a list of names"),
        ("class_names", ("a", ""), "class_names[1] is ''; it must be a name"),
        ("class_names", ("a", True), "class_names[1] is True; it must be a name"),
        ("class_names", ("a", "b", "a"), "class_names has 'a' twice; each must be there once"),
        ("keypoint_names", ("a", "a"), "keypoint_names has 'a' twice; each must be there once"),
        (
            "category_ids",
            (1, 2),
            "category_ids has 2 entries; there must be one for each of the 0 class_names, or none",
        ),
        ("category_ids", ("1",), "category_ids is ('1',); it must be integers from 0 on"),
        ("category_ids", 3, "category_ids is 3; it must be integers from 0 on"),
    ],
)
def test_a_wrong_value_is_one_sentence(name, value, message):
    with pytest.raises(ValueError) as caught:
        ModelOptions(**{name: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value", [(16, 32), (32, 64, 128, 256, 512, 1024), (0, 32, 64, 128, 256), (64, 32, 128, 256, 512), 32]
)
def test_five_anchor_sizes_that_do_not_fall(value):
    with pytest.raises(ValueError) as caught:
        ModelOptions(anchor_sizes=value)
    assert str(caught.value) == (
        f"anchor_sizes is {value!r}; it must be 5 integers from 1 on, none less than the one before"
    )


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ValueError, match="^backbone is 'resnet51'; it must be one of resnet18, resnet34, resnet50"):
        ModelOptions(backbone="resnet51")


def test_category_ids_are_of_the_classes():
    assert ModelOptions(class_names=("a", "b"), category_ids=[7, 0]).category_ids == (7, 0)
    with pytest.raises(ValueError, match="^category_ids has 7 twice"):
        ModelOptions(class_names=("a", "b"), category_ids=(7, 7))


@pytest.mark.parametrize(
    ("backbone", "width", "allowed"),
    [("resnext50_32x4d", 8, "at least 16"), ("resnext101_32x8d", 7, "at least 8"), ("resnet18d", 9, "even")],
)
def test_a_width_that_the_backbone_cannot_have(backbone, width, allowed):
    with pytest.raises(ValueError) as caught:
        ModelOptions(backbone=backbone, width=width)
    assert str(caught.value) == f"width is {width}; it must be {allowed} with the backbone {backbone}"


def test_unknown_names():
    with pytest.raises(ValueError, match="^there is no model option smallest_anchor; allowed are anchor_ratios, "):
        ModelOptions.from_dict({"smallest_anchor": 16, "width": 8})
    with pytest.raises(ValueError, match="^the model options are 3; they must be names with values"):
        ModelOptions.from_dict(3)


@pytest.mark.parametrize(
    ("kind", "targets"), [("maskrcnn", "masks"), ("keypointrcnn", "keypoints"), ("retinanet", "boxes")]
)
def test_what_a_kind_needs(kind, targets):
    assert ModelOptions(kind=kind).targets == targets


def test_trained_layers_by_whether_there_are_weights():
    assert ModelOptions().resolved(pretrained=True).trainable_layers == 3
    assert ModelOptions().resolved(pretrained=False).trainable_layers == 5
    assert ModelOptions(trainable_layers=0).resolved(pretrained=True).trainable_layers == 0
