"""The data of a training: another one when it is resumed, samples that cannot be used, batches without objects."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from detection.data.packed import Packed
from detection.training.batches import EMPTY, watched
from detection.training.engine import train
from detection.training.fingerprint import _digest, difference, fingerprint
from PIL import Image
from torch.utils.data import Dataset
from training_support import CPU, MODEL, OPTIONS, coco, load, write_coco

GN, NOTHING = replace(MODEL, norm="gn"), replace(OPTIONS, stop_after=0)


def test_another_number_of_images_is_said_on_resume(tmp_path, capsys):
    for images in (3, 5):
        write_coco(tmp_path / str(images), images)
    train(coco(tmp_path / "3"), GN, NOTHING, tmp_path / "run", CPU)
    train(coco(tmp_path / "3"), GN, NOTHING, tmp_path / "run", CPU)
    assert "the data set" not in capsys.readouterr().out
    train(coco(tmp_path / "5"), GN, NOTHING, tmp_path / "run", CPU)
    line = "the data set is another than the checkpoint's (3 images, now 5): the run goes on with it"
    assert line in capsys.readouterr().out.splitlines()
    assert load(tmp_path / "run" / "checkpoint.pt")["data"] == fingerprint(coco(tmp_path / "5"))


@pytest.mark.parametrize("change", ["name", "annotation"])
def test_as_many_images_with_other_names_or_annotations_are_another_data_set(tmp_path, change):
    _, path = write_coco(tmp_path / "coco")
    first = fingerprint(coco(tmp_path / "coco"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, indent=1))
    assert fingerprint(coco(tmp_path / "coco")) == first
    if change == "name":
        content["images"][0]["file_name"] = "image0.png"
    else:
        content["annotations"][2]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    line = "the data set is another than the checkpoint's (other file names or annotations): the run goes on with it"
    assert difference(first, fingerprint(coco(tmp_path / "coco"))) == line


def test_a_class_of_the_users_own_is_told_by_its_number_of_samples():
    assert fingerprint(Unchecked(None)) == {"images": 4, "digest": None}
    assert difference({"images": 4, "digest": "a"}, {"images": 4, "digest": None}) == ""
    assert difference(None, {"images": 4, "digest": None}) == ""  # a checkpoint that has none


def test_the_digest_of_900_000_annotations_takes_seconds_at_most():
    annotation = {"bbox": [1.5, 2.5, 3.5, 4.5], "segmentation": [np.random.default_rng(0).random(50).tolist()]}
    group = Packed([[annotation] * 8])
    packed = SimpleNamespace(data=np.tile(group.data, 900_000 // 8), offsets=np.arange(900_000 // 8))
    dataset = SimpleNamespace(image_ids=np.arange(900_000 // 8), _images=packed, _annotations=packed)
    started = time.process_time()
    _digest(dataset)
    assert time.process_time() - started < 4


class Unchecked(Dataset):
    """Of the user's own; its images are what ``image`` is."""

    def __init__(self, image):
        self.image = image

    def __len__(self) -> int:
        return 4

    def class_names(self) -> list[str]:
        return ["bar", "square"]

    def describe(self, index: int) -> str:
        return f"photo {index}"

    def __getitem__(self, index: int):
        boxes, masks = torch.tensor([[4.0, 4, 30, 30]]), torch.ones(1, 48, 64, dtype=torch.uint8)
        return self.image, {"boxes": boxes, "labels": torch.tensor([1]), "masks": masks}


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
@pytest.mark.parametrize("image", [np.zeros((48, 64, 3), np.float32), Image.new("RGB", (64, 48))])
def test_images_for_the_norms_statistics_are_checked(tmp_path, norm, image):
    model = replace(MODEL, norm=norm, trainable_layers=2)
    with pytest.raises(DamagedSampleError, match=r"^photo \d: its image is <class .*; it must be a tensor \(3, H, W\)"):
        train(Unchecked(image), model, OPTIONS, tmp_path, CPU)


def test_where_damaged_images_are_skipped_so_they_are_for_the_norms(tmp_path):
    images, annotations = write_coco(tmp_path / "coco")
    (images / "image2.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="skipped: .*image2"):
        train(CocoInstances(images, annotations, "skip"), MODEL, NOTHING, tmp_path / "skip", CPU)
    with pytest.raises(DamagedSampleError, match=r"image2\.png"):
        train(CocoInstances(images, annotations), MODEL, NOTHING, tmp_path / "refuse", CPU)


def _batch(*crowd: int):
    target = {"labels": torch.ones(len(crowd), dtype=torch.int64), "iscrowd": torch.tensor(crowd, dtype=torch.int64)}
    return [torch.zeros(3, 4, 4)], [target, {"labels": torch.zeros(0, dtype=torch.int64)}]


@pytest.mark.parametrize(
    ("sequence", "warnings"),
    [
        ([_batch()] * (EMPTY - 1), 0),
        ([_batch()] * 3 * EMPTY, 1),
        ([_batch(1)] * EMPTY, 1),  # crowds alone
        (([_batch()] * (EMPTY - 1) + [_batch(0, 1)]) * 2, 0),
    ],
)
def test_many_batches_without_objects_are_one_warning(capsys, sequence, warnings):
    given = list(watched(iter(sequence)))
    assert all(actual is wanted for (actual, _), (wanted, _) in zip(given, sequence, strict=True))
    assert capsys.readouterr().out.count(f"warning: {EMPTY} batches in a row have no object") == warnings


def test_a_data_set_of_crowds_alone_trains_and_is_told_of(tmp_path, capsys):
    _, path = write_coco(tmp_path / "coco")
    content = json.loads(path.read_text())
    crowds = [{**annotation, "iscrowd": 1} for annotation in content["annotations"]]
    path.write_text(json.dumps({**content, "annotations": crowds}))
    data = coco(tmp_path / "coco")
    options = replace(OPTIONS, iterations=EMPTY + 2, batch=1, save_every=100)
    train(data, replace(GN, kind="fasterrcnn"), options, tmp_path / "run", CPU)
    assert capsys.readouterr().out.count("batches in a row have no object") == 1
