"""What the code of a user's own data set class does wrong is shown with its traceback."""

from __future__ import annotations

import traceback

import pytest
import torch
from detection.data.check import check
from detection.data.coco_dataset import CocoInstances
from detection.data.custom import class_names, describe, reader, targets_of
from detection.data.errors import DamagedSampleError, SampleError
from detection.data.loader import evaluation_loader, training_loader
from torch.utils.data import Dataset


def sample(**more):
    return torch.zeros(3, 8, 8), {"boxes": torch.tensor([[1.0, 2, 5, 6]]), "labels": torch.tensor([1]), **more}


class Own(Dataset):
    """Of samples, or of errors that take their place."""

    def __init__(self, *samples, names=("a",)):
        self.samples, self.names = samples, names

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]

    def class_names(self):
        return list(self.names)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_its_own_keep_their_traceback(workers):
    dataset = Own(sample(), ValueError("no such row"))
    for loader in (
        evaluation_loader(dataset, workers=workers, targets="boxes"),
        training_loader(dataset, [], batch=2, workers=workers, seed=0, targets="boxes"),
    ):
        with pytest.raises(
            SampleError, match=r"^sample 1 of \S*test_own_code\.Own: ValueError: no such row$"
        ) as caught:
            list(loader)
        assert not isinstance(caught.value, ValueError)
        text = "".join(traceback.format_exception(caught.value))
        assert "raise self.samples[index]" in text
        assert "ValueError: no such row" in text


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_no_error_of_its_own(workers):
    dataset = Own(DamagedSampleError("row 0 is damaged"), sample())
    with pytest.raises(DamagedSampleError, match="^row 0 is damaged$"):
        list(evaluation_loader(dataset, workers=workers, targets="boxes"))
    dataset.damaged = "skip"
    found = [part[0] for part in evaluation_loader(dataset, workers=workers, targets="boxes")]
    assert [entry[1] is None for entry in found] == [True, False]


def test_the_check_and_the_targets_name_it_too():
    dataset = Own(sample(), KeyError("x"))
    with pytest.raises(SampleError, match="sample 1 of .*Own: KeyError: 'x'"):
        check(dataset, progress=False)
    with pytest.raises(SampleError, match="sample 0 of .*Own: KeyError"):
        targets_of(Own(KeyError("x")))


def test_a_method_read_of_its_own_is_not_taken(coco):
    class WithRead(Own):
        def read(self, path):
            raise AssertionError(path)

    dataset = WithRead(sample())
    assert len(list(evaluation_loader(dataset, workers=0, targets="boxes"))) == 1
    assert check(dataset, progress=False).annotations == 1
    assert reader(dataset)(0) is dataset.samples[0]
    instances = CocoInstances(*coco)
    assert reader(instances) == instances.read
    assert (describe(dataset, 3), describe(instances, 0)) == ("sample 3", str(coco[0] / "image1.png"))


def test_targets_of_samples_of_which_the_first_has_no_objects():
    empty = torch.zeros(3, 8, 8), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}
    masks, keypoints = {"masks": torch.ones(1, 8, 8).byte()}, {"keypoints": torch.ones(1, 2, 3)}
    dataset = Own(empty, DamagedSampleError("x"), sample(**masks), sample(**masks, **keypoints))
    assert targets_of(dataset) == "masks"
    assert targets_of(dataset, "keypoints") == "keypoints"
    assert targets_of(dataset, "masks") == "masks"
    assert targets_of(Own(empty, sample(**keypoints)), "masks") == "keypoints"
    assert targets_of(Own(*[empty] * 16, sample(**masks))) == "boxes"
    with pytest.raises(DamagedSampleError, match="^y$"):
        targets_of(Own(DamagedSampleError("y")))
    # Nor does such a sample need masks to be used.
    found = [part[0][2]["masks"].shape for part in evaluation_loader(Own(empty), workers=0, targets="masks")]
    assert found == [(0, 8, 8)]


@pytest.mark.parametrize("name", ["background", "__background__", "Background"])
def test_the_background_has_no_name(name):
    with pytest.raises(ValueError, match=rf"class_names\(\) of data set Own begins with '{name}'; leave it out"):
        class_names(Own(names=(name, "coin")))
    assert class_names(Own(names=("coin", name))) == ["coin", name]


def test_the_number_of_keypoints_is_that_of_the_model():
    dataset = Own(sample(keypoints=torch.ones(1, 4, 3)))
    options = {"workers": 0, "targets": "keypoints"}
    list(evaluation_loader(dataset, keypoints=4, **options))
    for loader in (
        evaluation_loader(dataset, keypoints=3, **options),
        training_loader(dataset, [], batch=1, seed=0, keypoints=3, **options),
    ):
        with pytest.raises(DamagedSampleError, match="sample 0: its objects have 4 keypoints; there are 3 keypoint_na"):
            next(iter(loader))


def test_a_sample_of_crowds_alone_leaves_no_object():
    report = check(Own(sample(iscrowd=torch.tensor([1]))), progress=False)
    assert report.problems == ["no object is left to learn from: 1 crowd"]
