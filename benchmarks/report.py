"""The table on the terminal, the JSON file and the plot of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.results import Comparison


def table(rows: list[Comparison]) -> str:
    """One line per candidate: median, time relative to ours, memory."""
    lines = []
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        titles = list(dict.fromkeys(title for row in own for name in row.names for title in row.cells(name)))
        lines += ["", part, f"  {'case':<62}{'candidate':<38}" + "".join(f"{title:>13}" for title in titles)]
        for row in own:
            case = row.case
            for name in row.names:
                label = f"{name} (baseline)" if name == row.floor else name
                cells = row.cells(name)
                lines.append(f"  {case:<62}{label:<38}" + "".join(f"{cells.get(title, ''):>13}" for title in titles))
                case = ""
    for name, reason in {key: value for row in rows for key, value in row.notes.items()}.items():
        lines.append(f"  without {name}: {reason}")
    return "\n".join(line.rstrip() for line in lines)


def write_json(path: Path, environment: dict[str, object], rows: list[Comparison]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"environment": environment, "rows": [row.as_json() for row in rows]}, indent=1) + "\n",
        encoding="utf-8",
    )


def write_plots(base: Path, environment: dict[str, object], rows: list[Comparison]) -> None:
    """One file per part: bars relative to ours, logarithmic because peers differ by a hundred times."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    where = environment.get("gpu", environment["processor"])
    machine = f"{where}, {environment['threads']} threads, torch {environment['torch']}, {environment['date']}"
    base.parent.mkdir(parents=True, exist_ok=True)
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        figure = Figure(figsize=(9, 1.4 + 0.16 * sum(len(row.names) + 1 for row in own)), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        _draw_part(axis, own, list(dict.fromkeys(name for row in own for name in row.names)))
        title = f"{part}: {own[0].quantity} relative to resnet_cuda (further right is more)\n{machine}"
        axis.set_title(title, loc="left", fontsize=9)
        name = "-".join(re.findall(r"[a-z0-9]+", part.lower()))
        figure.savefig(base.with_name(f"{base.name}-{name}.png"), dpi=90)


def _draw_part(axis, rows: list[Comparison], names: list[str]) -> None:
    colours = {name: f"C{index % 10}" for index, name in enumerate(names)}
    position, ticks, labelled = 0.0, [], set()
    for row in rows:
        first = position
        for name in row.names:
            ratio, text = row.bar(name)
            axis.barh(position, ratio, height=0.9, color=colours[name], label=None if name in labelled else name)
            axis.text(ratio, position, f" {text}", va="center", fontsize=6)
            labelled.add(name)
            position += 1
        ticks.append(((first + position - 1) / 2, row.case))
        position += 1
    axis.set_yticks([tick for tick, _ in ticks], [case for _, case in ticks], fontsize=7)
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=0.6)
    axis.invert_yaxis()
    axis.legend(fontsize=6, loc="lower right")
