"""Training end to end on one process: what it learns, writes, resumes and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import yaml
from detection.data.errors import DamagedSampleError
from detection.models.options import ModelOptions
from detection.training import checkpoint
from detection.training.console import Progress
from detection.training.engine import train
from detection.training.log import read_log
from detection.training.options import TrainOptions
from torch.utils.data import Dataset
from training_support import CPU, MODEL, OPTIONS, assert_same_bits, coco, load, write_coco

from resnet_cuda.layers import FrozenBatchNorm2d

AVERAGED = replace(OPTIONS, ema=0.9, evaluate_every=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_coco(folder / "coco")
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return coco(folder / "coco")


@pytest.fixture(scope="module")
def whole(folder, data):
    """The folder of a training with all that it can write."""
    train(data, MODEL, AVERAGED, folder / "whole", CPU, validation=data)
    return folder / "whole"


@pytest.mark.parametrize("change", [{}, {"precision": "float16"}, {"optimizer": "sgd", "accumulate": 2}])
def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path, change):
    options = replace(OPTIONS, ema=0.9, **change)
    train(data, MODEL, options, tmp_path / "whole", CPU)
    for stop_after, workers in ((0, 0), (3, 1), (None, 0)):
        train(data, MODEL, replace(options, stop_after=stop_after, workers=workers), tmp_path / "pieces", CPU)
        # A run that was killed while it wrote leaves this behind; the checkpoint before it counts.
        (tmp_path / "pieces" / ".checkpoint.pt.unfinished").write_bytes(b"half a checkpoint")
    pieces, expected = (load(tmp_path / name / "checkpoint.pt") for name in ("pieces", "whole"))
    for name in ("model", "ema", "optimizer"):
        for actual, wanted in zip(_tensors(pieces[name]), _tensors(expected[name]), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)  # of several threads
    assert {name: it for name, it in pieces.items() if name == "scaler"} == {"scaler": expected["scaler"]}
    assert pieces["samples"] == 6 * 2 * options.accumulate


def _tensors(values) -> list[torch.Tensor]:
    if torch.is_tensor(values):
        return [values]
    nested = values.values() if isinstance(values, dict) else values if isinstance(values, (list, tuple)) else ()
    return [tensor for value in nested for tensor in _tensors(value)]


def test_training_changes_what_is_trained_and_nothing_else(data, tmp_path):
    model = replace(MODEL, trainable_layers=2)
    first = train(data, model, replace(OPTIONS, stop_after=0), tmp_path / "a", CPU).state_dict()
    last = train(data, model, OPTIONS, tmp_path / "b", CPU)
    trained = {name for name, parameter in last.named_parameters() if parameter.requires_grad}
    moved = {name for name, value in last.state_dict().items() if not torch.equal(value, first[name])}
    assert moved <= trained
    assert {name for name in trained if name.startswith("backbone.body")} <= moved
    assert not any("layer1" in name for name in trained) and any("layer4" in name for name in trained)


def test_it_writes_all_that_it_says(whole, data):
    names = {path.name for path in whole.iterdir()} - {"tensorboard", ".lock"}
    assert names == {"best.pt", "checkpoint.pt", "curves.png", "log.csv", "log.jsonl", "options.yaml"}
    content = yaml.safe_load((whole / "options.yaml").read_text())
    assert ModelOptions.from_dict(content["model"]) == MODEL
    assert TrainOptions.from_dict(content["train"]) == AVERAGED
    records = read_log(whole / "log.jsonl")
    training = [record for record in records if "validation" not in record]
    assert [record["iteration"] for record in training] == [1, 2, 3, 4, 5, 6]
    parts = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    other = {"iteration", "total", "learning_rate", "gradient_norm", "images_per_second", "seconds", "memory_mb"}
    assert all(record.keys() == parts | other for record in training)
    assert all(record["total"] == pytest.approx(sum(record[it] for it in parts)) for record in training)
    assert all(record["gradient_norm"] > 0 and record["memory_mb"] > 50 for record in training)
    assert [record["iteration"] for record in records if "validation" in record] == [2, 4, 6]
    json.dumps(records, allow_nan=False)


def test_the_result_is_what_load_model_gives(whole, data):
    """The averaged weights, which are not the last ones."""
    result = train(data, MODEL, AVERAGED, whole, CPU, validation=data)  # has nothing left to do
    model, options = checkpoint.load_model(whole / "checkpoint.pt", CPU)
    assert options == MODEL and not result.training and not model.training
    assert_same_bits(dict(model.state_dict()), dict(result.state_dict()))
    last = load(whole / "checkpoint.pt")["model"]
    assert not torch.equal(last["rpn.head.cls_logits.weight"], model.state_dict()["rpn.head.cls_logits.weight"])


def test_the_best_of_the_validations_is_kept(data, tmp_path, monkeypatch):
    from detection.training import validation

    given, seen = iter([0.1, 0.4, 0.3]), []

    class Report:
        primary = "segm"

        def __init__(self, ap: float):
            self.metrics = {"segm": {"AP": ap}}

    def evaluate(model, dataset, device, *, options, workers=0, keep_results=False):
        assert not model.training and dataset is data and options == MODEL
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Report(next(given))

    monkeypatch.setattr(validation, "evaluate", evaluate)
    train(data, MODEL, replace(AVERAGED, stop_after=5), tmp_path, CPU, validation=data)
    train(data, MODEL, AVERAGED, tmp_path, CPU, validation=data)
    assert len(seen) == 3
    model, _ = checkpoint.load_model(tmp_path / "best.pt", CPU)
    assert_same_bits(dict(model.state_dict()), seen[1])
    best = {"iteration": 4, "metric": "segm", "AP": 0.4}
    assert load(tmp_path / "best.pt")["best"] == load(tmp_path / "checkpoint.pt")["best"] == best


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ({"width": 16}, {}, "model option width is 16, and there 8"),
        ({"trainable_layers": 3}, {}, "model option trainable_layers is 3, and there 5"),
        ({}, {"seed": 4}, "seed is 4, and there 0"),
        (
            {},
            {"optimizer": "sgd", "weight_decay": 0.5},
            "optimizer is 'sgd', and there 'adamw'; weight_decay is",
        ),
        ({}, {"ema": 0.0}, "ema is 0, and there 0.9"),
        ({}, {"augment": ()}, "augment is (), and there ('flip', 'colour')"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(whole, data, model, change, message):
    before = (whole / "options.yaml").read_text()
    with pytest.raises(ValueError) as error:
        train(data, replace(MODEL, **model), replace(AVERAGED, **change), whole, CPU)
    assert str(error.value).startswith(f"{whole / 'checkpoint.pt'} is of another training: {message}")
    assert "\n" not in str(error.value)
    assert (whole / "options.yaml").read_text() == before


def test_what_may_change_is_said(data, tmp_path, capsys):
    train(data, MODEL, replace(OPTIONS, stop_after=2), tmp_path, CPU)
    longer = replace(OPTIONS, iterations=3, batch=1, learning_rate=2e-4, clip_norm=0.0, save_every=1, workers=1)
    train(data, MODEL, longer, tmp_path, CPU)
    lines = capsys.readouterr().out.splitlines()
    assert "resumed at iteration 2" in lines
    assert {line for line in lines if line.startswith("goes on")} == {
        "goes on with iterations 3 (it was 6)",
        "goes on with batch 1 (it was 2)",
        "goes on with learning_rate 0.0002 (it was 0.001)",
        "goes on with clip_norm 0 (it was 10)",
    }
    assert load(tmp_path / "checkpoint.pt")["samples"] == 2 * 2 + 1


def test_without_resume_it_begins_anew(data, tmp_path, capsys):
    train(data, MODEL, replace(OPTIONS, stop_after=2), tmp_path, CPU)
    train(data, replace(MODEL, norm="gn"), replace(OPTIONS, stop_after=1, resume=False), tmp_path, CPU)
    assert "resumed" not in capsys.readouterr().out
    assert [record["iteration"] for record in read_log(tmp_path / "log.jsonl")] == [1]


def test_best_pt_alone_cannot_be_resumed(whole, data, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes((whole / "best.pt").read_bytes())
    with pytest.raises(ValueError, match="cannot be resumed, it lacks optimizer, .*give it as --weights"):
        train(data, MODEL, AVERAGED, tmp_path, CPU)


@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
def test_a_network_from_scratch_is_calibrated(norm, data, tmp_path, recwarn):
    """Where it has frozen norms, and before the first step: the package's warning about them does not come."""
    model = train(data, replace(MODEL, norm=norm), replace(OPTIONS, iterations=1), tmp_path, CPU)
    norms = [layer for layer in model.backbone.modules() if isinstance(layer, FrozenBatchNorm2d)]
    assert len(norms) == (0 if norm == "gn" else 20)
    assert all(layer.running_mean.any() for layer in norms)
    assert not [warning for warning in recwarn if "never given statistics" in str(warning.message)]


