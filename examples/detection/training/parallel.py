"""One model on several processes: DDP's replicas or FSDP's shards."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from detection import distributed

# What torchvision's detectors call by forward alone, beside the backbone's blocks. The model itself is the last unit,
# of all that is in none of these: the stem, the RPN, the predictors.
UNITS = ("backbone.fpn", "roi_heads.box_head", "roi_heads.mask_head", "roi_heads.keypoint_head", "head")

# Not before each forward pass: frozen norms' statistics do not change. Since torch 2.13 by another name.
_BUFFERS = "forward_sync_buffers", "broadcast_buffers"
NO_BUFFERS = {next(it for it in _BUFFERS if it in inspect.signature(DistributedDataParallel).parameters): False}


def wrap(model: nn.Module, kind: str, device: torch.device) -> nn.Module:
    """What to call in training: ``model`` itself with one process; ``kind`` is "ddp" or "fsdp".

    ``model`` keeps its parameters' names. Under FSDP they become DTensors, so that an optimizer is made afterwards.
    """
    if distributed.world_size() == 1:
        return model
    if kind == "ddp":
        norms = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())
        return DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            **({} if norms else NO_BUFFERS),
        )
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _units(model: nn.Module) -> Iterator[nn.Module]:
    for stage in model.backbone.body.children():
        if isinstance(stage, nn.Sequential) and any(True for _ in stage.parameters()):
            yield from stage.children()
    for name in UNITS:
        with contextlib.suppress(AttributeError):  # of another kind of detector
            unit = model.get_submodule(name)
            if any(True for _ in unit.parameters()):
                yield unit


@contextlib.contextmanager
def backward(wrapped: nn.Module, synchronise: bool) -> Iterator[None]:
    """Around forward and backward: gradients are averaged over the processes in the last of accumulated ones only."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(synchronise)
    with contextlib.ExitStack() as stack:
        if isinstance(wrapped, DistributedDataParallel) and not synchronise:
            stack.enter_context(wrapped.no_sync())
        yield
