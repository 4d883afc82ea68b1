"""How a training begins: from random weights, from given ones, or from its checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import resnet_cuda
from detection import distributed
from detection.data.errors import DamagedSampleError
from detection.data.loader import Augmented, Checked
from detection.models.build import build_model
from detection.models.options import ModelOptions
from detection.models.pretrained import load_pretrained
from detection.training import checkpoint, norms, resume
from detection.training.console import say
from detection.training.ema import WeightAverage
from detection.training.fingerprint import difference, fingerprint
from detection.training.optimizer import make_optimizer
from detection.training.options import TrainOptions
from detection.training.parallel import wrap
from detection.training.precision import grad_scaler
from detection.training.schedule import too_long_a_warmup
from detection.training.state import TrainingState
from detection.wording import counted


def begin(
    dataset: Dataset,
    model_options: ModelOptions,
    options: TrainOptions,
    path: Path,
    device: torch.device,
    weights: Any = None,
    weights_eps: float | None = None,
) -> tuple[TrainingState, nn.Module, bool]:
    """The state at the beginning of this run, what to call in training, and whether it was resumed.

    Writes nothing.

    Raises:
        ValueError: for a checkpoint at ``path`` that is of another training, and weights that do not fit.
    """
    found = _checkpoint(path, options, device)
    options = options.resolved(None if found is None else found.get("train_options"))
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
        data=fingerprint(dataset),
    )
    say(too_long_a_warmup(options))
    if found is not None:
        state.restore(found)
        say(f"resumed at iteration {state.iteration}")
        for line in (*resume.changes(found, options), difference(found.get("data"), state.data)):
            say(line)
    return state, wrapped, found is not None


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
        elif model_options.norm == "frozen_bn" or norms.frozen(model):
            images = _some_images(dataset, model_options, options, device)
            measure = resnet_cuda.calibrate if model_options.norm == "frozen_bn" else norms.measure_frozen
            layers = measure(model, images)
            say(f"from scratch: statistics of {counted(layers, 'norm')} measured on {counted(len(images), 'image')}")
    distributed.broadcast(model)


def _some_images(
    dataset: Dataset, model_options: ModelOptions, options: TrainOptions, device: torch.device
) -> list[Tensor]:
    """Images (3, H, W) at random, checked as the loader checks them.

    Raises:
        DamagedSampleError: naming the sample.
    """
    targets, keypoints = model_options.targets, len(model_options.keypoint_names)
    checked = Checked(dataset, targets, model_options.max_size, keypoints if targets == "keypoints" else None)
    samples = Augmented(checked, (), options.seed)
    count = min(options.calibration_images, len(dataset))
    images = []
    for index in random.Random(options.seed).sample(range(len(dataset)), count):
        sample = samples[0, index]
        if isinstance(sample, DamagedSampleError):
            raise sample
        images.append(sample[0].to(device))
    return images
