"""The program as a user starts it, several processes included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "mask_rcnn.py"
TINY = [
    "--backbone",
    "resnet18",
    "--width",
    "8",
    "--dcn",
    "0001",
    "--batch",
    "1",
    "--workers",
    "0",
    "--iterations",
    "2",
]


def start(*arguments, folder, launcher=()):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def data(coco):
    return ["--images", coco[0], "--annotations", coco[1]]


def test_train_evaluate_predict(coco, tmp_path):
    trained = start("train", *data(coco), *TINY, "--output", "out", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    path = tmp_path / "out" / "checkpoint.pt"
    evaluated = start("evaluate", *data(coco), "--checkpoint", path, "--workers", "0", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads(evaluated.stdout.splitlines()[-1])
    assert 0 <= metrics["AP50"] <= 1
    predicted = start("predict", coco[0] / "image1.png", "--checkpoint", path, "--threshold", "0", folder=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "runs" / "predict" / "image1.png").stat().st_size > 1000
    assert isinstance(json.loads((tmp_path / "runs" / "predict" / "results.json").read_text()), list)


def test_two_processes_train_one_model(coco, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    trained = start(
        "train", *data(coco), *TINY, "--device", "cpu", "--output", "out", folder=tmp_path, launcher=launcher
    )
    assert trained.returncode == 0, trained.stderr
    path = tmp_path / "out" / "checkpoint.pt"
    evaluated = start(
        "evaluate",
        *data(coco),
        "--checkpoint",
        path,
        "--workers",
        "0",
        "--device",
        "cpu",
        folder=tmp_path,
        launcher=launcher,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    together = json.loads(evaluated.stdout.splitlines()[-1])
    alone = start("evaluate", *data(coco), "--checkpoint", path, "--workers", "0", folder=tmp_path)
    assert json.loads(alone.stdout.splitlines()[-1]) == together


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--images", "nowhere", "--annotations", "nothing.json"], "nowhere is no folder of images"),
        (["train", "--images", "only"], "--images and --annotations belong together"),
        (["train", "--dcn", "21"], "--dcn is '21'; it must be four of 0 and 1"),
        (["train", "--backbone", "vgg"], "unknown backbone_name 'vgg'; allowed are resnet101"),
        (["train", "--dataset", "nonsense"], "it must be package.module:Class"),
        (["evaluate", "--checkpoint", "missing.pt"], "missing.pt: no such checkpoint"),
        (["predict", "x.png", "--checkpoint", "missing.pt"], "missing.pt: no such checkpoint"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, capsys, monkeypatch):
    """In this process: a mistake must not cost a traceback, whatever the command."""
    monkeypatch.chdir(tmp_path)
    import mask_rcnn

    assert mask_rcnn.main(arguments) == 2
    assert message in capsys.readouterr().err
