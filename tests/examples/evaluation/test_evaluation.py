"""COCO mask AP, pictures, sampling points."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from detection.data.coco_dataset import CocoInstances
from detection.evaluation.evaluate import evaluate, mask_ap, results_of
from detection.models.build import build_model
from detection.prediction import pictures
from detection.prediction.pictures import last_deformable_layer, sampling_points
from PIL import Image
from torch import nn


def perfect(target):
    return {
        "boxes": target["boxes"],
        "labels": target["labels"],
        "scores": torch.full((len(target["labels"]),), 0.9),
        "masks": target["masks"].float().unsqueeze(1),
    }


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (40, 0.0)])
def test_ap_of_known_detections(coco, shift, expected):
    dataset = CocoInstances(*coco)
    results = []
    for index in range(len(dataset)):
        _, target = dataset[index]
        prediction = perfect(target)
        prediction["masks"] = prediction["masks"].roll(shift, dims=-1)
        results += results_of(target["image_id"], prediction, dataset.category_ids)
    metrics = mask_ap(coco[1], results)
    assert metrics["AP50"] == pytest.approx(expected)
    assert metrics["AP"] == pytest.approx(expected)


def test_ap_of_no_detections_is_0(coco):
    assert mask_ap(coco[1], [])["AP"] == 0


def test_evaluate_runs_the_model(coco):
    """The whole way from a model's output to AP, with a model that knows the answers."""
    dataset = CocoInstances(*coco)

    class Oracle(nn.Module):
        def forward(self, images):
            by_sum = {float(dataset[i][0].sum()): dataset[i][1] for i in range(len(dataset))}
            return [perfect(by_sum[float(image.sum())]) for image in images]

    assert evaluate(Oracle(), dataset, torch.device("cpu"))["AP"] == pytest.approx(1.0)


def test_evaluation_needs_the_annotations(tiny_model):
    class Other:
        def __len__(self):
            return 1

    with pytest.raises(TypeError, match="Other has no attribute annotations"):
        evaluate(nn.Identity(), Other(), torch.device("cpu"))


def test_sampling_points_of_zero_offsets_are_the_kernels_grid(tiny_model):
    model = build_model(tiny_model)
    layer = last_deformable_layer(model, "layer4")
    image = torch.rand(3, 48, 64)
    place = torch.tensor([[31.0, 20.0]])
    (points,) = sampling_points(model, image, layer, place)
    # The layer works at 1/32 of the image: the middle tap is within half of that, the others are 32 pixels apart.
    assert points.shape == (9, 2)
    assert (points[4] - place[0]).abs().max() <= 16.5
    grid = torch.tensor([[dx, dy] for dy in (-32.0, 0.0, 32.0) for dx in (-32.0, 0.0, 32.0)])
    torch.testing.assert_close(points - points[4], grid)
    with torch.no_grad():
        layer.offset.bias[8] = 0.5  # dy of the middle tap
    (moved,) = sampling_points(model, image, layer, place)
    torch.testing.assert_close(moved[4] - points[4], torch.tensor([0.0, 16.0]))


def test_pictures_show_something(coco, tiny_model, tmp_path):
    image, target = CocoInstances(*coco)[0]
    prediction = pictures.confident(perfect(target), 0.5)
    pictures.draw_detections(tmp_path / "a" / "one.png", image, prediction, tiny_model.class_names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = pictures.confident(perfect(target), threshold=2)
        pictures.draw_detections(tmp_path / "none.png", image, nothing, tiny_model.class_names)
    model = build_model(tiny_model)
    pictures.draw_comparison(tmp_path / "b.png", image, target, prediction, tiny_model.class_names, model, "title")
    for path in (tmp_path / "a" / "one.png", tmp_path / "b.png"):
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert pixels.shape[0] > 300
        # The mask's blue lies somewhere over the grey picture.
        assert ((pixels[..., 2] - pixels[..., 0]) > 40).sum() > 1000
    assert json.dumps(tiny_model.as_dict())
