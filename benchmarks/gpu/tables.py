"""Markdown tables of a result file: ``python -m benchmarks.gpu.tables [FILE] [--table NAME]``; nothing here needs torch.

Without a result file of a GPU every cell says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu import expected, names, predictions
from benchmarks.gpu.names import BACKWARD, FORWARD
from benchmarks.gpu.records import latest, read

NOT_YET = "not yet measured"
LARGEST_MISS = 0.30


def markdown(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return NOT_YET
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def caption(records: list[dict]) -> str:
    """What it was measured on; that it was not, where the records are a dry run's."""
    facts = latest(records, kind="environment")
    if facts is None:
        return "No GPU run yet."
    if facts["device"] != "cuda":
        return f"DRY RUN on device {facts['device']}: the numbers mean nothing but that the program runs."
    clocks = latest(records, kind="clocks") or {}
    quick = " QUICK RUN on tiny shapes, no result." if facts.get("quick") else ""
    return (
        f"{facts.get('gpu')}; {facts['date']}, commit {facts['commit']}, torch {facts['torch']}, torchvision "
        f"{facts['torchvision']}, mmcv {facts['mmcv'] or 'not installed'}, driver {clocks.get('driver', 'unknown')}; SM clock at "
        f"the end {clocks.get('sm_mhz', 'unknown')} MHz.{quick}"
    )


def predictions_table(records: list[dict], reasons: dict[str, str]) -> str:
    """Every prediction with its measured value; a miss of more than 30 % either way needs its reason."""
    body = []
    for row in expected.rows():
        measured = row.measure(records)
        verdict = reasons.get(row.key, "")
        if measured is not None:
            miss = measured / row.predicted - 1
            verdict = f"{miss:+.0%}"
            if abs(miss) > LARGEST_MISS:
                verdict += f", **miss**: {reasons.get(row.key, 'REASON TO BE WRITTEN')}"
        body.append([row.item, row.unit, number(row.predicted), row.aim, number(measured), verdict])
    return markdown(["item", "unit", "predicted", "aim: stage A / beyond", "measured", "off by"], body)


def readme_table(records: list[dict]) -> str:
    """Ours beside the peers: microseconds of GPU time, and how many times as long the peers take."""
    groups = (
        ("bfloat16", names.OURS_AUTOCAST, names.TORCHVISION_AUTOCAST, names.TORCHVISION_AUTOCAST_TF32),
        ("float16", names.OURS_FLOAT16, names.MMCV_FLOAT16),
        ("float32, TF32", names.OURS_TF32, names.TORCHVISION_TF32),
        ("float32", names.OURS_FLOAT32, names.TORCHVISION_FLOAT32),
    )
    layers = [("C4", 8), ("C3", 8), ("C5", 8), ("C4", 1), ("C3", 1), ("C5", 1)]
    body = []
    for label, ours, *peers in groups:
        for stage, batch in layers if label == "bfloat16" else layers[:1]:
            for direction in (FORWARD, BACKWARD):
                own = latest(records, kind="time", phase="4", **expected.deform_conv(direction, ours, stage, batch))
                cells = [f"{stage}, batch {batch}, {label}", direction]
                cells.append(number(None if own is None else own.get("gpu_us", own.get("wall_us"))))
                for peer in peers:
                    ratio = None if own is None else own["times_of_ours"].get(peer)
                    cells.append(f"{peer}: {NOT_YET if ratio is None else f'{ratio:.1f}x'}")
                body.append([*cells, *[""] * (5 - len(cells))])
    return markdown(["3x3, v2, 800x1344", "", "ours, µs", "times of ours", ""], body)


def frozen_bn_table(records: list[dict]) -> str:
    """Shares of the speed of a copy, for the two layouts."""
    places, variants = (
        ("stem, batch 8", "C4, batch 8", "C4, batch 1"),
        ("in place", "in place with residual", "backward"),
    )
    body = []
    for place in places:
        for layout in ("channels_last", "contiguous"):
            facts = {"kind": "time", "phase": "6", "activation": place, "layout": layout, "candidate": "resnet_cuda"}
            found = [latest(records, variant=variant, **facts) for variant in variants]
            body.append([place, layout, *(NOT_YET if one is None else f"{one['share_of_copy']:.0%}" for one in found)])
    return markdown(["frozen_bn_relu, bfloat16, share of a copy's speed", "layout", *variants], body)


