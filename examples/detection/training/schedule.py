"""The learning rate of an iteration. It depends on nothing else, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math

from detection.training.options import TrainOptions

LAST = 0.01  # of the learning rate, at the end of the cosine


def learning_rate(options: TrainOptions, iteration: int) -> float:
    """Of ``iteration``, counted from 0: a linear warm-up, then half a cosine or steps."""
    warmup = options.resolved().warmup
    if iteration < warmup:
        part = (iteration + 1) / warmup
        return options.learning_rate * (options.warmup_factor + (1 - options.warmup_factor) * part)
    if options.schedule == "step":
        return options.learning_rate * options.gamma ** sum(iteration >= step for step in milestones(options))
    progress = (iteration - warmup) / max(1, options.iterations - warmup)
    return options.learning_rate * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * progress)))


def milestones(options: TrainOptions) -> tuple[int, ...]:
    """Those given, or 2/3 and 8/9 of the training, as in detectron2's schedules."""
    return options.milestones or (options.iterations * 2 // 3, options.iterations * 8 // 9)


def too_long_a_warmup(options: TrainOptions) -> str:
    """A sentence where the learning rate rises to the very end, else ""."""
    warmup, iterations = options.resolved().warmup, options.iterations
    if warmup < iterations:
        return ""
    highest = learning_rate(options, iterations - 1)
    return (
        f"warning: warmup is {warmup}, of {iterations} iterations in all: the learning rate rises to the very end, to "
        f"{highest:.3g} of {options.learning_rate:.3g}; give a shorter --warmup or more --iterations"
    )
