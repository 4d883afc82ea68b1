"""Options of small models, and torchvision's detectors with random weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))
sys.path.insert(0, str(Path(__file__).parent))  # pretrained_support.py

OFF = (False, False, False, False)


@pytest.fixture
def narrow():
    """Of a kind: options of a model that is built and trained in well under a second."""
    from detection.models.options import ModelOptions

    def options(kind="maskrcnn", **changes):
        small = ModelOptions(
            kind=kind,
            class_names=("bar", "square"),
            keypoint_names=("left", "right", "top") if kind == "keypointrcnn" else (),
            backbone="resnet18",
            width=8,
            fpn_channels=8,
            head_channels=8,
            anchor_sizes=(8, 16, 32, 64, 128),
            min_size=(64,),
            max_size=96,
            proposals=20,
            rois=16,
            dcn_stages=(False, False, False, True),
        )
        return replace(small, **changes)

    return options


@pytest.fixture
def sample():
    """An image with two objects, with everything that any kind of detector asks for."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 48, 64, dtype=torch.uint8)
    masks[0, 5:25, 6:30] = 1
    masks[1, 20:44, 34:60] = 1
    target = {
        "boxes": torch.tensor([[6.0, 5.0, 30.0, 25.0], [34.0, 20.0, 60.0, 44.0]]),
        "labels": torch.tensor([1, 2]),
        "masks": masks,
        "keypoints": torch.tensor([[[10.0, 10.0, 2.0]] * 3, [[40.0, 30.0, 1.0]] * 3]),
    }
    return torch.rand(3, 48, 64, generator=generator), target


@pytest.fixture
def plain():
    """Of a kind: the options of torchvision's detector on ResNet-50, at a size that is quick."""
    from detection.models.options import ModelOptions

    def options(kind="maskrcnn", classes=3, **changes):
        return ModelOptions(
            kind=kind,
            class_names=tuple(f"class {number}" for number in range(1, classes + 1)),
            keypoint_names=tuple(f"point {number}" for number in range(1, 5)) if kind == "keypointrcnn" else (),
            dcn_stages=changes.pop("dcn_stages", OFF),
            min_size=(64,),
            max_size=96,
            **changes,
        )

    return options


@pytest.fixture(scope="module")
def theirs():
    """Of a kind: torchvision's own detector in eval mode, for the classes of ``plain``, which finds something."""
    from helpers.networks import randomise
    from torchvision.models import detection

    @cache
    def build(kind="maskrcnn", classes=3, eps=1e-5):
        torch.manual_seed(1)
        model = getattr(detection, f"{kind}_resnet50_fpn")(
            weights=None,
            weights_backbone=None,
            num_classes=classes + 1,
            min_size=64,
            max_size=96,
            **({"num_keypoints": 4} if kind == "keypointrcnn" else {}),
        )
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = eps
        return find_all(randomise(model).eval())

    return build


def find_all(model):
    """``model`` with everything above no threshold at all; random weights find nothing else."""
    part = getattr(model, "roi_heads", model)
    part.score_thresh, part.detections_per_img = 0.0, 5
    return model


@pytest.fixture
def assert_same_outputs():
    def compare(ours, model):
        images = [torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(2))]
        with torch.no_grad():
            expected, found = model(images)[0], find_all(ours.eval())(images)[0]
        assert len(expected["boxes"])
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-4 if name == "boxes" else 1e-5)

    return compare