def backbone_table(records: list[dict]) -> str:
    """Milliseconds of GPU time per image, by candidate."""
    columns = (
        names.OURS_BFLOAT16,
        names.OURS_AUTOCAST,
        names.EAGER_AUTOCAST,
        names.EAGER_BFLOAT16,
        names.EAGER_AUTOCAST_TF32,
        names.COMPILED_BFLOAT16,
    )
    body = []
    for kind in (names.PLAIN, names.DEFORMABLE):
        for mode, batch, graph in (
            (names.INFERENCE, 1, False),
            (names.INFERENCE, 1, True),
            (names.INFERENCE, 8, False),
            (names.TRAINING, 2, False),
            (names.TRAINING, 8, False),
        ):
            facts = [expected.backbone(kind, mode, batch, column, graph) for column in columns]
            found = [latest(records, kind="time", phase="7", **one) for one in facts]
            cells = [number(None if one is None else one["ms_per_image"]) for one in found]
            body.append([f"{kind}, {mode}, batch {batch}{', CUDA graph' if graph else ''}", *cells])
    return markdown(["800x1344, ms per image", *columns], body)


def ceilings_table(records: list[dict]) -> str:
    body = []
    for record in records:
        if record.get("kind") == "ceiling":
            units = ("gigabytes_per_second", "teraflops", "tera_operations_per_second", "gpu_us", "wall_us")
            unit = next(unit for unit in units if unit in record)
            body.append([record["item"], str(record[unit]), unit.replace("_", " ")])
    return markdown(["ceiling", "value", "unit"], body)


def gpu_results(records: list[dict]) -> list[dict]:
    """What may stand in a table of results: not a dry run's numbers, nor those of tiny shapes."""
    return [record for record in records if record.get("device") == "cuda" and not record.get("quick")]


def steps_table(records: list[dict]) -> str:
    body = [
        [record["step"], record["title"], record["status"], f"{record['seconds']:.1f}", record["error"] or ""]
        for record in records
        if record.get("kind") == "step"
    ]
    return markdown(["step", "", "status", "s", "error"], body)


def everything(records: list[dict]) -> str:
    """The summary of a run."""
    missing: dict[str, list[str]] = {}
    for record in records:
        if record.get("kind") == "not measured":
            missing.setdefault(record["reason"], []).append(record["item"])
    left_out = [
        f"- {items[0]}{f' and {len(items) - 1} more' if len(items) > 1 else ''}: {reason}"
        for reason, items in missing.items()
    ]
    shown = gpu_results(records)
    return "\n\n".join(
        [
            caption(records),
            steps_table(records),
            ceilings_table(shown),
            readme_table(shown),
            frozen_bn_table(shown),
            backbone_table(shown),
            predictions_table(shown, read_reasons()),
            "Not measured:\n\n" + "\n".join(left_out) if left_out else "Nothing was left out.",
        ]
    )


REASONS = Path(__file__).resolve().parents[1] / "results" / "gpu-reasons.json"


def read_reasons() -> dict[str, str]:
    """By the key of a prediction's row, why it missed."""
    return json.loads(REASONS.read_text()) if REASONS.exists() else {}


def predictions_page(path: Path | None) -> str:
    """What lies in ``results/gpu-predictions.md``."""
    command = "python -m benchmarks.gpu.tables" + (f" {path.name}" if path else "") + " --table predictions"
    records = read(path)
    return f"""# Predictions and measurements

Made by `{command}`; not to be edited. Reasons for misses go to
`gpu-reasons.json` beside this file, by the row's key (`benchmarks/gpu/expected.py`).

Predicted before any run, for an {predictions.GPU}. "Times" is how many times as long as ours the other takes.

{caption(records)}

{predictions_table(gpu_results(records), read_reasons())}
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.tables", description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="a result file of benchmarks/gpu_run.sh")
    parser.add_argument("--table", choices=("predictions", "readme", "all"), default="predictions")
    chosen = parser.parse_args(arguments)
    if chosen.file is not None and not chosen.file.exists():
        parser.error(f"{chosen.file} is not there")
    records = read(chosen.file)
    if chosen.table == "predictions":
        print(predictions_page(chosen.file), end="")
    elif chosen.table == "readme":
        print(
            f"{caption(records)}\n\n{readme_table(records)}\n\n{frozen_bn_table(records)}\n\n{backbone_table(records)}"
        )
    else:
        print(everything(records))


if __name__ == "__main__":
    main()
