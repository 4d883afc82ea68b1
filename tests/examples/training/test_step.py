"""One step: accumulation, clipping, float16's scale, crowds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from detection.training.precision import grad_scaler
from detection.training.state import TrainingState
from detection.training.step import step
from torch import nn
from training_support import CPU, MODEL, OPTIONS


class Losses(nn.Module):
    """A detector whose losses are simple to differentiate: the weights times the images' means."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.seen: list[tuple[list, list]] = []

    def forward(self, images, targets):
        self.seen.append((images, targets))
        mean = torch.stack([image.mean() for image in images]).mean()
        return {"loss_a": self.weights[0] * mean, "loss_b": self.weights[1] * mean * 2}


def make(**options) -> TrainingState:
    options = replace(OPTIONS, warmup=0, learning_rate=0.5, optimizer="sgd", momentum=0.0, weight_decay=0.0, **options)
    model = Losses()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return TrainingState(MODEL, options, model, optimizer, grad_scaler(options.precision, CPU), None, CPU)


def batches(*values: float):
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return iter([([torch.full((3, 4, 4), value)], [target]) for value in values])


def test_a_step_is_the_textbooks():
    state = make(clip_norm=0.0)
    record, stop = step(state, state.model, batches(3.0), stop=bool)
    assert not stop and (state.iteration, state.samples) == (1, 2)
    assert (record["iteration"], record["loss_a"], record["loss_b"], record["total"]) == (1, 3.0, 12.0, 15.0)
    assert record["gradient_norm"] == pytest.approx(math.hypot(3, 6))
    assert state.model.weights.tolist() == pytest.approx([1 - 0.5 * 3, 2 - 0.5 * 6])


def test_accumulated_gradients_and_losses_are_averaged():
    state = make(clip_norm=0.0, accumulate=2)
    record, _ = step(state, state.model, batches(2.0, 4.0), stop=bool)
    assert (record["loss_a"], state.samples) == (3.0, 4)
    assert state.model.weights.tolist() == pytest.approx([1 - 0.5 * 3, 2 - 0.5 * 6])


def test_gradients_are_clipped_after_they_are_accumulated():
    state = make(clip_norm=1.0, accumulate=2)
    record, _ = step(state, state.model, batches(2.0, 4.0), stop=bool)
    norm = math.hypot(3, 6)
    assert record["gradient_norm"] == pytest.approx(norm)
    assert state.model.weights.tolist() == pytest.approx([1 - 0.5 * 3 / norm, 2 - 0.5 * 6 / norm], rel=1e-5)


def test_float16_clips_the_unscaled_gradients():
    expected = make(clip_norm=1.0)
    step(expected, expected.model, batches(2.0), stop=bool)
    state = make(clip_norm=1.0, precision="float16")
    step(state, state.model, batches(2.0), stop=bool)
    torch.testing.assert_close(state.model.weights, expected.model.weights)


def test_float16_skips_a_step_with_infinite_gradients_and_lowers_its_scale():
    state = make(precision="float16")
    scale = state.scaler.get_scale()
    # Finite as a loss, infinite as a gradient times the scale of 65536.
    record, _ = step(state, state.model, batches(1e35), stop=bool)
    assert record["gradient_norm"] is None and state.iteration == 1
    assert state.model.weights.tolist() == [1.0, 2.0]
    assert state.scaler.get_scale() == scale / 2


def test_a_loss_that_is_infinite_names_its_parts():
    state = make()
    state.model.weights.data[1] = 3e38
    with pytest.raises(ValueError, match=r"the loss of iteration 0 is inf \(loss_a 2, loss_b inf\)"):
        step(state, state.model, batches(2.0), stop=bool)


def test_crowds_and_what_no_loss_reads_stay_behind():
    state = make()
    target = {
        "boxes": torch.arange(8.0).reshape(2, 4),
        "labels": torch.tensor([1, 2]),
        "masks": torch.zeros(2, 4, 4, dtype=torch.uint8),
        "iscrowd": torch.tensor([1, 0]),
        "area": torch.ones(2),
        "image_id": 3,
        "skipped": 0,
    }
    step(state, state.model, iter([([torch.ones(3, 4, 4)], [target])]), stop=bool)
    ((_, (seen,)),) = state.model.seen
    assert seen.keys() == {"boxes", "labels", "masks"}
    assert seen["labels"].tolist() == [2] and seen["boxes"].tolist() == [[4, 5, 6, 7]] and len(seen["masks"]) == 1


def test_random_numbers_depend_on_the_iteration_alone():
    class Draws(Losses):
        def forward(self, images, targets):
            self.drawn = torch.rand(()).item()
            return super().forward(images, targets)

    drawn = []
    for _ in range(2):
        state = make()
        state.model = Draws()
        for _ in range(2):
            step(state, state.model, batches(1.0), stop=bool)
            drawn.append(state.model.drawn)
        torch.rand(7)
    assert drawn[:2] == drawn[2:] and drawn[0] != drawn[1]
