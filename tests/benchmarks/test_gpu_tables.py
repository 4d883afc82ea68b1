"""The tables from result files: without one, from a GPU's, and from a dry run's."""

import re
from pathlib import Path

import pytest

from benchmarks import predictions, tables
from benchmarks.predictions import NO_REASON, NOT_YET, predictions_tables, read_reasons
from benchmarks.records import read

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "benchmarks" / "results" / "gpu-predictions.md"
FIRST_RUN = PAGE.with_name("2026-11-26-h200-first-run.jsonl")
RUN = PAGE.with_name("2026-11-27-h200.jsonl")  # whose tables the guide shows


OURS_AUTOCAST, OURS_BFLOAT16 = "resnet_cuda, autocast bfloat16", "resnet_cuda, bfloat16"
TORCHVISION = "torchvision, autocast bfloat16, TF32 off"


def measured(candidate, microseconds, direction="forward", phase="4"):
    facts = {"op": "deform_conv2d", "direction": direction, "stage": "C4", "batch": 8, "candidate": candidate}
    facts |= {"kind": "time", "device": "cuda", "phase": phase, "offset_pixels": 2.0}
    return facts | {"gpu_us": microseconds, "times_of_ours": {}}


def section(text, title):
    """The table under a title that begins so."""
    (found,) = [part for part in text.split("## ") if part.startswith(title)]
    return found


def cells(table, item):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {item} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


RATIOS = "deform_conv2d, C4, batch 8: how many times"


def test_without_results_every_cell_says_so():
    text = predictions_tables([], {})
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| case |")]
    assert len(rows) == len(list(predictions.rows())) > 50
    assert all(row.split(" | ")[3:4] == [NOT_YET] for row in rows)
    for row in tables.readme_table([]).splitlines()[2:]:
        assert set(row.strip("| ").split(" | ")[2:]) <= {NOT_YET, ""}
    for row in tables.frozen_bn_table([]).splitlines()[2:]:
        assert row.split(" | ")[2:] == [NOT_YET, NOT_YET, f"{NOT_YET} |"]
    for row in tables.backbone_table([]).splitlines()[2:]:
        assert row.count(NOT_YET) == 6


def test_keys_are_unique():
    keys = [row["key"] for _, row in predictions.rows()]
    assert len(keys) == len(set(keys))


OWN, PEER = measured(OURS_AUTOCAST, 100.0) | {"run": 1}, measured(TORCHVISION, 1400.0) | {"run": 1}
LATER = measured(OURS_AUTOCAST, 50.0) | {"run": 2}


@pytest.mark.parametrize(
    ("records", "shown"),
    [
        ([OWN, PEER], ["14", "+28%"]),
        ([OWN, PEER | {"phase": "3"}], [NOT_YET, ""]),  # of another step
        ([PEER, LATER], [NOT_YET, ""]),  # of another process
        ([OWN, PEER, LATER], ["14", "+28%"]),
    ],
)
def test_a_ratio_is_of_one_process(records, shown):
    table = section(predictions_tables(records, {}), RATIOS)
    assert cells(table, "forward, bfloat16 against torchvision autocast")[1:] == ["11", "8x / 20x", *shown]


def test_the_readme_prefers_a_time_beside_a_peer():
    """A later one by itself has no ratio."""
    beside = measured(OURS_AUTOCAST, 100.0) | {"times_of_ours": {TORCHVISION: 14.0}}
    alone = measured(OURS_AUTOCAST, 90.0)
    for records, shown in (([beside, alone], ["100", "14.0x"]), ([alone], ["90", NOT_YET])):
        row = tables.readme_table(records).splitlines()[2]
        assert row.split(" | ")[2:4] == shown


def test_several_files_make_one_page(tmp_path, capsys):
    """Two halves of a run, each with its own file."""
    lines = RUN.read_text().splitlines(keepends=True)
    halves = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    halves[0].write_text("".join(lines[:150]))
    halves[1].write_text("".join(lines[150:]))
    tables.main([*map(str, halves), "--table", "readme"])
    assert capsys.readouterr().out == tables.readme(read(RUN)) + "\n"
    tables.main([*map(str, halves)])
    assert "tables 1.jsonl 2.jsonl --table" in capsys.readouterr().out


def test_columns_that_nothing_was_measured_in_are_left_out():
    head = "| a | b | c | d |\n|---|---|---|---|\n"
    table = f"{head}| x | {NOT_YET} | 1 |  |\n| y |  | {NOT_YET} | {NOT_YET} |"
    assert tables.without_empty_columns(table) == f"| a | c |\n|---|---|\n| x | 1 |\n| y | {NOT_YET} |"
    assert tables.without_empty_columns(head.strip()) == head.strip()


def test_headlines_that_were_measured_twice():
    first, again = measured(OURS_BFLOAT16, 100.0), measured(OURS_BFLOAT16, 103.0, phase="8")
    (line,) = tables.spreads([measured(OURS_BFLOAT16, 50.0), first, again])
    assert line.endswith(": 100.0 and 103.0 µs (+3.0%).")
    assert tables.spreads([again]) == tables.spreads([first]) == []


def test_verdicts_stand_in_the_summary():
    whole = {"kind": "tests", "collected_only": False, "whole": True, "failures": ["a::b"]}
    whole |= {"passed": 3, "failed": 1, "error": 0, "skipped": 2}
    cut = whole | {"whole": False, "failures": []}
    sanitizer = {"kind": "sanitizer", "item": "racecheck", "verdict": "no verdict", "shapes": 5}
    lines = tables.verdicts([whole, cut, sanitizer, whole | {"collected_only": True}])
    assert lines == [
        "`pytest -m cuda`, whole: 3 passed, 1 failed, 0 error, 2 skipped. a::b",
        "`pytest -m cuda`, cut by its deadline: no verdict on the rest: 3 passed, 1 failed, 0 error, 2 skipped.",
        "racecheck: no verdict, after 5 shapes.",
    ]


