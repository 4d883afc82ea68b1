"""Peak memory beyond arguments and results, activation memory, and headline times once more."""

import torch

from benchmarks.cases import layer
from benchmarks.gpu import backbones, cells
from benchmarks.gpu.cells import BACKBONES, OURS, OURS_AUTOCAST
from benchmarks.gpu.context import Context, first_line
from benchmarks.peers.variants import candidate, make_set
from benchmarks.process_memory import peak_megabytes


def _extra_memory(context: Context, stage: str, direction: str, name: str) -> None:
    """What one call holds at its highest beyond what it was given and what it gives."""
    case = layer(stage, 8, context.quick)
    try:
        made = candidate(name, case, [make_set(case, context.device)], direction)
        with made.setting():
            # A warm-up, too: cuBLAS keeps a workspace from its first call on.
            given = sum(result.nbytes for result in made.calls[0]()) / 1e6
            peak = peak_megabytes(made.calls[0], context.device)
    except RuntimeError as error:
        context.not_measured(f"memory, {case.name}, {direction}, {name}", first_line(error))
        return
    extra = None if peak is None else round(peak - given, 2)
    facts = {"op": "deform_conv2d", "stage": stage, "batch": 8, "direction": direction, "candidate": name}
    context.write("memory", **facts, extra_megabytes=extra, result_megabytes=round(given, 2))


def _activation_memory(context: Context, batch: int = 2) -> None:
    """What a forward of the body keeps for its backward, per image, with the four outputs in it."""
    image = backbones.make_image(context, batch)
    own, peer, _ = backbones.float32_models(context, "R-50-FPN")
    for name, model in {OURS_AUTOCAST: own, BACKBONES[2]: peer}.items():
        model.train()
        for _ in range(2):  # the first one makes constants and workspaces
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            with torch.autocast("cuda", torch.bfloat16):
                outputs = model.body(image)
            kept = torch.cuda.memory_allocated() - before
            del outputs
        context.write("memory", op="backbone", candidate=name, kept_megabytes_per_image=round(kept / batch / 1e6, 1))


def run(context: Context) -> None:
    context.needs_native()
    for stage in ("C3", "C4", "C5"):
        for direction in ("forward", "backward"):
            for name in (OURS_AUTOCAST, OURS, "torchvision, autocast bfloat16, TF32 off"):
                if context.enough_time(f"memory, {stage}, {direction}, {name}"):
                    _extra_memory(context, stage, direction, name)
    cells.run(context)
    if context.device.type != "cuda":
        context.not_measured("activation memory", "only the CUDA allocator counts it")
    elif context.enough_time("activation memory"):
        _activation_memory(context)
