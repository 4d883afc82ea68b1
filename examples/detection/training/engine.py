"""The training loop."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from torchvision.models.detection import MaskRCNN
from tqdm import tqdm

import resnet_cuda
from detection import distributed
from detection.data.coco_dataset import Transform
from detection.data.custom import check_dataset
from detection.data.loader import training_loader
from detection.models.build import build_model
from detection.models.options import ModelOptions
from detection.training import checkpoint
from detection.training.options import TrainOptions

CALIBRATION_IMAGES = 16


def learning_rate(options: TrainOptions, iteration: int) -> float:
    if iteration < options.warmup:
        return options.learning_rate * (iteration + 1) / options.warmup
    progress = (iteration - options.warmup) / max(1, options.iterations - options.warmup)
    return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _calibrate(model: MaskRCNN, dataset: Dataset, device: torch.device, seed: int) -> None:
    """Measures the frozen norms' statistics on random images, on rank 0 for all."""
    indices = random.Random(seed).sample(range(len(dataset)), min(CALIBRATION_IMAGES, len(dataset)))
    if distributed.rank() == 0:
        resnet_cuda.calibrate(model, [dataset[index][0].to(device) for index in indices])
    distributed.broadcast(model)


def train(
    dataset: Dataset,
    model_options: ModelOptions,
    options: TrainOptions,
    path: Path,
    device: torch.device,
    transforms: Sequence[Transform] = (),
) -> MaskRCNN:
    """Trains from scratch, or goes on from the checkpoint at ``path`` where there is one and ``options.resume``.

    A resumed run sees the same samples under the same augmentation as one that was never interrupted.

    Raises:
        TypeError: for a data set that lacks a method, see :func:`check_dataset`.
        ValueError: for a checkpoint of another model or seed, or a loss that is NaN or infinite.
    """
    check_dataset(dataset)
    torch.manual_seed(options.seed)
    model = build_model(model_options).to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    first = 0
    if options.resume and path.exists():
        state = checkpoint.load(path, device)
        if checkpoint.options_of(path, state) != model_options or state["seed"] != options.seed:
            raise ValueError(f"{path} is of another model or seed; remove it, or give another --output or --no-resume")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["iteration"]
    elif model_options.norm == "frozen_bn":
        _calibrate(model, dataset, device, options.seed)
    last = options.iterations if options.stop_after is None else min(options.iterations, first + options.stop_after)

    def save(iteration: int) -> None:
        if distributed.rank() == 0:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "iteration": iteration,
                "options": model_options.as_dict(),
                "seed": options.seed,
            }
            checkpoint.save(path, state)
        distributed.barrier()

    wrapped = model
    if distributed.world_size() > 1:
        wrapped = DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
        )
    loader = training_loader(
        dataset,
        transforms,
        batch=options.batch,
        workers=options.workers,
        seed=options.seed,
        start=first * options.batch,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    model.train()
    bar = tqdm(
        total=options.iterations,
        initial=first,
        desc="train",
        unit="it",
        disable=distributed.rank() != 0,
        file=sys.stdout,
        mininterval=5,
    )
    batches = iter(loader) if first < last else iter(())
    for iteration in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options, iteration)
        images, targets = next(batches)
        loss = _step(wrapped, optimizer, images, targets, device, options, iteration)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update()
        if (iteration + 1) % options.save_every == 0 or iteration + 1 == last:
            save(iteration + 1)
    bar.close()
    return model


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: list[torch.Tensor],
    targets: list[dict],
    device: torch.device,
    options: TrainOptions,
    iteration: int,
) -> float:
    # The detector samples anchors and proposals at random: seeded at each step, so that a resumed run repeats them.
    torch.manual_seed((options.seed * 1_000_003 + iteration) * 1009 + distributed.rank())
    images = [image.to(device, non_blocking=True) for image in images]
    targets = [
        {
            name: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
            for name, value in target.items()
        }
        for target in (_without_crowds(target) for target in targets)
    ]
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.bfloat16):
        losses = model(images, targets)
        loss = sum(losses.values())
    value = float(loss.detach())
    if not math.isfinite(value):
        parts = ", ".join(f"{name} {float(part.detach()):.4g}" for name, part in losses.items())
        raise ValueError(f"the loss of iteration {iteration} is {value} ({parts}); a lower --learning-rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimizer.step()
    return value


def _without_crowds(target: dict) -> dict:
    """Crowd regions count in the evaluation only; a custom data set may have no ``iscrowd``."""
    if "iscrowd" not in target:
        return target
    single = target["iscrowd"] == 0
    return {**target, **{name: target[name][single] for name in ("boxes", "labels", "masks", "iscrowd")}}
