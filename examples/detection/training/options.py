"""What a run of the trainer may be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The learning rate rises over ``warmup`` iterations, then falls to a hundredth by half a cosine."""

    iterations: int = 90_000
    batch: int = 2
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    clip_norm: float = 10.0  # of all gradients together
    warmup: int = 500
    workers: int = 2
    seed: int = 0
    save_every: int = 1000
    resume: bool = True
    bfloat16: bool = False
    stop_after: int | None = None  # iterations of this run, which a later one resumes
