"""Batches: the same for any number of workers, resumable, and errors as they are."""

from __future__ import annotations

import itertools
import os
import sys
import warnings

import pytest
import torch
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from detection.data.loader import EndlessSampler, evaluation_loader, training_loader
from detection.data.transforms import AUGMENTATIONS, make_transforms
from torch.utils.data import Dataset


def first(loader, count):
    return list(itertools.islice(iter(loader), count))


def ids(batches):
    return [target["image_id"] for _, targets in batches for target in targets]


def equal(left, right):
    return all(
        torch.equal(image, other) and all(torch.equal(mine[key], yours[key]) for key in ("boxes", "masks", "labels"))
        for (images, targets), (others, their_targets) in zip(left, right, strict=True)
        for image, other, mine, yours in zip(images, others, targets, their_targets, strict=True)
    )


def test_samples_do_not_depend_on_workers_and_are_resumed(coco):
    dataset = CocoInstances(*coco)
    transforms = make_transforms(list(AUGMENTATIONS))
    options = {"batch": 2, "seed": 4, "targets": "masks"}
    whole = first(training_loader(dataset, transforms, workers=0, **options), 6)
    assert sorted(ids(whole)) == [10] * 4 + [20] * 4 + [30] * 4
    assert equal(whole[:4], first(training_loader(dataset, transforms, workers=2, **options), 4))
    assert equal(whole[3:], first(training_loader(dataset, transforms, workers=0, start=6, **options), 3))
    assert not equal(whole, first(training_loader(dataset, transforms, workers=0, **{**options, "seed": 5}), 6))


class Parents(Dataset):
    """Each image's id is the parent of the process that reads it."""

    def __init__(self):
        pass  # a data set must define it

    def class_names(self):
        return ("thing",)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        boxes, masks = torch.tensor([[1.0, 1.0, 5.0, 5.0]]), torch.ones(1, 8, 8, dtype=torch.bool)
        target = {"boxes": boxes, "labels": torch.ones(1, dtype=torch.int64), "masks": masks, "image_id": os.getppid()}
        return torch.zeros(3, 8, 8), target


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers begin as that system's Python has it")
def test_workers_are_children_of_the_training():
    """They end with it, and only its SIGTERM ends them; those of a server process, Python 3.14's default, do not."""
    options = {"workers": 1, "targets": "masks"}
    training = training_loader(Parents(), [], batch=1, seed=0, **options)
    assert ids(first(training, 2)) == [os.getpid()] * 2
    assert [target["image_id"] for [(_, _, target)] in evaluation_loader(Parents(), **options)] == [os.getpid()] * 2


def test_ranks_share_each_epoch(coco):
    dataset = CocoInstances(*coco)
    options = {"batch": 1, "workers": 0, "seed": 0, "targets": "masks", "world_size": 3}
    parts = [ids(first(training_loader(dataset, [], rank=rank, **options), 5)) for rank in range(3)]
    for epoch in zip(*parts, strict=True):
        assert sorted(epoch) == [10, 20, 30]
    with pytest.raises(ValueError, match="the data set is empty"):
        EndlessSampler(0, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_is_the_plain_message(coco, workers):
    (coco[0] / "image2.png").write_text("no image")
    dataset = CocoInstances(*coco)
    options = {"workers": workers, "targets": "masks"}
    for loader in (
        training_loader(dataset, [], batch=1, seed=0, **options),
        evaluation_loader(dataset, **options),
    ):
        with pytest.raises(DamagedSampleError, match=r"^\S*image2\.png cannot be read as an image: [^\n]*$"):
            first(loader, 3)


def test_skipped_images(coco):
    (coco[0] / "image2.png").write_text("no image")
    dataset = CocoInstances(*coco, damaged="skip")
    with pytest.warns(UserWarning, match=r"skipped: .*image2\.png"):
        found = ids(first(training_loader(dataset, [], batch=1, workers=0, seed=0, targets="masks"), 6))
    assert sorted(found) == [10, 10, 30, 30, 30, 30]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lists = list(evaluation_loader(dataset, workers=0, targets="masks"))
    assert [len(part) for part in lists] == [1, 1, 1]
    (one,), (two,), (three,) = lists
    assert (one[0], one[2]["image_id"]) == (0, 10)
    assert two[:2] == (1, None)
    assert "image2.png cannot be read" in two[2]
    assert (three[0], three[2]["image_id"]) == (2, 30)
    for name in ("image1.png", "image3.png"):
        (coco[0] / name).unlink()
    with pytest.warns(UserWarning), pytest.raises(DamagedSampleError, match="none of 3 images can be used"):
        first(training_loader(dataset, [], batch=1, workers=0, seed=0, targets="masks"), 1)
    assert [part[0][1] for part in evaluation_loader(dataset, workers=0, targets="masks")] == [None] * 3


def test_ranks_of_an_evaluation_share_the_indices(coco):
    dataset = CocoInstances(*coco)
    options = {"workers": 0, "targets": "masks", "world_size": 2}
    parts = [[part[0][0] for part in evaluation_loader(dataset, rank=rank, **options)] for rank in range(2)]
    assert parts == [[0, 2], [1]]


def test_an_extreme_ratio_is_skipped_or_named(coco):
    """Also where the data set itself knows of no limit."""
    options = {"workers": 0, "targets": "masks", "max_ratio": 1.2}  # the images are of 64 x 48
    with pytest.raises(DamagedSampleError, match=r"image1\.png: .*64 x 48"):
        list(evaluation_loader(CocoInstances(*coco), **options))
    skipping = evaluation_loader(CocoInstances(*coco, damaged="skip"), **options)
    assert [part[0][1] for part in skipping] == [None] * 3


class Custom(Dataset):
    def __init__(self, label=1):
        self.label = label

    def __len__(self):
        return 4

    def __getitem__(self, index):
        target = {"boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0 + index]]), "labels": torch.tensor([self.label])}
        return torch.zeros(3, 8, 8), target

    def class_names(self):
        return ["a"]


def test_a_custom_data_set():
    images, targets = first(training_loader(Custom(), [], batch=4, workers=0, seed=0, targets="boxes"), 1)[0]
    assert [image.shape for image in images] == [(3, 8, 8)] * 4
    assert sorted(target["boxes"][0, 3].item() for target in targets) == [4, 5, 6, 7]
    assert [part[0][0] for part in evaluation_loader(Custom(), workers=0, targets="boxes")] == [0, 1, 2, 3]
    with pytest.raises(DamagedSampleError, match="sample 0: label 2 is none of 1 to 1"):
        list(evaluation_loader(Custom(2), workers=0, targets="boxes"))
    with pytest.raises(DamagedSampleError, match=r"sample \d: its target has no 'masks'"):
        first(training_loader(Custom(), [], batch=1, workers=0, seed=0, targets="masks"), 1)