def test_weights_are_where_it_begins(whole, data, tmp_path):
    """Of a checkpoint of this program, whose frozen norms are not measured again."""
    options = replace(OPTIONS, stop_after=0)
    path = whole / "checkpoint.pt"
    result = train(data, replace(MODEL, trainable_layers=None), options, tmp_path, CPU, weights=str(path))
    model, _ = checkpoint.load_model(path, CPU)
    assert_same_bits(dict(result.state_dict()), dict(model.state_dict()))
    assert not any(it.requires_grad for it in result.backbone.body.layer1.parameters())  # 3 layers with weights
    assert yaml.safe_load((tmp_path / "options.yaml").read_text())["weights"] == str(path)


def test_a_loss_that_is_no_number_is_an_error(data, tmp_path):
    with pytest.raises(ValueError, match=r"the loss of iteration \d is (nan|inf) \(loss_.*a lower --learning-rate"):
        train(data, MODEL, replace(OPTIONS, learning_rate=1e30, iterations=10), tmp_path, CPU)


@pytest.mark.parametrize("kind", ["fasterrcnn", "retinanet"])
def test_other_detectors_train_on_the_boxes_of_a_data_set_with_masks(kind, folder, tmp_path):
    model = replace(MODEL, kind=kind)
    train(coco(folder / "coco"), model, replace(OPTIONS, iterations=2), tmp_path, CPU)
    loaded, options = checkpoint.load_model(tmp_path / "checkpoint.pt", CPU)
    assert options.kind == kind
    assert {"boxes", "labels", "scores"} == loaded([torch.rand(3, 48, 64)])[0].keys()


