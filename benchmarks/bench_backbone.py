"""The whole backbone, inference and one training step, beside torchvision's and torch.compile of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.measure import check_agreement, compare
from benchmarks.results import OURS, Row, Settings
from resnet_cuda import resnet_fpn_backbone

SIZES = {"480x640": (1, 3, 480, 640), "800x1344": (1, 3, 800, 1344)}
TOLERANCE = {torch.float32: 2e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def run(settings: Settings) -> Iterator[Callable[[], Row]]:
    """One measurement per size and mode, each to be called."""
    for name in ["480x640"] if settings.quick else SIZES:
        for mode in ("inference", "training step"):
            yield lambda name=name, mode=mode: _row(name, mode, settings)
    yield lambda: _deformable_row("480x640", settings)


def _prepare(model: nn.Module, settings: Settings) -> nn.Module:
    model = model.to(settings.device)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model


def _image(name: str, settings: Settings) -> Tensor:
    image = torch.randn(*SIZES[name], generator=torch.Generator().manual_seed(0)).to(settings.device)
    return image.contiguous(memory_format=torch.channels_last) if settings.channels_last else image


def _inference(model: nn.Module, image: Tensor, settings: Settings) -> Callable[[], Tensor]:
    model.eval()

    def call() -> Tensor:
        with torch.no_grad(), _autocast(settings):
            return model(image)["0"]

    return call


def _training_step(model: nn.Module, image: Tensor, settings: Settings) -> Callable[[], Tensor]:
    model.train()

    def call() -> Tensor:
        model.zero_grad(set_to_none=True)
        with _autocast(settings):
            outputs = model(image)
        loss = sum(output.float().square().mean() for output in outputs.values())
        loss.backward()
        return loss.detach()

    return call


def _autocast(settings: Settings) -> torch.autocast:
    enabled = settings.dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(settings.device.type, dtype=settings.dtype if enabled else None, enabled=enabled)


def _row(name: str, mode: str, settings: Settings) -> Row:
    image = _image(name, settings)
    prepare_call = _inference if mode == "inference" else _training_step
    own = _prepare(resnet_fpn_backbone("resnet50", trainable_layers=3), settings)
    candidates = {OURS: prepare_call(own, image, settings)}
    notes: dict[str, str] = {}
    try:
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone as torchvision_backbone
    except ImportError as error:
        notes["torchvision"] = str(error).splitlines()[0]
    else:
        peer = _prepare(torchvision_backbone(backbone_name="resnet50", weights=None, trainable_layers=3), settings)
        peer.load_state_dict(own.state_dict())
        candidates["torchvision"] = prepare_call(peer, image, settings)
        if mode == "inference":
            candidates["torchvision, torch.compile"] = prepare_call(torch.compile(peer), image, settings)
            candidates[f"{OURS}, torch.compile"] = prepare_call(torch.compile(own), image, settings)
    expected = candidates[OURS]()
    for candidate, call in candidates.items():
        check_agreement(name, candidate, call(), expected, TOLERANCE[settings.dtype])
    timings = compare(candidates, settings.device, settings.repeats, settings.budget_seconds)
    return Row(f"ResNet-50-FPN {mode}", name, timings, None, notes)


def _deformable_row(name: str, settings: Settings) -> Row:
    """DCNv2 in C3 to C5: there is no builder for it in torchvision, so the dense backbone is what it is held against."""
    image = _image(name, settings)
    dense = _prepare(resnet_fpn_backbone("resnet50"), settings)
    deformable = _prepare(resnet_fpn_backbone("resnet50", dcn_stages=(False, True, True, True)), settings)
    candidates = {
        OURS: _inference(deformable, image, settings),
        "the same without DCN": _inference(dense, image, settings),
    }
    timings = compare(candidates, settings.device, settings.repeats, settings.budget_seconds)
    return Row("ResNet-50-FPN with DCNv2 in C3-C5, inference", name, timings)
