"""Detectors with known mistakes get the AP that follows from COCO's definition."""

from __future__ import annotations

import pytest
import torch
from evaluation_samples import InMemory, perfect, sample_of, score

SIZE = (64, 96)
BOXES = [(4, 4, 20, 20), (40, 10, 20, 20), (70, 40, 20, 20), (10, 36, 20, 20)]


def four_squares(images: int = 3) -> InMemory:
    """Four objects an image: two bars, two squares, no disc; all of 400 pixels, which COCO calls small."""
    return InMemory([sample_of(seed, SIZE, BOXES, [1, 2, 1, 2]) for seed in range(images)])


def kept(prediction: dict, indices: list[int]) -> dict:
    return {name: value[indices] for name, value in prediction.items()}


def joined(*predictions: dict) -> dict:
    return {name: torch.cat([it[name] for it in predictions]) for name in predictions[0]}


def shifted(target: dict, pixels: int) -> dict:
    prediction = perfect(target)
    prediction["boxes"] = prediction["boxes"] + torch.tensor([pixels, 0, pixels, 0])
    prediction["masks"] = prediction["masks"].roll(pixels, -1)
    return prediction


def test_the_truth_scores_1_and_absent_sizes_and_classes_minus_1():
    report = score(four_squares())
    for kind in ("bbox", "segm"):
        values = {name: pytest.approx(1.0) for name in ("AP", "AP50", "AP75", "AP_small", "AR_10", "AR_100")}
        # Of two objects of a class, one detection an image finds half.
        assert report.metrics[kind] == {**values, "AP_medium": -1, "AP_large": -1, "AR_1": pytest.approx(0.5)}
        assert report.per_class[kind]["disc"] == {"AP": -1, "AP50": -1, "objects": 0}
        assert report.per_class[kind]["bar"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "objects": 6}
    assert report.primary == "segm"
    assert report.images == 3


def test_half_of_the_objects_found():
    """Precision 1 up to recall 0.5: 51 of COCO's 101 recalls."""
    report = score(four_squares(), lambda target: kept(perfect(target), [0, 1]))
    for kind in ("bbox", "segm"):
        assert report.metrics[kind]["AP"] == pytest.approx(51 / 101, abs=1e-12)
        assert report.metrics[kind]["AR_100"] == pytest.approx(0.5)


def test_nothing_found_is_0_where_there_are_objects():
    report = score(four_squares(), lambda target: kept(perfect(target), []))
    for kind in ("bbox", "segm"):
        absent = {"AP_medium": -1.0, "AP_large": -1.0}
        names = ("AP", "AP50", "AP75", "AP_small", "AR_1", "AR_10", "AR_100")
        assert report.metrics[kind] == {**dict.fromkeys(names, 0.0), **absent}
        assert report.per_class[kind]["square"] == {"AP": 0, "AP50": 0, "objects": 6}
        assert report.per_class[kind]["disc"] == {"AP": -1, "AP50": -1, "objects": 0}


def test_no_objects_at_all_is_minus_1():
    dataset = InMemory([sample_of(0, SIZE, [], []), sample_of(1, SIZE, [], [])])
    assert set(score(dataset).metrics["bbox"].values()) == {-1.0}
    false = four_squares(1).samples[0][1]
    assert set(score(dataset, lambda _: perfect(false)).metrics["segm"].values()) == {-1.0}


def test_the_wrong_class_counts_for_neither():
    def confused(target):
        prediction = perfect(target)
        return {**prediction, "labels": torch.where(prediction["labels"] == 1, 3, prediction["labels"])}

    report = score(four_squares(), confused)
    for kind in ("bbox", "segm"):
        assert report.per_class[kind]["bar"]["AP"] == 0
        assert report.per_class[kind]["square"]["AP"] == pytest.approx(1)
        assert report.metrics[kind]["AP"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pixels", "thresholds"),
    [
        (1, 9),  # IoU 19 / 21 = 0.905: right at 0.50, 0.55, ..., 0.90
        (2, 7),  # 18 / 22 = 0.818
        (5, 3),  # 15 / 25 = 0.6, itself allowed
        (7, 0),  # 13 / 27 = 0.481
    ],
)
def test_shifted_objects_are_right_up_to_their_overlap(pixels, thresholds):
    report = score(four_squares(), lambda target: shifted(target, pixels))
    for kind in ("bbox", "segm"):
        assert report.metrics[kind]["AP"] == pytest.approx(thresholds / 10)
        assert report.metrics[kind]["AP50"] == pytest.approx(float(thresholds > 0))
        assert report.metrics[kind]["AP75"] == pytest.approx(float(thresholds > 5))


