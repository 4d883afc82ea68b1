"""Small networks with everything a backbone can have, and statistics that are none of 0 and 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from resnet_cuda import build_backbone, resnet_fpn_backbone
from resnet_cuda.config import CfgNode, get_cfg
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d


def randomise(network: nn.Module, seed: int = 1) -> nn.Module:
    """Statistics that keep activations near 1, and offsets and masks that move."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator, dtype=like.dtype)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
                module.weight.copy_(uniform(module.weight, 0.3, 0.7))
                module.bias.copy_(uniform(module.bias, -0.3, 0.3))
                module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.8, 1.2))
            if isinstance(module, DFConv2d):
                module.offset.weight.copy_(uniform(module.offset.weight, -0.05, 0.05))
    return network


def torchvision_style(dcn: bool = True, name: str = "resnet50", norm: str = "frozen_bn", width: int = 8) -> nn.Module:
    """A narrow ResNet-FPN with every parameter trained and, with ``dcn``, deformable C4 and C5."""
    torch.manual_seed(0)
    network = resnet_fpn_backbone(
        name,
        trainable_layers=5,
        norm_layer=norm,
        dcn_stages=(False, False, dcn, dcn),
        width=width,
        fpn_channels=16,
    )
    return randomise(network)


def narrow_cfg(body: str = "R-50-FPN", width: int = 8, **resnets: object) -> CfgNode:
    """maskrcnn-benchmark's configuration of a narrow ``body``, with ``resnets`` in MODEL.RESNETS."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.CONV_BODY = body
    widths = {"STEM_OUT_CHANNELS": width, "WIDTH_PER_GROUP": width, "RES2_OUT_CHANNELS": 2 * width}
    cfg.MODEL.RESNETS.update(widths | resnets)
    return cfg


def narrow_fpn(**options: object) -> nn.Module:
    """torchvision's ResNet-18 with a pyramid, at an eighth of the channels."""
    return resnet_fpn_backbone("resnet18", width=8, fpn_channels=8, **options)


def cfg_built(dcn: bool = True) -> nn.Module:
    """maskrcnn-benchmark's body and pyramid, narrow, every parameter trained; with ``dcn`` v2 in C4 and C5."""
    torch.manual_seed(0)
    dcn_keys = {"STAGE_WITH_DCN": (False, False, dcn, dcn), "WITH_MODULATED_DCN": True}
    cfg = narrow_cfg(RES2_OUT_CHANNELS=32, BACKBONE_OUT_CHANNELS=16, **dcn_keys)
    cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = 0
    return randomise(build_backbone(cfg))


def frozen_norms(network: nn.Module) -> dict[str, FrozenBatchNorm2d]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, FrozenBatchNorm2d)}


def deformable_stages(backbone: nn.Module) -> set[str]:
    """The names of the body's stages that have a DFConv2d."""
    return {name.split(".")[0] for name, layer in backbone.body.named_modules() if isinstance(layer, DFConv2d)}


@contextlib.contextmanager
def one_process_group(folder: Path) -> Iterator[None]:
    """torch.distributed with this process alone, for DistributedDataParallel."""
    store = torch.distributed.FileStore(str(folder / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def levels_of(output) -> list[Tensor]:
    return list(output.values()) if isinstance(output, dict) else list(output)


def loss_of(output) -> Tensor:
    """Not linear, so that second derivatives are not 0."""
    return sum((level.float() ** 2).mean() for level in levels_of(output))


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """The parameters' gradients, which are then cleared."""
    found = {name: it.grad.clone() for name, it in network.named_parameters() if it.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    """The same names with close values; the message names the first that is not."""
    assert expected
    torch.testing.assert_close(got, expected, **tolerance)
