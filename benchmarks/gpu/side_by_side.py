"""One comparison: candidates that agree with float32 are timed in turns, each gets a result line."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from benchmarks.gpu import layers, names, predictions, timing
from benchmarks.gpu.context import Context, first_line
from benchmarks.gpu.layers import Layer
from benchmarks.gpu.records import best_known
from benchmarks.gpu.variants import VARIANTS, Variant, candidate
from benchmarks.measure import relative_error
from resnet_cuda import reference

GRADIENTS = ("input", "offset", "weight", "mask")


def effort(context: Context) -> timing.Effort:
    return timing.QUICK if context.quick else timing.Effort()


_TRUTHS: OrderedDict[tuple, dict[str, tuple[torch.Tensor, ...]]] = OrderedDict()
TRUTHS_KEPT = 3  # shapes; the steps go through the comparisons of one shape before the next


def truth_of(context: Context, layer: Layer, offset_pixels: float | str, sets: Sequence) -> dict[str, tuple]:
    """``truth`` of the first set, made once per shape: its values depend on nothing else."""
    key = (context.device, context.quick, str(layer), offset_pixels)
    if key not in _TRUTHS:
        _TRUTHS[key] = truth(context, sets)
        while len(_TRUTHS) > TRUTHS_KEPT:
            _TRUTHS.popitem(last=False)
    return _TRUTHS[key]


def truth(context: Context, sets: Sequence) -> dict[str, tuple[torch.Tensor, ...]]:
    """Forward and backward of the first set in float32, by torchvision, or by our reference where it is not installed."""
    variant = VARIANTS[names.TORCHVISION_FLOAT32]
    try:
        import torchvision  # noqa: F401
    except ImportError:
        by_reference = lambda x, offset, weight, mask: reference.deform_conv2d(x, offset, weight, None, 1, 1, 1, mask)  # noqa: E731
        variant = Variant("reference", by_reference, torch.float32, torch.float32, None)
    results = {direction: candidate(variant, sets[:1], direction) for direction in (names.FORWARD, names.BACKWARD)}
    with variant.setting():
        return {direction: tuple(t.detach() for t in one.calls[0]()) for direction, one in results.items()}


def errors(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> dict[str, float]:
    """Largest difference over the largest value, by what it is of."""
    labels = ("output",) if len(expected) == 1 else GRADIENTS
    return {
        label: relative_error(one, right) if one.shape == right.shape else float("inf")
        for label, one, right in zip(labels, results, expected, strict=True)
    }


def compare(
    context: Context,
    layer: Layer,
    direction: str,
    wanted: Sequence[str],
    offset_pixels: float | str = layers.OFFSET_PIXELS,
    cached: bool = True,
) -> dict[str, dict]:
    """Measures the variants named ``wanted``, the first one as A of A-B-A; gives their result lines by name."""
    # As many sets as the smallest arguments (16 bit) need, and the same ones for all.
    count = timing.sets_needed(layers.bytes_moved(layer, 2), context.device)
    sets = layers.make_sets(layer, context.device, count, offset_pixels)
    expected = truth_of(context, layer, offset_pixels, sets)[direction]
    candidates, off_by = [], {}
    for name in wanted:
        try:
            made = candidate(VARIANTS[name], sets, direction)
            with made.setting():
                off_by[name] = errors(made.calls[0](), expected)
        except ImportError as error:
            context.not_measured(f"{layer}, {direction}, {name}", first_line(error))
            continue
        except RuntimeError as error:  # kernels that refuse this dtype; more memory than there is
            context.not_measured(f"{layer}, {direction}, {name}", first_line(error))
            if name.startswith("resnet_cuda"):
                context.failures.append(f"{layer}, {direction}, {name}: {first_line(error)}")
            continue
        tolerance, worst = VARIANTS[name].tolerance, max(off_by[name].values())
        if tolerance is not None and not worst <= tolerance:
            context.not_measured(
                f"{layer}, {direction}, {name}", f"differs from float32 by {off_by[name]}; allowed {tolerance}"
            )
            context.failures.append(f"{name} is wrong at {layer} {direction}")
            continue
        candidates.append(made)
    if not candidates:
        return {}
    times = timing.compare_in_turns(candidates, context.device, effort(context), cached)
    lines = {name: one.record() for name, one in times.items()}
    for name, line in lines.items():
        facts = {"op": names.DEFORM_CONV, "direction": direction, "stage": layer.stage, "batch": layer.batch}
        _write(context, facts | {"candidate": name, "offset_pixels": offset_pixels}, line, lines, off_by[name])
    return lines


def _write(context: Context, facts: dict, line: dict, lines: dict[str, dict], off_by: dict[str, float]) -> None:
    """A time with the floor, the prediction and, for ours, how many times as long the others take."""
    floor = predictions.floor_us(facts["direction"], facts["batch"], facts["candidate"])
    predicted = predictions.predicted_us(facts["direction"], facts["stage"], facts["batch"], facts["candidate"])
    time = best_known(line)
    ratios = {}
    if facts["candidate"].startswith("resnet_cuda"):
        others = {name: best_known(other) for name, other in lines.items() if not name.startswith("resnet_cuda")}
        ratios = {name: round(other / time, 3) for name, other in others.items()}
    context.write(
        "time",
        **facts,
        **line,
        floor_us=floor,
        over_floor=None if floor is None else round(time / floor, 3),
        predicted_us=predicted,
        times_of_ours=ratios,
        error={label: float(f"{error:.3g}") for label, error in off_by.items()},
    )
