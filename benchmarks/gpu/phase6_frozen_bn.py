"""Phase 6: frozen_bn_relu on the activations of a ResNet-50, as a share of the speed of a plain copy."""

from __future__ import annotations

import functools

import torch

from benchmarks import bench_frozen_bn
from benchmarks.gpu import names
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.phase1_ceilings import copy
from benchmarks.gpu.records import best_known
from benchmarks.gpu.side_by_side import effort
from benchmarks.gpu.timing import Candidate, compare_in_turns, sets_needed
from benchmarks.measure import relative_error

# What is written at 800x1344, in bfloat16: 275, 275, 138, 69, 34 and 9 MB.
ACTIVATIONS = {
    "stem, batch 8": (8, 64, 400, 672),
    "C2, batch 8": (8, 256, 200, 336),
    "C3, batch 8": (8, 512, 100, 168),
    "C4, batch 8": (8, 1024, 50, 84),
    "C5, batch 8": (8, 2048, 25, 42),
    "C4, batch 1": (1, 1024, 50, 84),
}
QUICK_ACTIVATIONS = {"stem, batch 8": (2, 3, 8, 7), "C4, batch 8": (2, 8, 5, 7)}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
VARIANTS = bench_frozen_bn.VARIANTS | bench_frozen_bn.MORE_VARIANTS
CANDIDATES = (bench_frozen_bn.OURS, "eager")
COPY = "copy of as many bytes"


def activations(context: Context) -> dict[str, tuple[int, ...]]:
    return QUICK_ACTIVATIONS if context.quick else ACTIVATIONS


def candidates(context: Context, size: tuple[int, ...], layout: str, variant: str) -> list[Candidate]:
    """Ours, the eager operations of a block and a plain copy, each on as many activations as L2 does not hold.

    The copy moves as many bytes as ours: a call on a small activation cannot reach the speed of copying gigabytes.
    """
    generator = torch.Generator(context.device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=context.device)

    def activation() -> torch.Tensor:
        return random(*size).bfloat16().contiguous(memory_format=LAYOUTS[layout])

    set_bytes = bench_frozen_bn.TENSORS[variant] * 2 * torch.Size(size).numel()
    scale, shift = random(size[1]).abs() + 0.5, random(size[1])
    calls: dict[str, list] = {name: [] for name in (*CANDIDATES, COPY)}
    for _ in range(sets_needed(set_bytes, context.device)):
        made = VARIANTS[variant](activation(), scale, shift, activation(), activation())
        for name in CANDIDATES:
            calls[name].append(made[name])
        source = torch.empty(set_bytes // 4, dtype=torch.bfloat16, device=context.device).normal_()
        calls[COPY].append(functools.partial(torch.empty_like(source).copy_, source))
    return [Candidate(name, own) for name, own in calls.items()]


def agreement(own: Candidate, eager: Candidate, *_: Candidate) -> float:
    """The worst error over the results of the first calls."""
    pairs = [one if isinstance(one, tuple) else (one,) for one in (own.calls[0](), eager.calls[0]())]
    return max(relative_error(a, b) for a, b in zip(*pairs, strict=True))


def measure(context: Context, where: str, layout: str, variant: str, bandwidth: float) -> dict[str, dict]:
    """Result lines by candidate, on record; nothing where the results differ."""
    size = activations(context)[where]
    made = candidates(context, size, layout, variant)
    error = agreement(*made)
    if not error <= bench_frozen_bn.TOLERANCE[torch.bfloat16]:
        context.failures.append(f"{where}, {layout}, {variant}: differs from the eager operations by {error:.3g}")
        context.not_measured(f"{where}, {layout}, {variant}", f"differs by {error:.3g}")
        return {}
    moved = bench_frozen_bn.TENSORS[variant] * 2 * torch.Size(size).numel()
    lines = {name: times.record() for name, times in compare_in_turns(made, context.device, effort(context)).items()}
    copied = best_known(lines[COPY])
    for name, line in lines.items():
        share = moved / best_known(line) / 1e3 / bandwidth
        facts = {"op": names.FROZEN_BN, "activation": where, "size": size, "layout": layout, "variant": variant}
        shares = {"share_of_copy": round(share, 4), "share_of_same_copy": round(copied / best_known(line), 4)}
        lines[name] = line | shares | {"bytes": moved}
        context.write("time", **facts, candidate=name, **lines[name], error=float(f"{error:.3g}"))
    return lines


def run(context: Context) -> None:
    context.needs_native()
    context.write("clocks", **read_clocks(context.device))
    megabytes = 2 if context.quick else 4000
    bandwidth = copy(context, megabytes)["gigabytes_per_second"]
    for layout in LAYOUTS:
        for where in activations(context):
            for variant in VARIANTS:
                if context.enough_time(f"{where}, {layout}, {variant}"):
                    measure(context, where, layout, variant, bandwidth)
    after = copy(context, megabytes)["gigabytes_per_second"]
    context.write("ceiling", item="copy, before and after FrozenBN", gigabytes_per_second=[bandwidth, after])
    context.write("clocks", **read_clocks(context.device))
    context.check()