class Points(Dataset):
    """Of the user's own, with keypoints and without all that a data set may lack."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return 3

    def class_names(self) -> list[str]:
        return ["bird"]

    def keypoint_names(self) -> list[str]:
        return ["beak", "tail"]

    def __getitem__(self, index: int):
        keypoints = torch.tensor([[[20.0, 14.0, 2.0], [36.0, 30.0, 1.0]]])
        target = {"boxes": torch.tensor([[10.0, 8.0, 40.0, 36.0]]), "labels": torch.tensor([1]), "keypoints": keypoints}
        return torch.rand(3, 48, 64, generator=self.generator), target


def test_keypoints_of_a_data_set_of_the_users_own(tmp_path):
    model = replace(MODEL, kind="keypointrcnn", class_names=("bird",), keypoint_names=("beak", "tail"))
    data = Points()
    train(data, model, replace(OPTIONS, evaluate_every=6), tmp_path, CPU, validation=data)
    training = [record for record in read_log(tmp_path / "log.jsonl") if "validation" not in record]
    assert all(record["loss_keypoint"] > 0 for record in training)
    assert load(tmp_path / "best.pt")["best"]["metric"] == "keypoints"


@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
def test_another_number_of_keypoints_than_the_models_names_the_sample(tmp_path, norm):
    names = ("beak", "eye", "tail")
    model = replace(MODEL, kind="keypointrcnn", class_names=("bird",), keypoint_names=names, norm=norm)
    with pytest.raises(DamagedSampleError, match=r"^sample \d: .*keypoints"):
        train(Points(), model, OPTIONS, tmp_path, CPU)


def test_the_console_tells_the_remaining_time(data, tmp_path, capsys):
    train(data, MODEL, OPTIONS, tmp_path, CPU)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("iteration")]
    assert [line.split()[1] for line in lines] == ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]
    assert all(word in lines[0] for word in ("loss ", "lr ", "images/s", "MB", "ETA 0:"))


@pytest.mark.parametrize(
    ("arguments", "iterations"),
    [
        ((0, 10, 20), list(range(1, 11))),
        ((0, 45, 20), [1, *range(4, 45, 4), 45]),
        ((0, 1000, 300), [1, *range(100, 1001, 100)]),
        ((0, 1000, 100), [1, *range(100, 1001, 100)]),
        ((0, 300, 7), [1, *range(7, 300, 7), 300]),
        ((990, 1000, 20), list(range(991, 1001))),  # resumed near the end
        ((100, 90_000, 20, 105), list(range(101, 106))),  # --stop-after 5
        ((5, 6, 20), [6]),
    ],
)
def test_the_console_is_never_silent_for_a_short_runs_length(capsys, arguments, iterations):
    record = {"total": 1.0, "learning_rate": 0.1, "images_per_second": 1.0, "seconds": 1.0, "memory_mb": 1.0}
    progress = Progress(*arguments)
    for iteration in range(arguments[0] + 1, (*arguments, arguments[1])[3] + 1):
        progress.update({"iteration": iteration, **record})
    said = [int(line.removeprefix("iteration").partition("/")[0]) for line in capsys.readouterr().out.splitlines()]
    assert said == iterations