def test_a_peers_time_comes_from_whichever_phase_has_it():
    item = f"forward, {TORCHVISION}"
    beside, alone = (measured(TORCHVISION, us, phase=phase) for us, phase in ((1400.0, "4"), (1300.0, "3")))
    title = "deform_conv2d, C4, batch 8, peers"
    assert cells(section(predictions_tables([beside], {}), title), item)[3] == "1400"
    assert cells(section(predictions_tables([beside, alone], {}), title), item)[3] == "1300"


def test_a_miss_asks_for_its_reason():
    records = [measured(OURS_BFLOAT16, 200.0)]
    item, title = "forward, C4, batch 8, resnet_cuda, bfloat16", "deform_conv2d, ours"
    table = section(predictions_tables(records, {}), title)
    assert cells(table, item)[-1] == "+64%, **miss**: REASON TO BE WRITTEN"
    text = predictions_tables(records, {f"time forward C4 8 {OURS_BFLOAT16}": "L2"})
    assert cells(section(text, title), item)[-1] == "+64%, **miss**, note 1"
    assert text.endswith("## Notes\n\n1. L2")


def test_one_note_for_one_reason():
    rows = [{"key": key, "predicted": 1.0} for key in "abc"]
    notes = []
    shown = [predictions.verdict(row, 2.0, {"a": "x", "b": "y", "c": "x"}, notes) for row in rows]
    assert [one.split("note ")[1] for one in shown] == ["1", "2", "1"] and notes == ["x", "y"]


def test_every_prediction_says_how_it_was_derived():
    """And the times that ratios and shares are worked out from are those of the rows."""
    assert predictions.PREDICTED["source"] and all(group["derivation"] for group in predictions.PREDICTED["groups"])
    rows = [(group, row) for group, row in predictions.rows() if row["of"].get("op") == "deform_conv2d"]

    def time(facts):
        where = f"{facts['stage']}, batch {facts['batch']}"
        return predictions.predicted_us(facts["direction"], where, facts["candidate"])

    for group, row in rows:
        given = row["of"]
        if group["quantity"] == "microseconds":
            assert row["predicted"] == time(given)
        elif group["quantity"] == "ratio":
            assert row["predicted"] == pytest.approx(time(row["over"]) / time(given), rel=1e-3)
        elif group["quantity"] == "percent of floor":
            floor = predictions.floor_us(given["direction"], given["batch"], given["candidate"])
            assert row["predicted"] == pytest.approx(100 * floor / time(given), rel=0.02)


def test_every_reason_is_of_a_row_and_every_miss_has_one():
    keys = {row["key"] for _, row in predictions.rows()}
    assert read_reasons() and set(read_reasons()) <= keys
    assert NO_REASON not in PAGE.read_text()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_dry_run_is_never_shown_as_a_gpu_result(device):
    facts = {"kind": "environment", "device": device, "gpu": "a GPU", "date": "d", "commit": "c", "torch": "t"}
    text = tables.caption([facts | {"torchvision": "v", "mmcv": None}])
    assert ("DRY RUN" in text) == (device == "cpu")


def test_the_page_in_results_is_up_to_date(capsys):
    """It is made from a result file that is there."""
    text = PAGE.read_text()
    file = PAGE.with_name(re.search(r"tables (\S+\.jsonl) ", text)[1])
    tables.main([str(file)])
    assert capsys.readouterr().out == text


def test_the_guide_shows_what_the_records_say():
    """Every table and the caption, word for word."""
    for part in tables.readme(read(RUN)).split("\n\n"):
        assert part in (ROOT / "docs" / "benchmarking.md").read_text(), part


@pytest.mark.parametrize(("file", "lines"), [(FIRST_RUN, 266), (RUN, 566)])
def test_a_run_names_no_machine(file, lines):
    """No paths, no host names; every line says that a GPU wrote it."""
    text = file.read_text()
    assert re.findall(r"/(?:home|root|tmp|work|usr|opt|mnt)/\S*", text) == []
    records = read(file)
    assert len(records) == len(text.splitlines()) == lines
    assert all(record["device"] == "cuda" and record["quick"] is False for record in records)


def test_a_run_that_was_cut_gives_its_tables(tmp_path):
    """After any line, the last one broken off in the middle."""
    lines = FIRST_RUN.read_text().splitlines(keepends=True)
    for count in (0, 1, 2, 20, 150, 230, len(lines)):
        cut = tmp_path / f"{count}.jsonl"
        cut.write_text("".join(lines[:count]) + (lines[count][:40] if count < len(lines) else ""))
        records = read(cut)
        assert len(records) == count
        for text in (tables.everything(records), tables.readme(records)):
            assert ("H200" in text) == (count > 0)


def test_rows_without_a_value_are_named_below_the_table():
    table = "| a | | x | y |\n|---|---|---|---|\n| p | forward | 1 | ? |\n| q | forward | ? |  |\n| r | ? | ? |"
    table = table.replace("?", NOT_YET)
    kept, empty = tables.measured_rows(table)
    assert kept.splitlines()[2:] == [f"| p | forward | 1 | {NOT_YET} |"]
    assert empty == ["q, forward", "r"]
