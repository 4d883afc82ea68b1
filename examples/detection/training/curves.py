"""A picture of a training's log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detection.training.log import read_log

OTHER = ("iteration", "total", "learning_rate", "gradient_norm", "images_per_second", "seconds", "memory_mb")
WINDOW = 1 / 30  # of all iterations, over which losses are averaged


def draw_curves(log: Path, picture: Path) -> None:
    """Losses, learning rate, gradients' norm and, where it was validated, AP against the iteration."""
    records = read_log(log)
    training = [record for record in records if "validation" not in record]
    validation = [record for record in records if "validation" in record]
    if not training:
        return
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    losses, parts, rate, last = figure.subplots(2, 2, sharex=True).flat
    _draw_losses(losses, training, ["total"], "total loss")
    _draw_losses(parts, training, [name for name in training[-1] if name not in OTHER], "parts of the loss")
    iterations = _column(training, "iteration")
    rate.plot(iterations, _column(training, "learning_rate"))
    rate.set_title("learning rate")
    rate.set_ylim(bottom=0)
    if validation:
        _draw_metrics(last, validation)
    else:
        _draw_losses(last, training, ["gradient_norm"], "norm of all gradients")
    for axes in (rate, last):
        axes.set_xlabel("iteration")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=100)


def _column(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([record.get(name) for record in records], dtype=float)  # None becomes NaN


def _draw_losses(axes: Axes, records: Sequence[dict[str, Any]], names: Sequence[str], title: str) -> None:
    """Each as it was, pale, and its moving average."""
    iterations = _column(records, "iteration")
    window = max(1, round(len(records) * WINDOW))
    highest = 0.0
    for name in names:
        values = _column(records, name)
        smooth = _moving_average(values, window)
        (line,) = axes.plot(iterations, smooth, label=name.removeprefix("loss_"))
        if window > 1:
            axes.plot(iterations, values, color=line.get_color(), alpha=0.2, linewidth=0.8, zorder=1)
        highest = max(highest, np.nanmax(smooth, initial=0.0), np.nanpercentile(values, 99) if len(values) else 0.0)
    if np.isfinite(highest) and highest > 0:
        axes.set_ylim(0, 1.05 * highest)  # single peaks do not flatten the rest
    axes.set_title(title)
    if len(names) > 1:
        axes.legend(fontsize="small")


def _moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Of the last ``window`` values, without those that are NaN."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    count = counts[ends] - counts[starts]
    return np.where(count > 0, (sums[ends] - sums[starts]) / np.maximum(count, 1), np.nan)


def _draw_metrics(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    iterations = _column(records, "iteration")
    for kind in records[-1]["validation"]:
        for name, style in (("AP", "o-"), ("AP50", "o:")):
            values = [record["validation"].get(kind, {}).get(name) for record in records]
            axes.plot(iterations, np.array(values, dtype=float), style, markersize=4, label=f"{kind} {name}")
    axes.set_title("validation")
    axes.set_ylim(0, 1)
    axes.legend(fontsize="small")
