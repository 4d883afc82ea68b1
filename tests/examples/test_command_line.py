"""The program as a user starts it, several processes included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mask_rcnn
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


def train(coco, folder, *options, **launcher):
    """The checkpoint of a short training."""
    trained = start("train", *data(coco), *TINY, "--output", "out", *options, folder=folder, **launcher)
    assert trained.returncode == 0, trained.stderr
    return folder / "out" / "checkpoint.pt"


def evaluate(coco, folder, checkpoint, *options, **launcher):
    arguments = ["evaluate", *data(coco), "--checkpoint", checkpoint, "--workers", "0", *options]
    evaluated = start(*arguments, folder=folder, **launcher)
    assert evaluated.returncode == 0, evaluated.stderr
    return json.loads(evaluated.stdout.splitlines()[-1])


def test_train_evaluate_predict(coco, tmp_path):
    checkpoint = train(coco, tmp_path)
    assert 0 <= evaluate(coco, tmp_path, checkpoint)["AP50"] <= 1
    image = coco[0] / "image1.png"
    predicted = start("predict", image, "--checkpoint", checkpoint, "--threshold", "0", folder=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "runs" / "predict" / "image1.png").stat().st_size > 1000
    assert isinstance(json.loads((tmp_path / "runs" / "predict" / "results.json").read_text()), list)


def test_two_processes_train_one_model(coco, tmp_path):
    two = {"launcher": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
    checkpoint = train(coco, tmp_path, "--device", "cpu", **two)
    together = evaluate(coco, tmp_path, checkpoint, "--device", "cpu", **two)
    assert evaluate(coco, tmp_path, checkpoint) == together


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

    assert mask_rcnn.main(arguments) == 2
    assert message in capsys.readouterr().err
