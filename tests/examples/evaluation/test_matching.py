"""Matching, the confusion matrix, and the order of the worst images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detection.evaluation.confusion import confusion_matrix
from detection.evaluation.matching import match
from detection.evaluation.records import Record, detections_of, truth_of
from detection.evaluation.worst import worst_images
from evaluation_samples import rectangle

SIZE = (100, 200)
Box = tuple[int, int, int, int]


def record(
    truth: list[tuple[int, Box]], found: list[tuple[int, Box, float]], crowds: tuple[int, ...] = (), index: int = 0
) -> Record:
    """Of (label, (x, y, width, height)) and (label, box, score)."""

    def tensors(entries):
        boxes = torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h), *_ in entries], dtype=torch.float32)
        masks = [rectangle(SIZE, *box) for _, box, *_ in entries]
        labels = torch.tensor([label for label, *_ in entries], dtype=torch.int64)
        return boxes.reshape(-1, 4), labels, torch.stack(masks) if masks else torch.zeros((0, *SIZE))

    boxes, labels, masks = tensors(truth)
    crowd = torch.tensor([int(number in crowds) for number in range(len(truth))])
    objects = truth_of({"boxes": boxes, "labels": labels, "masks": masks, "iscrowd": crowd}, "masks")
    boxes, labels, masks = tensors(found)
    scores = torch.tensor([score for *_, score in found])
    prediction = {"boxes": boxes, "labels": labels, "scores": scores, "masks": masks[:, None].float()}
    return Record(index, 10 * index, SIZE, objects, detections_of(prediction))


A, B, C = (10, 10, 40, 40), (70, 10, 40, 40), (130, 10, 40, 40)
NEAR_A = (13, 10, 40, 40)


@pytest.mark.parametrize("by", ["bbox", "segm"])
def test_each_object_is_matched_once_by_the_highest_score_as_cocos_metrics_do(by):
    it = record([(1, A), (1, B)], [(1, NEAR_A, 0.99), (1, A, 0.6), (1, C, 0.9), (1, B, 0.4)])
    matches = match(it, by=by)
    assert matches.pairs == [(0, 0)]
    assert matches.missed == [1]  # its detection is not sure enough
    assert matches.false == [1, 2]
    # Across classes, for the confusion matrix, the largest overlap decides.
    assert match(it, by=by, same_class=False).pairs == [(0, 1)]


def test_a_detection_overlapping_two_objects_takes_the_nearer_one():
    it = record([(1, (10, 10, 40, 40)), (1, (20, 10, 40, 40))], [(1, (18, 10, 40, 40), 0.9)])
    assert match(it).pairs == [(1, 0)]


def test_the_overlap_is_allowed_from_its_bound_on():
    it = record([(1, (0, 0, 40, 40))], [(1, (0, 0, 40, 20), 0.9)])  # IoU 0.5
    assert match(it).pairs == [(0, 0)]
    assert match(it, overlap=0.51).pairs == []


@pytest.mark.parametrize("by", ["bbox", "segm"])
def test_detections_within_a_crowd_of_their_class_are_neither(by):
    it = record([(1, (0, 0, 100, 100))], [(1, A, 0.9), (2, A, 0.9), (1, C, 0.9)], crowds=(0,))
    matches = match(it, by=by)
    assert (matches.pairs, matches.missed, matches.false) == ([], [], [1, 2])


def test_masks_and_boxes_may_disagree():
    it = record([(1, A)], [(1, A, 0.9)])
    it.detections.masks = record([], [(1, C, 0.9)]).detections.masks
    assert match(it).pairs == [(0, 0)]
    assert match(it, by="segm").pairs == []


def test_wrong_arguments_are_named():
    it = record([(1, A)], [])
    with pytest.raises(ValueError, match="by is 'mask'; allowed are 'bbox', 'segm'"):
        match(it, by="mask")
    it.truth.masks = None
    with pytest.raises(ValueError, match="image 0 was evaluated without masks"):
        match(it, by="segm")


def test_confusion_matrix():
    """Rows are the truth, columns the predictions, the background last."""
    records = [
        record([(1, A), (2, B), (3, C)], [(1, A, 0.9), (3, B, 0.8), (2, (70, 60, 30, 30), 0.7), (1, C, 0.3)]),
        record([(1, A)], [(2, A, 0.95), (1, A, 0.6)]),  # of two on the same place, that of the right class counts
        record([(2, (0, 0, 100, 100))], [(2, A, 0.9)], crowds=(0,)),
        record([], []),
    ]
    expected = np.array(
        [
            [2, 0, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
            [0, 2, 0, 0],
        ]
    )
    for by in ("bbox", "segm"):
        assert np.array_equal(confusion_matrix(records, 3, by=by), expected)
    assert confusion_matrix(records, 3, score=0.2)[2].tolist() == [1, 0, 0, 0]


def test_the_matrix_counts_each_object_and_each_confident_detection_once():
    generator = np.random.default_rng(0)
    records = []
    for index in range(30):
        boxes = (generator.uniform(0, 1, (12, 4)) * (120, 60, 50, 30) + (0, 0, 8, 8)).astype(int).tolist()
        labels = generator.integers(1, 4, 12).tolist()
        truth = [(label, tuple(box)) for label, box in zip(labels[:6], boxes[:6], strict=True)]
        found = [(labels[it], tuple(boxes[it]), float(generator.uniform())) for it in range(3, 12)]
        records.append(record(truth, found, index=index))
    matrix = confusion_matrix(records, 3)
    true = np.concatenate([it.truth.labels for it in records])
    sure = np.concatenate([it.detections.labels[it.detections.scores >= 0.5] for it in records])
    assert matrix[:3].sum(axis=1).tolist() == np.bincount(true, minlength=4)[1:].tolist()
    assert matrix[:, :3].sum(axis=0).tolist() == np.bincount(sure, minlength=4)[1:].tolist()
    assert matrix[3, 3] == 0


def test_the_worst_images_come_first():
    good = record([(1, A), (1, B)], [(1, A, 0.9), (1, B, 0.9)], index=0)
    one_missed = record([(1, A), (1, B)], [(1, A, 0.9)], index=1)
    wrong_class = record([(1, A)], [(2, A, 0.9)], index=2)  # a miss and a false one
    two_missed = record([(1, A), (1, B)], [], index=3)
    three_missed = record([(1, A), (1, B), (1, C)], [], index=4)
    nothing = record([], [], index=5)
    false = record([], [(1, A, 0.9)], index=6)
    scores = worst_images([good, one_missed, wrong_class, two_missed, three_missed, nothing, false], 10)
    assert [it.record.index for it in scores] == [4, 2, 3, 6, 1]  # those without a mistake are not among them
    assert [(it.found, it.missed, it.false) for it in scores] == [(0, 3, 0), (0, 1, 1), (0, 2, 0), (0, 0, 1), (1, 1, 0)]
    assert scores[-1].f1 == pytest.approx(2 / 3)
    assert [it.record.index for it in worst_images([good, one_missed, three_missed], 1)] == [4]
