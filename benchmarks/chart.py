"""The README's chart: ``python -m benchmarks.chart RESULTS.json --out docs/inference.png``.

It shows the float32 cases of the part ``inference``: milliseconds per image, a panel per network and size.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

OURS = "resnet_cuda"
LABELS = {  # by candidate, in the order of the bars
    OURS: "resnet_cuda, optimized",
    "torchvision": "torchvision",
    "torchvision, torch.compile": "torchvision, torch.compile",
    "ONNX Runtime": "ONNX Runtime",
    "OpenVINO": "OpenVINO",
}
NETWORKS = {
    "ResNet-50-FPN, deployed": "R-50-FPN",
    "ResNet-50-FPN with DCNv2 in C3-C5, deployed": "R-50-FPN, DCNv2 in C3-C5",
}
SIZES = ("480x640", "800x1344")
PEERS = {"torch": "torch", "torchvision": "torchvision", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
OWN_COLOUR, PEER_COLOUR, TEXT = "#1f5fa8", "#b5bcc4", "#333333"

Panel = dict[str, float]  # milliseconds by candidate


def panels(results: dict[str, Any]) -> dict[tuple[str, str], Panel]:
    """The medians of the cases in the file, by network and size, in the order of the chart.

    Raises:
        ValueError: if the file has none of them.
    """
    found = {}
    for part in NETWORKS:
        for size in SIZES:
            for row in results["rows"]:
                if (row["part"], row["case"]) == (part, f"{size}, float32"):
                    times = {name: it["median_ms"] for name, it in row["candidates"].items() if name in LABELS}
                    found[part, size] = {name: times[name] for name in LABELS if name in times}
    if not found:
        raise ValueError("the results have no float32 case of the part 'inference'; measure it first")
    return found


def caption(environment: dict[str, Any]) -> str:
    """Machine, versions, date, in two lines."""
    machine = environment.get("gpu") or f"{environment['processor']}, {environment['threads']} threads"
    versions = ", ".join(f"{label} {environment[name]}" for name, label in PEERS.items() if environment.get(name))
    return f"Batch 1, medians of one run; shorter is faster.  {machine}, {environment['date']}\n{versions}"


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes the chart, 1600 pixels wide, so that it is sharp where it is shown at 800."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = panels(results)
    rows = [part for part in NETWORKS if any(key[0] == part for key in found)]
    columns = [size for size in SIZES if any(key[1] == size for key in found)]
    figure = Figure(figsize=(8, 1.2 + 1.75 * len(rows)), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(hspace=0.06, h_pad=0.06, w_pad=0.06)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, part in enumerate(rows):
        for column, size in enumerate(columns):
            axis = axes[row][column]
            if (part, size) in found:
                _draw_panel(axis, found[part, size], with_names=column == 0)
                axis.set_title(f"{NETWORKS[part]}, {size}", loc="left", fontsize=10, color=TEXT)
            else:
                axis.set_axis_off()
    figure.suptitle("Inference, float32: milliseconds per image", x=0.01, ha="left", fontsize=12, weight="bold")
    figure.supxlabel(caption(results["environment"]), x=0.01, ha="left", fontsize=7.5, color=TEXT)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)


def _draw_panel(axis, panel: Panel, with_names: bool) -> None:
    """Each has its own scale, from 0: a deformable network is many times slower in some libraries."""
    longest, own = max(panel.values()), panel.get(OURS)
    for position, name in enumerate(LABELS):
        if name not in panel:
            axis.text(longest / 100, position, "not available", va="center", fontsize=8, color=TEXT)
            continue
        axis.barh(position, panel[name], height=0.72, color=OWN_COLOUR if name == OURS else PEER_COLOUR)
        times = "" if name == OURS or own is None else f"  ({panel[name] / own:.2f}x)"
        weight = "bold" if name == OURS else "normal"
        axis.text(
            panel[name] + longest / 100,
            position,
            f"{panel[name]:.0f}{times}",
            va="center",
            fontsize=8.5,
            color=TEXT,
            weight=weight,
        )
    axis.set_yticks(range(len(LABELS)), LABELS.values() if with_names else [""] * len(LABELS), fontsize=8.5)
    axis.set_ylim(len(LABELS) - 0.45, -0.55)
    axis.set_xlim(0, 1.3 * longest)
    axis.set_xticks([])
    axis.tick_params(length=0, colors=TEXT)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color(PEER_COLOUR)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="a JSON file that python -m benchmarks inference has written")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    chosen = parser.parse_args(arguments)
    try:
        draw(json.loads(chosen.results.read_text(encoding="utf-8")), chosen.out)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{chosen.results}: {error}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
