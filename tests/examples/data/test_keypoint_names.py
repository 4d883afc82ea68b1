"""Which keypoints change places in a mirror."""

from __future__ import annotations

import warnings

import pytest
from detection.data.keypoint_names import mirrored_keypoints
from detection.data.transforms import make_transforms

PAIRS = [
    ("left_eye", "right_eye"),
    ("LEFT_EYE", "RIGHT_EYE"),
    ("l_eye", "r_eye"),
    ("LEye", "REye"),
    ("lEye", "rEye"),
    ("L_Hip", "R_Hip"),
    ("left-eye", "right-eye"),
    ("eye left", "eye right"),
    ("hip_l", "hip_r"),
    ("HipL", "HipR"),
    ("leftEye", "rightEye"),
    ("lefteye", "righteye"),
    ("LANKLE", "RANKLE"),
    ("lsho", "rsho"),
    ("upper_left_1", "upper_right_1"),
    ("L1", "R1"),
    ("left", "right"),
    ("upleft", "upright"),
    ("Left_eye", "right_eye"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_left_and_right_change_places(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_transforms(["flip", "flip-vertical"], ["nose", *pair])
    assert mirrored_keypoints(["nose", *pair]) == [0, 2, 1]
    assert mirrored_keypoints([pair[1], "nose", pair[0]]) == [2, 1, 0]


@pytest.mark.parametrize(
    "names",
    [
        ("upright",),
        ("bright_spot", "nose"),
        ("L", "R_1"),
        ("ear", "lip"),
        ("copyright",),
        ("l_eye",),
        ("nose", "été"),
        ("relay", "tail"),
    ],
)
def test_what_has_no_side_stays(names):
    assert mirrored_keypoints(names) == list(range(len(names)))


def test_a_word_needs_its_counterpart():
    for name, other in (("LEFT_EYE", "RIGHT_EYE"), ("eye left", "eye right"), ("rightEye", "leftEye")):
        with pytest.raises(ValueError, match=f"keypoint '{name}' has no counterpart '{other}'"):
            mirrored_keypoints(["nose", name])


def test_no_sides_at_all_are_one_warning():
    with pytest.warns(UserWarning, match="none of the keypoints head, tail is a left or right one") as caught:
        make_transforms(["flip", "flip-vertical"], ["head", "tail"])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_transforms(["colour"], ["head", "tail"])
        make_transforms(["flip"], ["head"])
