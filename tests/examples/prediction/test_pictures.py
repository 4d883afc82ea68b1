"""What the pictures show, at any size and for any kind of detector."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from detection.models.build import build_model
from detection.prediction import pictures
from detection.prediction.comparison import matching_numbers
from detection.prediction.detections import with_objects
from detection.prediction.frame import Frame
from detection.prediction.palette import object_colour
from detection.prediction.pictures import last_deformable_layer, sampling_points
from detection.prediction.skeleton import COCO_KEYPOINTS
from PIL import Image

from resnet_cuda.sampling import deformable_layers

NAMES = ("bar", "square")


def grey(height, width):
    return torch.full((3, height, width), 0.5)


def found(height, width, masks=True, count=2):
    """Rectangles beside each other, of which the masks are the left half."""
    boxes = torch.tensor(
        [[(0.05 + 0.5 * it) * width, 0.3 * height, (0.45 + 0.5 * it) * width, 0.8 * height] for it in range(count)]
    )
    prediction = {"boxes": boxes, "labels": torch.arange(count) % 2 + 1, "scores": torch.linspace(0.9, 0.6, count)}
    if masks:
        prediction["masks"] = torch.zeros(count, 1, height, width)
        for number, (x1, y1, x2, y2) in enumerate(boxes.round().int().tolist()):
            prediction["masks"][number, 0, y1 : max(y2, y1 + 1), x1 : max((x1 + x2) // 2, x1 + 1)] = 1
    return prediction


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share(pixels, colour):
    return (pixels == colour).all(axis=-1).mean()


@pytest.mark.parametrize(
    ("height", "width"), [(20, 30), (480, 640), (800, 600), (1200, 1900), (100, 3000), (3000, 100), (1, 3000), (5, 4)]
)
@pytest.mark.parametrize("masks", [True, False])
def test_detections_at_any_size(tmp_path, height, width, masks):
    path = tmp_path / "folder" / "picture.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures.draw_detections(path, grey(height, width), found(height, width, masks), NAMES)
    pixels = pixels_of(path)
    assert 640 <= max(pixels.shape) <= 1600
    for number in range(2):
        assert share(pixels, object_colour(number)) > 5e-4


def test_a_very_large_image(tmp_path):
    prediction = found(4000, 6000)
    prediction["masks"] = prediction["masks"].bool()  # 48 MB
    pictures.draw_detections(tmp_path / "a.png", grey(4000, 6000), prediction, NAMES)
    assert pixels_of(tmp_path / "a.png").shape == (1067, 1600, 3)


def test_one_colour_for_mask_box_and_label():
    image, prediction = grey(400, 800), found(400, 800)
    picture = with_objects(image, prediction, ["one", "two"]).astype(int)
    for number, (x1, y1, x2, y2) in enumerate(prediction["boxes"].round().int().tolist()):
        colour = np.array(object_colour(number))
        assert (picture[(y1 + y2) // 2, x2 - 1] == colour).all()  # the box's right side
        label = picture[y1 - 12 : y1 - 1, x1 : x1 + 30].reshape(-1, 3)
        assert share(label, colour) > 0.3
        inside = picture[(y1 + y2) // 2, x1 + (x2 - x1) // 4]  # of the mask: its colour over grey
        np.testing.assert_allclose(inside, 0.4 * colour + 0.6 * 128, atol=2)
        assert (picture[(y1 + y2) // 2, x1 + 3 * (x2 - x1) // 4] == 128).all()  # in the box, off the mask


def test_nothing_detected(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = pictures.confident(found(40, 60), threshold=2)
        pictures.draw_detections(tmp_path / "none.png", grey(40, 60), nothing, NAMES)
    assert len(nothing["boxes"]) == 0
    assert np.unique(pixels_of(tmp_path / "none.png")).tolist() == [128]


def test_keypoints_and_their_skeleton(tmp_path):
    prediction = found(400, 400, masks=False, count=1)
    prediction["keypoints"] = torch.stack([torch.rand(1, 17) * 350, torch.rand(1, 17) * 350, torch.ones(1, 17)], dim=-1)
    prediction["keypoints"][0, 0] = torch.tensor([390.0, 390.0, 1.0])
    prediction["keypoints"][0, 1] = torch.tensor([10.0, 390.0, 0.0])  # not visible
    shares = {}
    for name, keypoints in (("coco", COCO_KEYPOINTS), ("other", tuple("abcdefghijklmnopq"))):
        picture = with_objects(grey(400, 400), prediction, keypoint_names=keypoints)
        assert (picture[780, 780] == object_colour(0)).all()
        assert (picture[780, 20] == 128).all()
        shares[name] = share(picture, object_colour(0))
    assert shares["coco"] > 1.3 * shares["other"]


def test_a_true_object_and_its_detection_have_one_colour():
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    detected = torch.tensor([[41.0, 0, 51, 10], [70, 0, 80, 10], [0, 0, 10, 11], [0, 0, 10, 9], [20, 0, 30, 10]])
    assert matching_numbers(truth, detected) == [2, 3, 0, 4, 1]
    assert matching_numbers(truth[:0], detected[:2]) == [0, 1]
    assert matching_numbers(truth, detected[:0]) == []


@pytest.mark.parametrize(("height", "width"), [(48, 160), (64, 64), (160, 48)])
@pytest.mark.parametrize("masks", [True, False])
def test_comparison(tmp_path, tiny_model, height, width, masks):
    image, prediction = grey(height, width), found(height, width, masks)
    target = {name: value for name, value in prediction.items() if name != "scores"}
    if masks:
        target["masks"] = (target["masks"][:, 0] > 0.5).to(torch.uint8)
    model = build_model(tiny_model)
    sizes = []
    for name, network in (("with", model), ("without", torch.nn.Conv2d(3, 3, 1))):
        pictures.draw_comparison(tmp_path / f"{name}.png", image, target, prediction, NAMES, network, "a title")
        pixels = pixels_of(tmp_path / f"{name}.png")
        assert min(pixels.shape[:2]) > 300 and max(pixels.shape[:2]) < 2200
        assert share(pixels, object_colour(0)) > 1e-3
        sizes.append(pixels.shape[0] * pixels.shape[1])
    assert sizes[1] <= sizes[0]
    nothing = pictures.confident(prediction, 2)
    pictures.draw_comparison(tmp_path / "none.png", image, target, nothing, NAMES, model, "a title")


def test_sampling_points_of_zero_offsets_are_the_kernels_grid(tiny_model):
    model = build_model(tiny_model)
    layer = last_deformable_layer(model, "layer4")
    image = torch.rand(3, 48, 64)
    place = torch.tensor([[31.0, 20.0]])
    ((points,),) = sampling_points(model, image, layer, place).points
    # The layer works at 1/32 of the image: the middle tap is within half of that, the others are 32 pixels apart.
    assert points.shape == (9, 2)
    assert (points[4] - place[0]).abs().max() <= 16.5
    steps = torch.tensor([[dx, dy] for dy in (-32.0, 0.0, 32.0) for dx in (-32.0, 0.0, 32.0)])
    torch.testing.assert_close(points - points[4], steps)
    with torch.no_grad():
        layer.offset.bias[8] = 0.5  # dy of the middle tap
    ((moved,),) = sampling_points(model, image, layer, place).points
    torch.testing.assert_close(moved[4] - points[4], torch.tensor([0.0, 16.0]))


@pytest.mark.parametrize(("height", "width"), [(48, 160), (64, 64), (160, 48), (60, 1)])
def test_sampling_picture(tmp_path, tiny_model, height, width):
    """The arrows go to the moved taps, and the heat map is where they are."""
    model = build_model(tiny_model)
    name = next(iter(deformable_layers(model)))
    image = grey(height, width)
    prediction = found(height, width)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures.draw_sampling(tmp_path / "a.png", image, model, name, pictures.places_of(prediction, image))
        pictures.draw_sampling(tmp_path / "b.png", image, model, name, torch.zeros(0, 2))
    with torch.no_grad():
        dict(deformable_layers(model))[name].offset.bias[:2] = torch.tensor([0.4, 0.9])
    pictures.draw_sampling(tmp_path / "c.png", image, model, name, pictures.places_of(prediction, image))
    still, moved = pixels_of(tmp_path / "a.png"), pixels_of(tmp_path / "c.png")
    assert max(still.shape) < 1700 and min(still.shape[:2]) > 200
    if width > 1:
        assert abs(moved - still).sum(axis=-1).astype(bool).mean() > 0.005
    with pytest.raises(ValueError, match=f"layer is 'layer9', .*; its deformable layers are {name}"):
        pictures.draw_sampling(tmp_path / "d.png", image, model, "layer9", torch.zeros(1, 2))


def test_places_are_centres_of_the_best_or_a_grid():
    image = grey(60, 90)
    prediction = {"boxes": torch.rand(9, 4), "scores": torch.rand(9)}
    best = int(prediction["scores"].argmax())
    places = pictures.places_of(prediction, image)
    assert places.shape == (6, 2)
    x1, y1, x2, y2 = prediction["boxes"][best].tolist()
    assert places[0].tolist() == pytest.approx([(x1 + x2) / 2, (y1 + y2) / 2])
    nothing = pictures.confident(prediction, 2)
    assert pictures.places_of(nothing, image).tolist() == [[15, 15], [45, 15], [75, 15], [15, 45], [45, 45], [75, 45]]


def test_masks_keep_their_place_when_shrunk_and_enlarged():
    for height, width in ((40, 60), (3000, 2000)):
        frame = Frame.of(torch.empty(3, height, width, device="meta"))
        mask = torch.zeros(height, width)
        mask[height // 4 : height // 2, width // 2 :] = 1
        rows, columns = frame.mask(mask, 0.5).nonzero()
        edges = frame.points(np.array([[width / 2, height / 4], [width, height / 2]])) - np.array(frame.origin)
        got = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(got, edges.flatten(), atol=1)


def test_places_at_one_output_pixel_are_drawn_once():
    from detection.prediction.sampling_picture import distinct

    from resnet_cuda.sampling import SamplingPoints

    pixel = torch.tensor([3, 1, 3, 0, 1])
    values = pixel.float()[:, None, None, None].expand(5, 2, 9, 2)
    found = distinct(SamplingPoints(values, values[..., 0], values[:, 0]))
    assert found.grid[:, 0, 0].tolist() == [3, 1, 0]
    assert found.points.shape == (3, 2, 9, 2) and found.masks.shape == (3, 2, 9)
    empty = distinct(SamplingPoints(values[:0], values[:0, ..., 0], values[:0, 0]))
    assert empty.grid.shape == (0, 9, 2)
