"""The embedded data set."""

from __future__ import annotations

import numpy as np
import torch
from detection.data import coins
from detection.data.coco_dataset import CocoInstances


def test_masks_are_the_24_coins():
    photo = coins.photograph()
    masks = coins.instance_masks(photo)
    assert masks.shape == (24, *photo.shape)
    assert masks.sum(axis=0).max() == 1  # no two overlap
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        # Nearly round: a disk fills pi/4 of its box; two coins in one would not.
        assert 0.8 < height / width < 1.25
        assert 0.7 < mask.sum() / (height * width) < 0.85


def test_nothing_held_out_is_trained_on(tmp_path):
    splits = coins.make(tmp_path / "data")
    training = CocoInstances(splits["train"].images, splits["train"].annotations)
    held_out = CocoInstances(splits["val"].images, splits["val"].annotations)
    assert len(training) == coins.TRAINING_CROPS
    assert len(held_out) == 1
    photo = coins.photograph()
    image, target = held_out[0]
    assert torch.equal((image[0] * 255).round().byte(), torch.from_numpy(photo[coins.HELD_OUT_ROW :].copy()))
    assert len(target["boxes"]) == 6
    upper = photo[: coins.HELD_OUT_ROW]
    windows = np.lib.stride_tricks.sliding_window_view(upper, coins.CROP)
    for index in range(3):
        crop, target = training[index]
        pixels = (crop[0] * 255).round().byte().numpy()
        matches = (windows[..., ::12, ::12] == pixels[::12, ::12]).all(axis=(-1, -2))
        assert matches.sum() == 1  # cut out of the upper part, once
        assert len(target["boxes"]) > 0


def test_made_once_and_never_half(tmp_path):
    folder = tmp_path / "data"
    (tmp_path / "data.unfinished").mkdir()  # left behind by a run that was killed
    (tmp_path / "data.unfinished" / "rubbish").touch()
    splits = coins.make(folder)
    assert not (folder / "rubbish").exists()
    before = splits["train"].annotations.stat().st_mtime_ns
    assert coins.make(folder)["train"].annotations.stat().st_mtime_ns == before
