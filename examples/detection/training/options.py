"""What a run of the trainer may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from detection.data.transforms import AUGMENTATIONS, TRAINING
from detection.models import checks
from detection.training.ranges import number

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "step")
PRECISIONS = ("float32", "bfloat16", "float16")
PARALLEL = ("ddp", "fsdp")

# What a resumed run may have otherwise than its checkpoint: SAME is refused, as the course would be neither run's; TOLD
# is what people change on purpose (a longer run, other machines, after a loss that was not finite). Options without an
# entry do not change the course.
SAME, TOLD = "same", "told"
WARMUP = 500  # iterations at most, where none are given


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None, resume: str | None = None) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices, "resume": resume})


@dataclass(frozen=True)
class TrainOptions:
    """How to train. Every field's ``metadata`` has its ``help``, its ``choices`` (None where they are not few) and
    whether a resumed run must have it as its checkpoint does (``resume``: SAME, TOLD or None).

    Raises:
        ValueError: for a value that is not allowed, in one sentence.
    """

    iterations: int = _option(90_000, "optimizer steps of the whole training", resume=TOLD)
    batch: int = _option(2, "images per process and backward pass", resume=TOLD)
    accumulate: int = _option(1, "backward passes whose gradients are averaged for one step", resume=TOLD)
    learning_rate: float = _option(
        1e-4, "after the warm-up; for adamw, while sgd wants about 0.00125 for each image of a step", resume=TOLD
    )
    optimizer: str = _option("adamw", "the optimizer", OPTIMIZERS, SAME)
    momentum: float = _option(0.9, "of sgd", resume=SAME)
    weight_decay: float = _option(1e-4, "of all trained parameters", resume=SAME)
    norm_weight_decay: float | None = _option(None, "of the norms' parameters, if not weight_decay", resume=SAME)
    schedule: str = _option("cosine", "cosine: down to a hundredth; step: times gamma at milestones", SCHEDULES, SAME)
    milestones: tuple[int, ...] = _option(
        (), "iterations at which schedule step lowers the learning rate; 2/3 and 8/9 of all by default", resume=SAME
    )
    gamma: float = _option(0.1, "factor of schedule step", resume=SAME)
    warmup: int | None = _option(
        None,
        f"first iterations, in which the learning rate rises; by default {WARMUP}, or a tenth of all if fewer",
        resume=SAME,
    )
    warmup_factor: float = _option(0.0, "of the learning rate, from where it rises", resume=SAME)
    clip_norm: float = _option(10.0, "greatest norm of all gradients together; 0: any", resume=TOLD)
    ema: float = _option(0.0, "decay of a moving average of the weights, which is then the result; 0: off", resume=SAME)
    precision: str = _option("float32", "of the forward pass; float16 scales the loss", PRECISIONS, TOLD)
    seed: int = _option(0, "of weights, order, augmentation and sampling", resume=SAME)
    workers: int = _option(2, "processes that load data, for each process that trains")
    save_every: int = _option(1000, "iterations between checkpoints")
    evaluate_every: int = _option(0, "iterations between evaluations on the validation data; 0: none")
    log_every: int = _option(20, "iterations between points in TensorBoard, and at most between lines on the console")
    augment: tuple[str, ...] = _option(
        tuple(TRAINING), f"augmentations, in this order, of: {', '.join(AUGMENTATIONS)}", resume=SAME
    )
    resume: bool = _option(True, "go on from a checkpoint that is in the folder")
    stop_after: int | None = _option(None, "end this run after so many iterations; the same command goes on")
    parallel: str = _option("ddp", "several processes: replicas (ddp) or shards (fsdp) of the weights", PARALLEL, TOLD)
    calibration_images: int = _option(16, "images from which frozen norms get statistics where there are no weights")

    def __post_init__(self) -> None:
        least = {
            "iterations": 1,
            "batch": 1,
            "accumulate": 1,
            "workers": 0,
            "save_every": 1,
            "evaluate_every": 0,
            "log_every": 1,
            "calibration_images": 1,
        }
        for name, value in least.items():
            checks.integer(name, getattr(self, name), value)
        checks.integer("seed", self.seed, 0, 2**32 - 1)
        for name in ("stop_after", "warmup"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), 0)
        number("learning_rate", self.learning_rate, above=0)
        number("momentum", self.momentum, least=0, below=1)
        number("weight_decay", self.weight_decay, least=0)
        if self.norm_weight_decay is not None:
            number("norm_weight_decay", self.norm_weight_decay, least=0)
        number("gamma", self.gamma, above=0, most=1)
        number("warmup_factor", self.warmup_factor, least=0, most=1)
        number("clip_norm", self.clip_norm, least=0)
        number("ema", self.ema, least=0, below=1)
        for it in fields(self):
            if it.metadata["choices"]:
                checks.choice(it.name, getattr(self, it.name), it.metadata["choices"])
        self._check_several()

    def _check_several(self) -> None:
        rising = "rising iterations from 1 on"
        milestones = checks.integers("milestones", self.milestones, rising)
        if list(milestones) != sorted(set(milestones)):
            checks.refuse("milestones", milestones, rising)
        object.__setattr__(self, "milestones", milestones)  # YAML has lists
        if not isinstance(self.augment, (list, tuple)):
            checks.refuse("augment", self.augment, f"names out of {', '.join(AUGMENTATIONS)}")
        for name in self.augment:
            checks.choice("augment", name, tuple(AUGMENTATIONS))
        object.__setattr__(self, "augment", tuple(self.augment))
        if not isinstance(self.resume, bool):
            checks.refuse("resume", self.resume, "True or False")

    def resolved(self, before: Mapping[str, Any] | None = None) -> TrainOptions:
        """With a number for ``warmup``: where it is None, that of ``before`` (of a checkpoint, whose run goes on
        perhaps with other ``iterations``), else ``WARMUP`` or a tenth of all iterations."""
        if self.warmup is not None:
            return self
        known = (before or {}).get("warmup")
        return replace(self, warmup=min(WARMUP, self.iterations // 10) if known is None else known)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainOptions:
        """Of :meth:`as_dict`, also through JSON or YAML; what is left out has its default.

        Raises:
            ValueError: for an unknown name, and a value that is not allowed.
        """
        known = [it.name for it in fields(cls)]
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            raise ValueError(f"there is no training option {', '.join(unknown)}; allowed are {', '.join(known)}")
        return cls(**values)
