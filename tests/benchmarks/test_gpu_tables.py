"""The tables from result files: without one, from a GPU's, and from a dry run's."""

import re
from pathlib import Path

import pytest

from benchmarks.gpu import expected, names, tables

PAGE = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "gpu-predictions.md"


def measured(candidate, microseconds, direction="forward", phase="4"):
    facts = expected.deform_conv(direction, candidate)
    return {"kind": "time", "device": "cuda", "phase": phase, "gpu_us": microseconds, "times_of_ours": {}, **facts}


def cells(table, item):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {item} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_without_results_every_cell_says_so():
    table = tables.predictions_table([], {})
    rows = table.splitlines()[2:]
    assert len(rows) == len(expected.rows()) > 50
    assert all(row.count(tables.NOT_YET) == 1 for row in rows)
    for row in tables.readme_table([]).splitlines()[2:]:
        assert row.split(" | ")[2] == tables.NOT_YET
    for row in tables.frozen_bn_table([]).splitlines()[2:]:
        assert row.split(" | ")[2:] == [tables.NOT_YET, tables.NOT_YET, f"{tables.NOT_YET} |"]
    for row in tables.backbone_table([]).splitlines()[2:]:
        assert row.count(tables.NOT_YET) == 6


def test_keys_are_unique():
    keys = [row.key for row in expected.rows()]
    assert len(keys) == len(set(keys))


def test_a_measurement_stands_beside_its_prediction():
    records = [measured(names.OURS_AUTOCAST, 100.0), measured(names.TORCHVISION_AUTOCAST, 1400.0)]
    item = "deform_conv2d forward, C4, batch 8, bfloat16 against torchvision autocast"
    assert cells(tables.predictions_table(records, {}), item)[2:] == ["12.5", "8x / 20x", "14", "+12%"]


def test_no_ratio_across_processes():
    """Phase 3's peer and phase 4's ours may have run in two processes."""
    records = [measured(names.OURS_AUTOCAST, 100.0), measured(names.TORCHVISION_AUTOCAST, 1400.0, phase="3")]
    item = "deform_conv2d forward, C4, batch 8, bfloat16 against torchvision autocast"
    assert cells(tables.predictions_table(records, {}), item)[4] == tables.NOT_YET


def test_a_miss_asks_for_its_reason():
    records = [measured(names.OURS_BFLOAT16, 200.0)]
    item = "deform_conv2d forward, C4, batch 8, resnet_cuda, bfloat16"
    assert cells(tables.predictions_table(records, {}), item)[-1] == "+77%, **miss**: REASON TO BE WRITTEN"
    key = f"time forward C4 8 {names.OURS_BFLOAT16}"
    assert cells(tables.predictions_table(records, {key: "L2"}), item)[-1] == "+77%, **miss**: L2"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_dry_run_is_never_shown_as_a_gpu_result(device):
    facts = {"kind": "environment", "device": device, "gpu": "a GPU", "date": "d", "commit": "c", "torch": "t"}
    text = tables.caption([facts | {"torchvision": "v", "mmcv": None}])
    assert ("DRY RUN" in text) == (device == "cpu")


def test_the_page_in_results_is_up_to_date():
    """As long as no GPU has run; from then on it is made from a result file that is there."""
    text = PAGE.read_text()
    made_from = re.search(r"tables (\S+\.jsonl) ", text)
    assert text == tables.predictions_page(PAGE.with_name(made_from[1]) if made_from else None)