@pytest.mark.parametrize(("confidence", "expected"), [(0.95, 0.5), (0.1, 1.0)])
def test_false_detections_cost_what_is_less_sure_than_they(confidence, expected):
    """One object, one false detection: before the right one precision is 1/2 throughout, after it 1."""
    dataset = InMemory([sample_of(0, SIZE, BOXES[:1], [1])])

    def answer(target):
        return joined(perfect(target), {**shifted(target, 30), "scores": torch.tensor([confidence])})

    assert score(dataset, answer).metrics["segm"]["AP"] == pytest.approx(expected)


def test_false_detections_in_images_without_objects_count():
    squares = four_squares(1)
    dataset = InMemory([*squares.samples, sample_of(9, SIZE, [], [])])
    false = {**perfect(squares.samples[0][1]), "scores": torch.full((4,), 0.99)}
    # Two false ones, then two right ones of each class: precision 1/2 at recall 1.
    answer = score(dataset, lambda target: perfect(target) if len(target["labels"]) else false)
    assert answer.metrics["bbox"]["AP"] == pytest.approx(0.5)


def test_a_crowd_is_nothing_to_find_and_excuses_what_is_within():
    image, target = sample_of(0, SIZE, [(4, 4, 20, 20), (40, 4, 50, 50)], [1, 1])
    target["iscrowd"] = torch.tensor([0, 1])
    dataset = InMemory([(image, target)])
    report = score(dataset)
    assert report.metrics["segm"]["AP"] == pytest.approx(1)
    assert report.per_class["segm"]["bar"]["objects"] == 1
    _, inside = sample_of(0, SIZE, [(60, 20, 10, 10)], [1])
    within = {**perfect(inside), "scores": torch.tensor([0.99])}
    assert score(dataset, lambda it: joined(perfect(it), within)).metrics["segm"]["AP"] == pytest.approx(1)
    outside = {**within, "boxes": torch.tensor([[4.0, 40, 14, 50]]), "masks": within["masks"].roll(-50, -1)}
    assert score(dataset, lambda it: joined(perfect(it), outside)).metrics["segm"]["AP"] == pytest.approx(0.5)


def test_the_users_area_decides_on_the_size():
    """COCO counts by the annotation's area, which may be another than that of the mask."""
    image, target = sample_of(0, SIZE, BOXES[:1], [1])
    target["area"] = torch.tensor([5000.0])
    metrics = score(InMemory([(image, target)])).metrics["segm"]
    assert (metrics["AP_small"], metrics["AP_medium"]) == (-1, pytest.approx(1))


def test_the_masks_area_stands_in_for_a_missing_one():
    """A disc of 900 pixels in a box of 1156: small by its mask, medium by its box."""
    image, target = sample_of(0, SIZE, [(10, 10, 34, 34)], [1])
    rows, columns = torch.meshgrid(torch.arange(34), torch.arange(34), indexing="ij")
    target["masks"][0, 10:44, 10:44] = ((rows - 16.5) ** 2 + (columns - 16.5) ** 2 <= 17**2).to(torch.uint8)
    assert 800 < target["masks"].sum() < 1024
    dataset = InMemory([(image, target)])
    assert score(dataset).metrics["segm"]["AP_small"] == pytest.approx(1)
    del target["masks"]
    boxes_alone = score(dataset, targets="boxes").metrics["bbox"]
    assert (boxes_alone["AP_small"], boxes_alone["AP_medium"]) == (-1, pytest.approx(1))
