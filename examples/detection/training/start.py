"""How a training begins: from random weights, from given ones, or from its checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import resnet_cuda
from detection import distributed
from detection.models.build import build_model
from detection.models.options import ModelOptions
from detection.models.pretrained import load_pretrained
from detection.training import checkpoint, resume
from detection.training.console import say
from detection.training.ema import WeightAverage
from detection.training.optimizer import make_optimizer
from detection.training.options import TrainOptions
from detection.training.parallel import wrap
from detection.training.precision import grad_scaler
from detection.training.state import TrainingState


def begin(
    dataset: Dataset,
    model_options: ModelOptions,
    options: TrainOptions,
    path: Path,
    device: torch.device,
    weights: Any = None,
    weights_eps: float | None = None,
) -> tuple[TrainingState, nn.Module]:
    """The state at the beginning of this run, and what to call in training.

    Raises:
        ValueError: for a checkpoint at ``path`` that is of another training, and weights that do not fit.
    """
    found = _checkpoint(path, options, device)
    if found is not None:
        resume.check(path, found, model_options, options)
    torch.manual_seed(options.seed)
    model = build_model(model_options).to(device)
    if found is None:
        _fill(model, dataset, model_options, options, device, weights, weights_eps)
    wrapped = wrap(model, options.parallel, device)
    state = TrainingState(
        model_options,
        options,
        model,
        optimizer=make_optimizer(model, options),
        scaler=grad_scaler(options.precision, device),
        average=WeightAverage(model, options.ema) if options.ema else None,
        device=device,
    )
    if found is not None:
        state.restore(found)
        say(f"resumed at iteration {state.iteration}")
        for line in resume.changes(found, options):
            say(line)
    return state, wrapped


def _checkpoint(path: Path, options: TrainOptions, device: torch.device) -> dict[str, Any] | None:
    """What to resume from, on every rank the same."""
    found = checkpoint.load(path, device) if options.resume and path.exists() else None
    iterations = distributed.all_gather(None if found is None else found.get("iteration"))
    if len(set(iterations)) > 1:
        raise ValueError(f"the ranks find different checkpoints at {path}; the folder must be one that all share")
    return found


def _fill(
    model: nn.Module,
    dataset: Dataset,
    model_options: ModelOptions,
    options: TrainOptions,
    device: torch.device,
    weights: Any,
    weights_eps: float | None,
) -> None:
    """Gives a new model its weights, on rank 0 for all: from ``weights``, or statistics to its frozen norms."""
    if distributed.rank() == 0:
        if weights is not None:
            say(load_pretrained(model, model_options, weights, eps=weights_eps))
        elif model_options.norm == "frozen_bn":
            count = min(options.calibration_images, len(dataset))
            indices = random.Random(options.seed).sample(range(len(dataset)), count)
            resnet_cuda.calibrate(model, [dataset[index][0].to(device) for index in indices])
    distributed.broadcast(model)
