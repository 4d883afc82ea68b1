"""The whole backbone, inference and one training step, beside torchvision's; both eager and under torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.activation_memory import stored
from benchmarks.compiling import compiled, first_call_seconds, forget_compiled
from benchmarks.measure import check_agreement, compare
from benchmarks.results import OURS, Row, Settings
from resnet_cuda import resnet_fpn_backbone
from resnet_cuda.layers import DFConv2d

INFERENCE, TRAINING = "inference", "training step"
SIZES = {"480x640": (1, 3, 480, 640), "800x1344": (1, 3, 800, 1344)}
TOLERANCE = {torch.float32: 2e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}

Outputs = dict[str, Tensor]


def run(settings: Settings) -> Iterator[Callable[[], Row]]:
    """One measurement per size and mode, each to be called."""
    for name in ["480x640"] if settings.quick else SIZES:
        for mode in (INFERENCE, TRAINING):
            yield lambda name=name, mode=mode: _row(name, mode, settings)
    yield lambda: _deformable_row("480x640", settings)


def _prepare(model: nn.Module, settings: Settings) -> nn.Module:
    model = model.to(settings.device)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model


def _image(name: str, settings: Settings) -> Tensor:
    image = torch.randn(*SIZES[name], generator=torch.Generator().manual_seed(0)).to(settings.device)
    return image.contiguous(memory_format=torch.channels_last) if settings.channels_last else image


def inference(model: nn.Module, forward: Callable[[], Outputs]) -> Callable[[], Outputs]:
    """A call of ``forward``, which calls ``model``, without gradients."""
    model.eval()
    return torch.no_grad()(forward)


def training_step(model: nn.Module, forward: Callable[[], Outputs]) -> Callable[[], Tensor]:
    """A forward and backward of ``model``, for the mean square of all outputs; gives the loss."""
    model.train()

    def call() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = sum(output.float().square().mean() for output in forward().values())
        loss.backward()
        return loss.detach()

    return call


def _forward(model: nn.Module, image: Tensor, settings: Settings) -> Callable[[], Outputs]:
    def forward() -> Outputs:
        with _autocast(settings):
            return model(image)

    return forward


def _prepare_call(mode: str, model: nn.Module, image: Tensor, settings: Settings) -> Callable[[], object]:
    forward = _forward(model, image, settings)
    return inference(model, lambda: forward()["0"]) if mode == INFERENCE else training_step(model, forward)


def _autocast(settings: Settings) -> torch.autocast:
    enabled = settings.dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(settings.device.type, dtype=settings.dtype if enabled else None, enabled=enabled)


def spread_offsets(model: nn.Module, image: Tensor, pixels: float = 2.0) -> None:
    """Random weights for the convolutions that predict offsets, scaled to offsets of about ``pixels`` on ``image``."""

    def scale(layer: nn.Module, _arguments: object, output: Tensor) -> Tensor:
        factor = pixels / output.std().clamp_min(1e-6)
        layer.weight.mul_(factor)
        return output * factor

    layers = [layer.offset for layer in model.modules() if isinstance(layer, DFConv2d)]
    with torch.no_grad():
        for layer in layers:
            nn.init.normal_(layer.weight)
        hooks = [layer.register_forward_hook(scale) for layer in layers]
        model(image)  # which scales one layer after the other
    for hook in hooks:
        hook.remove()


class _TorchvisionDFConv2d(nn.Module):
    """DFConv2d's parameters around torchvision.ops.deform_conv2d, as detectron2 and mmdetection wire theirs."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.offset = nn.Conv2d(channels, 27, 3, stride, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d

        y, x_, mask = self.offset(x).chunk(3, dim=1)
        tensors = x, torch.cat((y, x_), dim=1), self.conv.weight, mask.sigmoid()
        if x.is_cpu and torch.is_autocast_enabled("cpu"):  # as its rule for autocast on CUDA; it has none for CPUs
            tensors = tuple(it.float() for it in tensors)
        input, offset, weight, mask = tensors
        return deform_conv2d(input, offset, weight, None, self.conv.stride, 1, 1, mask).to(x.dtype)


def torchvision_backbone(own: nn.Module, deformable: bool) -> nn.Module:
    """torchvision's ResNet-50-FPN with the parameters of ``own``; ``deformable``: the 3x3 layers of C3 to C5."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone as build

    model = build(backbone_name="resnet50", weights=None, trainable_layers=3)
    for layer in (model.body.layer2, model.body.layer3, model.body.layer4) if deformable else ():
        for block in layer:
            conv = block.conv2
            block.conv2 = _TorchvisionDFConv2d(conv.in_channels, conv.stride[0])
            block.conv2.requires_grad_(conv.weight.requires_grad)
    model.load_state_dict(own.state_dict())
    return model.to(next(own.parameters()).device)


def _row(name: str, mode: str, settings: Settings) -> Row:
    image = _image(name, settings)
    own = _prepare(resnet_fpn_backbone("resnet50", trainable_layers=3), settings)
    models = {OURS: own}
    notes: dict[str, str] = {}
    try:
        models["torchvision"] = _prepare(torchvision_backbone(own, deformable=False), settings)
    except ImportError as error:
        notes["torchvision"] = str(error).splitlines()[0]
    forget_compiled()
    models |= {f"{candidate}, torch.compile": compiled(model) for candidate, model in models.items()}
    calls, compile_seconds = {}, {}
    for candidate, model in models.items():
        calls[candidate] = call = _prepare_call(mode, model, image, settings)
        if candidate.endswith("torch.compile"):
            compile_seconds[candidate] = first_call_seconds(call)
    expected = calls[OURS]()
    for candidate, call in calls.items():
        check_agreement(name, candidate, call(), expected, TOLERANCE[settings.dtype])
    timings = compare(calls, settings.device, settings.repeats, settings.budget_seconds)
    for candidate, seconds in compile_seconds.items():
        timings[candidate].compile_seconds = seconds
    if mode == TRAINING:
        for candidate, model in models.items():
            kept = stored(_forward(model, image, settings), model).activations
            timings[candidate].stored_megabytes = kept / image.shape[0] / 1e6
    return Row(f"ResNet-50-FPN {mode}", name, timings, None, notes)


def _deformable_row(name: str, settings: Settings) -> Row:
    """DCNv2 in C3 to C5, beside the dense backbone: torchvision has no builder for it."""
    image = _image(name, settings)
    dense = _prepare(resnet_fpn_backbone("resnet50"), settings)
    deformable = _prepare(resnet_fpn_backbone("resnet50", dcn_stages=(False, True, True, True)), settings)
    candidates = {
        OURS: _prepare_call(INFERENCE, deformable, image, settings),
        "the same without DCN": _prepare_call(INFERENCE, dense, image, settings),
    }
    timings = compare(candidates, settings.device, settings.repeats, settings.budget_seconds)
    return Row("ResNet-50-FPN with DCNv2 in C3-C5, inference", name, timings)
