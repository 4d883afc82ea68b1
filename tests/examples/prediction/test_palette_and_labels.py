"""Colours that differ, text that can be read, labels within the picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from detection.prediction.frame import Frame
from detection.prediction.labels import draw_labels, text_size
from detection.prediction.palette import COUNT, object_colour, palette, text_colour
from detection.prediction.skeleton import COCO_KEYPOINTS, lines_between
from PIL import Image, ImageDraw
from skimage.color import rgb2lab


def test_colours_are_far_apart():
    assert len(palette()) == COUNT >= 40
    lab = rgb2lab(np.array(palette(), dtype=np.uint8)[None])[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(COUNT)
    assert distance.min() > 15  # 2.3 is just noticeable
    assert distance[:10, :10].min() > 25
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 20  # none is grey
    assert object_colour(COUNT + 3) == object_colour(3) != object_colour(4)


def test_text_contrasts_with_its_background():
    """WCAG 2 asks for a contrast of 4.5."""

    def luminance(colour):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in [*palette(), (0, 0, 0), (255, 255, 255), (128, 128, 128)]:
        low, high = sorted((luminance(colour), luminance(text_colour(colour))))
        assert (high + 0.05) / (low + 0.05) >= 4.5


SIZES = [(20, 30), (480, 640), (1000, 1500), (4000, 6000), (100, 3000), (3000, 100), (1, 3000), (1, 1)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_frames_have_sane_sizes(height, width):
    frame = Frame.of(torch.empty(3, height, width, device="meta"))
    assert 640 <= max(frame.width, frame.height) <= 1600
    assert min(frame.width, frame.height) >= 100
    left, top = frame.origin
    # The photograph's corners, and its ratio where the shorter side is not rounded to a pixel.
    ends = frame.points(np.array([[0, 0], [width, height]])).tolist()
    assert ends == [[left, top], [left + frame.size[0], top + frame.size[1]]]
    if min(height, width) > 20:
        assert frame.size[0] / frame.size[1] == pytest.approx(width / height, rel=0.02)
    assert text_size(frame, 5) >= 12 and text_size(frame, 500) >= 10
    assert text_size(frame, 5) <= max(frame.width, frame.height) / 50


@pytest.mark.parametrize(("height", "width"), [(480, 640), (100, 3000), (3000, 100)])
def test_labels_are_inside_and_apart(height, width):
    frame = Frame.of(torch.empty(3, height, width, device="meta"))
    picture = Image.new("RGB", (frame.width, frame.height))
    x, y = np.meshgrid(np.linspace(0, 0.9, 4) * frame.width, np.linspace(0, 0.9, 4) * frame.height)
    boxes = np.stack([x, y, x + 0.1 * frame.width, y + 0.1 * frame.height], axis=-1).reshape(-1, 4)
    captions = ["ox 0.50", "a name\nin two lines 1.00", "Wörter 0.99", "w" * 300 + " 0.25"] * 4
    colours = [object_colour(it) for it in range(16)]
    places = draw_labels(ImageDraw.Draw(picture), frame, boxes, captions, colours)
    for left, top, right, bottom in places:
        assert 0 <= left < right <= frame.width and 0 <= top < bottom <= frame.height
    if (height, width) == (480, 640):
        for one, other in itertools.combinations(places, 2):
            assert min(one[2], other[2]) <= max(one[0], other[0]) or min(one[3], other[3]) <= max(one[1], other[1])
        pixels = np.asarray(picture)
        for (left, top, right, bottom), colour in zip(places, colours, strict=True):
            inside = pixels[top:bottom, left:right].reshape(-1, 3)
            assert (inside == colour).all(axis=1).mean() > 0.4  # the label's ground
            near = np.abs(inside.astype(int) - text_colour(colour)).max(axis=1) < 40
            assert near.sum() > 20  # its letters
    assert max(right - left for left, _, right, _ in places) <= max(0.4 * frame.width, 16 * text_size(frame, 16)) + 1


def test_the_skeleton_is_only_of_cocos_keypoints():
    lines = lines_between(COCO_KEYPOINTS)
    assert len(lines) == 19
    assert (COCO_KEYPOINTS.index("left_ankle"), COCO_KEYPOINTS.index("left_knee")) in lines
    turned = [name.replace("_", " ") for name in COCO_KEYPOINTS[::-1]]
    assert (turned.index("left ankle"), turned.index("left knee")) in lines_between(turned)
    assert lines_between([f"point {it}" for it in range(17)]) == []
    assert lines_between(()) == lines_between(COCO_KEYPOINTS[:16]) == []
