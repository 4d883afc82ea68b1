"""The program as a user starts it, several processes included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mask_rcnn
import pytest
import yaml
from helpers.pages import DOCS, commands_of

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "mask_rcnn.py"
_SMALL_MODEL = "--backbone resnet18 --width 8 --fpn-channels 8 --head-channels 8 --dcn 0001 --min-size 48 --max-size 64"
_SHORT_RUN = "--proposals 20 --rois 8 --batch 1 --workers 0 --iterations 2"
TINY = [*_SMALL_MODEL.split(), *_SHORT_RUN.split()]
TWO = {"launcher": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}


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
    assert "AP50" in evaluated.stdout
    return json.loads((folder / "out" / "evaluation" / "metrics.json").read_text())


def test_train_evaluate_predict(coco, tmp_path):
    checkpoint = train(coco, tmp_path)
    report = evaluate(coco, tmp_path, checkpoint, "--results", "--confusion", "--worst", "1")
    assert 0 <= report["metrics"]["segm"]["AP50"] <= 1
    assert report["images"] == 3
    written = {path.name for path in (tmp_path / "out" / "evaluation").iterdir()}
    assert {"metrics.json", "results_bbox.json", "results_segm.json", "confusion.png"} <= written
    image = coco[0] / "image1.png"
    predicted = start("predict", image, "--checkpoint", checkpoint, "--threshold", "0", folder=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "runs" / "predict" / "image1.png").stat().st_size > 1000
    assert isinstance(json.loads((tmp_path / "runs" / "predict" / "results.json").read_text()), list)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_one_model(coco, tmp_path, parallel):
    checkpoint = train(coco, tmp_path, "--device", "cpu", "--parallel", parallel, **TWO)
    together = evaluate(coco, tmp_path, checkpoint, "--device", "cpu", **TWO)
    assert evaluate(coco, tmp_path, checkpoint) == together


OWN = '''
import torch

class Squares:
    """One dark square in each of four images; no masks."""

    def __init__(self):
        pass

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(index)) * 0.3 + 0.7
        image[:, 10:30, 12:32] = 0.1
        return image, {"boxes": torch.tensor([[12.0, 10, 32, 30]]), "labels": torch.tensor([LABEL])}

    def class_names(self):
        return ["square"]
'''


def test_a_data_set_class_of_the_current_folder_trains_a_box_detector(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace("LABEL", "1"))
    trained = start("train", "--dataset", "own:Squares", *TINY, "--output", "out", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "fasterrcnn, resnet18; classes: square" in trained.stdout
    arguments = ["evaluate", "--dataset", "own:Squares", "--checkpoint", "out/checkpoint.pt", "--workers", "0"]
    evaluated = start(*arguments, folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert list(json.loads((tmp_path / "out/evaluation/metrics.json").read_text())["metrics"]) == ["bbox"]


def test_a_wrong_label_of_a_data_set_class_is_named(tmp_path, capfd, monkeypatch):
    (tmp_path / "wrong.py").write_text(OWN.replace("LABEL", "2"))
    monkeypatch.chdir(tmp_path)
    assert mask_rcnn.main(["train", "--dataset", "wrong:Squares", *TINY]) == 2
    error = capfd.readouterr().err
    assert "sample" in error
    assert "label" in error
    assert "Traceback" not in error


def test_a_configuration_file_and_the_command_line_over_it(coco, tmp_path):
    config = {
        "data": {"images": str(coco[0]), "annotations": str(coco[1])},
        "model": {"kind": "fasterrcnn", "backbone": "resnet18", "width": 8, "fpn-channels": 8, "head_channels": 8},
        "train": {"iterations": 50, "batch": 1, "workers": 0},
        "min_size": [48],
        "max_size": 64,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    trained = start("train", "--config", "mine.yaml", "--iterations", "2", "--output", "out", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    effective = yaml.safe_load((tmp_path / "out" / "options.yaml").read_text())
    assert effective["model"]["width"] == 8
    assert effective["train"]["iterations"] == 2
    # The effective options are a configuration file themselves, for the same data.
    again = start("train", "--config", "out/options.yaml", "--output", "again", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert yaml.safe_load((tmp_path / "again" / "options.yaml").read_text()) == effective


def test_a_checkpoint_that_is_started_from_brings_its_model(coco, tmp_path):
    checkpoint = train(coco, tmp_path)
    run = ["--iterations", "1", "--batch", "1", "--workers", "0", "--output", "tuned"]
    tuned = start("--seed", "5", "train", *data(coco), "--weights", checkpoint, *run, folder=tmp_path)
    assert tuned.returncode == 0, tuned.stderr
    assert f"the model is as in {checkpoint}" in tuned.stdout
    effective = yaml.safe_load((tmp_path / "tuned" / "options.yaml").read_text())
    assert effective["model"]["width"] == 8
    assert effective["model"]["trainable_layers"] == 3
    assert effective["train"]["seed"] == 5


def test_check_says_what_is_damaged(coco, tmp_path, capsys):
    arguments = ["check", *map(str, data(coco))]
    assert mask_rcnn.main(arguments) == 0
    assert "3 images" in capsys.readouterr().out
    path = coco[0] / "image2.png"
    path.write_bytes(path.read_bytes()[:400])  # the header is whole
    assert mask_rcnn.main(arguments) == 0
    capsys.readouterr()
    assert mask_rcnn.main([*arguments, "--pixels"]) == 1
    assert "image2.png" in capsys.readouterr().out


def test_training_data_is_checked_before_anything_runs(coco, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = json.loads(coco[1].read_text())
    content["annotations"][2]["segmentation"] = {"size": [48, 64], "counts": [3, 4]}
    coco[1].write_text(json.dumps(content))
    assert mask_rcnn.main(["train", *map(str, data(coco)), *TINY]) == 2
    error = capsys.readouterr().err
    assert "image3.png" in error
    assert "annotation 3" in error
    assert not (tmp_path / "runs").exists()


def test_the_pages_commands_name_weights_that_there_are(coco, tmp_path, capsys, monkeypatch):
    """Of docs/own-data.md: each ``train`` with --weights, up to where the weights would be downloaded."""
    asked = []

    def resolve(source, **_):
        asked.append(source)
        raise ValueError("no download")

    monkeypatch.setattr("detection.models.pretrained.sources.resolve", resolve)
    monkeypatch.chdir(tmp_path)
    given = {"DIR": str(coco[0]), "instances.json": str(coco[1])}
    for command in commands_of(DOCS / "own-data.md", "python examples/mask_rcnn.py"):
        if command[0] != "train" or "--weights" not in command:
            continue
        assert mask_rcnn.main([given.get(word, word) for word in command]) == 2
        assert "no download" in capsys.readouterr().err
    assert [str(it) for it in asked] == ["MaskRCNN_ResNet50_FPN_Weights.COCO_V1", "ResNet18_Weights.IMAGENET1K_V1"]


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit):
        mask_rcnn.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--learning-rate", "--optimizer", "--schedule", "--ema", "--precision", "--anchor-sizes", "--model"):
        assert option in text
    assert "(default: 0.0001)" in text
    assert "(default: resnet50)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--images", "nowhere", "--annotations", "nothing.json"], "nowhere is no folder of images"),
        (["train", "--images", "only"], "--images and --annotations belong together"),
        (["train", "--backbone", "vgg"], "'vgg'"),
        (["train", "--model", "yolo"], "'yolo'"),
        (["train", "--dataset", "nonsense"], "it must be package.module:Class"),
        (["train", "--save-every", "0"], "save_every is 0"),
        (["train", "--width", "0"], "width is 0"),
        (["train", "--iterations", "-3"], "iterations is -3"),
        (["train", "--batch", "0"], "batch is 0"),
        (["train", "--epochs", "0"], "--epochs is 0"),
        (["train", "--epochs", "2", "--iterations", "3"], "exclude each other"),
        (["train", "--optimizer", "lion"], "'lion'"),
        (["train", "--config", "none.yaml"], "none.yaml: no such file"),
        (["evaluate", "--checkpoint", "missing.pt"], "missing.pt: no such checkpoint"),
        (["evaluate", "--checkpoint", "text.pt"], "text.pt"),
        (["predict", "x.png", "--checkpoint", "missing.pt"], "missing.pt: no such checkpoint"),
        (["predict", "x.png", "--checkpoint", "x.pt", "--threshold", "2"], "--threshold is 2"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, capsys, monkeypatch):
    """In this process: a mistake must not cost a traceback, whatever the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("not a checkpoint")
    assert mask_rcnn.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1, error
    assert len(error) < 400, error


@pytest.mark.parametrize("dcn", ["21", "0121", "011"])
def test_deformable_stages_are_four_digits(dcn, capsys):
    with pytest.raises(SystemExit):
        mask_rcnn.main(["train", "--dcn", dcn])
    assert "must be four of 0 and 1" in capsys.readouterr().err
