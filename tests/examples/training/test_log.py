"""The log after a kill, its table, TensorBoard's events and the picture."""

from __future__ import annotations

import csv
import json
import math

import pytest
from detection.training.curves import draw_curves
from detection.training.log import Log, read_log
from matplotlib.image import imread


def record(iteration: int, **more) -> dict:
    return {
        "iteration": iteration,
        "total": 3 * math.exp(-iteration / 50) + 0.3 * math.sin(7 * iteration),
        "loss_mask": math.exp(-iteration / 50),
        "loss_classifier": 2 * math.exp(-iteration / 30),
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        "images_per_second": 4.0,
        "seconds": 0.5,
        "memory_mb": 100.0,
        **more,
    }


METRICS = {"bbox": {"AP": 0.3, "AP50": 0.5}, "segm": {"AP": 0.2, "AP50": 0.4}}


def test_what_a_killed_run_wrote_after_its_checkpoint_is_removed(tmp_path):
    log = Log(tmp_path, 0, 100)
    for iteration in range(1, 8):
        log.training(record(iteration, seconds=9.0))
        if iteration in (3, 6):
            log.validation(iteration, METRICS, "segm")
    # Flushed, though not closed.
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 8, "to')  # killed in the middle of a record
    log = Log(tmp_path, 4, 100)
    log.training(record(5))
    log.close()
    records = read_log(tmp_path / "log.jsonl")
    assert [it["iteration"] for it in records] == [1, 2, 3, 3, 4, 5]
    assert records[3] == {"iteration": 3, "validation": METRICS, "primary": "segm"}
    assert [it.get("seconds") for it in records] == [9.0, 9.0, 9.0, None, 9.0, 0.5]
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0]) == list(record(1))


def test_every_record_is_there_at_once_and_is_json(tmp_path):
    log = Log(tmp_path, 0, 100)
    log.training(record(1, gradient_norm=None))
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["gradient_norm"] is None
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    log.close()


def test_a_new_training_begins_a_new_log(tmp_path):
    Log(tmp_path, 0, 100).training(record(1))
    Log(tmp_path, 0, 100).close()
    assert read_log(tmp_path / "log.jsonl") == [] and not (tmp_path / "log.csv").exists()


def test_tensorboard_has_the_scalars_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done in (0, 4):
        log = Log(tmp_path, done, 2)
        for iteration in range(done + 1, done + 9):
            log.training(record(iteration))
        log.validation(done + 8, METRICS, "segm")
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    assert [it.step for it in events.Scalars("train/total")] == [2, 4, 6, 8, 10, 12]
    assert events.Scalars("validation/segm/AP")[-1].value == pytest.approx(0.2)


@pytest.mark.parametrize("validated", [False, True])
def test_curves_are_drawn(tmp_path, validated):
    log = Log(tmp_path, 0, 100)
    for iteration in range(1, 201):
        log.training(record(iteration, gradient_norm=None if iteration == 50 else 1.0))
        if validated and iteration % 50 == 0:
            log.validation(iteration, METRICS, "segm")
    log.close()
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[:2] == (800, 1200)
    for rows in (slice(0, 400), slice(400, 800)):
        for columns in (slice(0, 600), slice(600, 1200)):
            panel = picture[rows, columns, :3]
            assert (panel.max(axis=2) - panel.min(axis=2) > 0.3).mean() > 0.002  # a coloured line


def test_a_run_without_iterations_draws_nothing(tmp_path):
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
