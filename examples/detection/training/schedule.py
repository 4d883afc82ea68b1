"""The learning rate of an iteration. It depends on nothing else, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math

from detection.training.options import TrainOptions

LAST = 0.01  # of the learning rate, at the end of the cosine


def learning_rate(options: TrainOptions, iteration: int) -> float:
    """Of ``iteration``, counted from 0: a linear warm-up, then half a cosine or steps."""
    if iteration < options.warmup:
        part = (iteration + 1) / options.warmup
        return options.learning_rate * (options.warmup_factor + (1 - options.warmup_factor) * part)
    if options.schedule == "step":
        return options.learning_rate * options.gamma ** sum(iteration >= step for step in milestones(options))
    progress = (iteration - options.warmup) / max(1, options.iterations - options.warmup)
    return options.learning_rate * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * progress)))


def milestones(options: TrainOptions) -> tuple[int, ...]:
    """Those given, or 2/3 and 8/9 of the training, as in detectron2's schedules."""
    return options.milestones or (options.iterations * 2 // 3, options.iterations * 8 // 9)
