"""What a GPU run times, as a table by step. One cell is one comparison in one process; a further one is a line here."""

from dataclasses import dataclass

from benchmarks.bench_backbone import INFERENCE, TRAINING
from benchmarks.bench_frozen_bn import MORE_VARIANTS, VARIANTS
from benchmarks.cases import UNIFORM
from benchmarks.gpu.context import Context
from benchmarks.records import BACKBONES as BACKBONES_PHASE

LAYERS = (("C4", 8), ("C3", 8), ("C5", 8), ("C4", 1), ("C3", 1), ("C5", 1))  # stage, batch; the important ones first
ACTIVATIONS = (("stem", 8), ("C2", 8), ("C3", 8), ("C4", 8), ("C5", 8), ("C4", 1), ("C5", 1), ("C3", 1))
OURS, OURS_AUTOCAST = "resnet_cuda, bfloat16", "resnet_cuda, autocast bfloat16"
PEERS_AUTOCAST = ("torchvision, autocast bfloat16, TF32 off", "torchvision, autocast bfloat16, TF32 on")
AUTOCAST = (OURS_AUTOCAST, *PEERS_AUTOCAST, OURS)
TF32 = OURS_TF32, PEER_TF32 = ("resnet_cuda, float32, TF32 on", "torchvision, float32, TF32 on")
FLOAT32 = _, PEER_FLOAT32 = ("resnet_cuda, float32, TF32 off", "torchvision, float32, TF32 off")
OURS_OPTIMIZED = "resnet_cuda, optimized, bfloat16"
BACKBONES = (OURS, OURS_AUTOCAST, "torchvision, autocast bfloat16")
MODES = ((INFERENCE, 1), (TRAINING, 8), (INFERENCE, 8), (TRAINING, 2))


@dataclass(frozen=True)
class Cell:
    """One comparison of ``candidates`` of ``op``. The first candidate is timed before and after the others (A-B-A)."""

    op: str
    where: str  # a stage, an activation or a backbone
    batch: int
    what: str  # a direction, a FrozenBN variant or a backbone's mode
    candidates: tuple[str, ...] = ()
    layout: str = "channels_last"  # of FrozenBN; deformable convolutions get the layout of their own users
    offset_pixels: float | str = 2.0


def _layers(layers: tuple, *candidates: str, offset_pixels: float | str = 2.0) -> list[Cell]:
    both = ("forward", "backward")
    return [Cell("deform_conv2d", *one, way, candidates, offset_pixels=offset_pixels) for one in layers for way in both]


def _backbone(kind: str, modes: tuple, *candidates: str) -> list[Cell]:
    return [Cell("backbone", kind, batch, mode, candidates) for mode, batch in modes]


CELLS = {
    "ours": _layers(LAYERS, OURS, OURS_AUTOCAST),
    "ratios": [
        *_layers(LAYERS[:1], *AUTOCAST),
        *_layers(LAYERS[:1], *TF32),
        *_layers(LAYERS[:1], *FLOAT32),
        *_layers(LAYERS[1:], *AUTOCAST),
    ],
    "variants": [
        *(cell for pixels in (2.0, 0.0, 8.0, UNIFORM) for cell in _layers(LAYERS[:1], OURS, offset_pixels=pixels)),
        *_layers((("C4", 2), ("C3", 2), ("C5", 2)), OURS, OURS_TF32),
        *_layers(LAYERS[:1], "resnet_cuda, float16", "mmcv, float16"),
        *_layers(LAYERS[1:3], *TF32),
    ],
    "peers": _layers(LAYERS, PEER_FLOAT32, PEER_TF32, *PEERS_AUTOCAST, "mmcv, float32, TF32 off", "mmcv, float16"),
    "frozen_bn": [
        Cell("frozen_bn_relu", *activation, variant, layout=layout)
        for layout in ("channels_last", "contiguous")
        for activation in ACTIVATIONS
        for variant in VARIANTS | MORE_VARIANTS
    ],
    "deformable": _backbone("R-50-DCN", MODES, *BACKBONES, f"{BACKBONES[2]}, TF32 on for its deform_conv2d"),
    "plain": _backbone("R-50-FPN", MODES, *BACKBONES, "torchvision, all bfloat16"),
    "memory": [*_layers(LAYERS[:1], OURS), Cell("frozen_bn_relu", "C4", 8, "in place with residual")],
    "optimized": [
        *_backbone("R-50-FPN", (MODES[0], MODES[2]), OURS_OPTIMIZED, OURS, "torchvision, all bfloat16"),
        *_backbone("R-50-DCN", (MODES[0], MODES[2]), OURS_OPTIMIZED, OURS, "torchvision, autocast bfloat16"),
    ],
    "autotune": _backbone(
        "R-50-FPN", MODES[:1], OURS_OPTIMIZED, "torchvision, all bfloat16, torch.compile, max-autotune"
    ),
    "compile": _backbone("R-50-FPN", MODES[:1], OURS, "torchvision, all bfloat16, torch.compile"),
}


def run(context: Context) -> None:
    """Measures the cells of the context's step, the most important ones first, as long as there is time."""
    from benchmarks.gpu import backbones, ceilings, deform_conv, frozen_bn  # which take a Cell

    measure = {"deform_conv2d": deform_conv.measure, "frozen_bn_relu": frozen_bn.measure, "backbone": backbones.measure}
    context.needs_native()
    context.write_clocks()
    cells = CELLS[context.step]
    if context.quick and context.phase == BACKBONES_PHASE:  # a dry run: backbones take seconds each
        cells = cells[:2]
    for cell in cells:
        shown = f"{cell.op}, {cell.where}, batch {cell.batch}, {cell.what}, {cell.layout}, {cell.offset_pixels} pixels"
        if context.enough_time(", ".join((shown, *cell.candidates))):
            measure[cell.op](context, cell)
    if context.step == "frozen_bn":
        ceilings.copy(context, "copy, after FrozenBN")
    context.write_clocks()
