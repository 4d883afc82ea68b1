"""Training options: what is refused, and in which words."""

from __future__ import annotations

from dataclasses import fields

import pytest
import yaml
from detection.training.options import TrainOptions

WRONG = [
    ("iterations", -3, "iterations is -3; it must be at least 1"),
    ("iterations", 1.5, "iterations is 1.5; it must be an integer"),
    ("batch", 0, "batch is 0; it must be at least 1"),
    ("accumulate", 0, "accumulate is 0; it must be at least 1"),
    ("learning_rate", 0.0, "learning_rate is 0.0; it must be above 0"),
    ("learning_rate", float("nan"), "learning_rate is nan; it must be a number above 0"),
    ("learning_rate", "1e-4", "learning_rate is '1e-4'; it must be a number above 0"),
    ("optimizer", "adam", "optimizer is 'adam'; it must be one of adamw, sgd"),
    ("momentum", 1.0, "momentum is 1.0; it must be at least 0 and below 1"),
    ("weight_decay", -1e-4, "weight_decay is -0.0001; it must be at least 0"),
    ("norm_weight_decay", -1.0, "norm_weight_decay is -1.0; it must be at least 0"),
    ("schedule", "poly", "schedule is 'poly'; it must be one of cosine, step"),
    ("milestones", (30, 20), "milestones is (30, 20); it must be rising iterations from 1 on"),
    ("milestones", (0,), "milestones is (0,); it must be rising iterations from 1 on"),
    ("gamma", 0.0, "gamma is 0.0; it must be above 0 and at most 1"),
    ("warmup", -1, "warmup is -1; it must be at least 0"),
    ("warmup_factor", 2.0, "warmup_factor is 2.0; it must be at least 0 and at most 1"),
    ("clip_norm", float("inf"), "clip_norm is inf; it must be a number at least 0"),
    ("ema", 1.0, "ema is 1.0; it must be at least 0 and below 1"),
    ("precision", "int8", "precision is 'int8'; it must be one of float32, bfloat16, float16"),
    ("seed", -1, "seed is -1; it must be 0 to 4294967295"),
    ("workers", -1, "workers is -1; it must be at least 0"),
    ("save_every", 0, "save_every is 0; it must be at least 1"),
    ("evaluate_every", -5, "evaluate_every is -5; it must be at least 0"),
    ("log_every", 0, "log_every is 0; it must be at least 1"),
    ("augment", ("flop",), "augment is 'flop'; it must be one of flip, "),
    ("augment", "flip", "augment is 'flip'; it must be names out of flip, "),
    ("resume", 1, "resume is 1; it must be True or False"),
    ("stop_after", -1, "stop_after is -1; it must be at least 0"),
    ("parallel", "dp", "parallel is 'dp'; it must be one of ddp, fsdp"),
    ("calibration_images", 0, "calibration_images is 0; it must be at least 1"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_value_out_of_range_is_one_sentence(name, value, message):
    with pytest.raises(ValueError) as error:
        TrainOptions(**{name: value})
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_every_option_is_checked_above_and_has_a_help():
    assert {it.name for it in fields(TrainOptions)} == {name for name, _, _ in WRONG}
    assert all(it.metadata["help"] for it in fields(TrainOptions))


def test_the_warm_up_is_500_iterations_or_a_tenth():
    for iterations, warmup in ((90_000, 500), (3000, 300), (9, 0)):
        assert TrainOptions(iterations=iterations).resolved().warmup == warmup
    assert TrainOptions(iterations=100, warmup=70).resolved({"warmup": 3}).warmup == 70
    # A run that is resumed keeps its own, also with other iterations.
    assert TrainOptions(iterations=90_000).resolved({"warmup": 7}).warmup == 7


def test_options_survive_yaml():
    options = TrainOptions(milestones=(3, 7), augment=("flip",), norm_weight_decay=0.0, schedule="step")
    values = {name: list(it) if isinstance(it, tuple) else it for name, it in options.as_dict().items()}
    assert TrainOptions.from_dict(yaml.safe_load(yaml.safe_dump(values))) == options
    with pytest.raises(ValueError, match="there is no training option lr; allowed are iterations, batch"):
        TrainOptions.from_dict({"lr": 0.1})
