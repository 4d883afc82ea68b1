"""The README's chart: what it takes from a results file, and that it is drawn."""

from __future__ import annotations

import json

import pytest

from benchmarks import chart

PLAIN, DEFORMABLE = chart.NETWORKS
ENVIRONMENT = {"date": "2026-11-27", "processor": "a processor", "threads": 2, "torch": "2.14.1", "openvino": None}


def row(part, case, **milliseconds):
    names = {"ours": chart.OURS, "torchvision": "torchvision", "other": f"{chart.OURS}, eager"}
    candidates = {names[key]: {"median_ms": value} for key, value in milliseconds.items()}
    return {"part": part, "case": case, "candidates": candidates}


def results(*rows):
    return {"environment": ENVIRONMENT, "rows": list(rows)}


ROWS = (
    row(PLAIN, "480x640, float32", ours=300.0, torchvision=500.0, other=450.0),
    row(PLAIN, "480x640, bfloat16", ours=1.0),
    row(DEFORMABLE, "800x1344, float32", torchvision=3600.0, ours=1200.0),
)


def test_only_float32_and_the_candidates_of_the_chart():
    found = chart.panels(results(*ROWS))
    assert found == {
        (PLAIN, "480x640"): {chart.OURS: 300.0, "torchvision": 500.0},
        (DEFORMABLE, "800x1344"): {chart.OURS: 1200.0, "torchvision": 3600.0},
    }
    assert list(found[DEFORMABLE, "800x1344"]) == [chart.OURS, "torchvision"]


def test_the_caption_has_what_is_known():
    text = chart.caption(ENVIRONMENT)
    assert "a processor, 2 threads, 2026-11-27" in text
    assert "torch 2.14.1" in text
    assert "OpenVINO" not in text


def test_drawn_at_twice_the_width_at_which_it_is_shown(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    file, picture = tmp_path / "results.json", tmp_path / "docs" / "inference.png"
    file.write_text(json.dumps(results(*ROWS)))
    assert chart.main([str(file), "--out", str(picture)]) == 0
    pixels = imread(picture)
    assert pixels.shape[1] == 1600
    blue = abs(pixels[..., :3] - [0x1F / 255, 0x5F / 255, 0xA8 / 255]).max(axis=2) < 0.01
    assert blue.sum() > 10_000  # ours, in two panels


def test_a_file_without_such_cases_is_an_error(tmp_path, capsys):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results(row("another part", "480x640, float32", ours=1.0))))
    with pytest.raises(SystemExit):
        chart.main([str(file), "--out", str(tmp_path / "picture.png")])
    assert "no float32 case of the part 'inference'" in capsys.readouterr().err
