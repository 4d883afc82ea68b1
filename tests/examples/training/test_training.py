"""Training end to end, killed and resumed; checkpoints; calibration."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detection.data.coco_dataset import CocoInstances
from detection.data.transforms import TRAINING
from detection.training import checkpoint
from detection.training.engine import train

from resnet_cuda.layers import FrozenBatchNorm2d

CPU = torch.device("cpu")


def run(coco, model, options, path):
    return train(CocoInstances(*coco), model, options, path, CPU, TRAINING)


@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
def test_a_resumed_run_equals_an_uninterrupted_one(coco, tiny_model, tiny_training, tmp_path, norm):
    model = replace(tiny_model, norm=norm)
    whole = run(coco, model, tiny_training, tmp_path / "whole.pt").state_dict()
    path = tmp_path / "pieces.pt"
    run(coco, model, replace(tiny_training, stop_after=2), path)
    assert torch.load(path, weights_only=True)["iteration"] == 2
    # A run that was killed while it wrote leaves this behind; the checkpoint before it counts.
    path.with_name(f".{path.name}.unfinished").write_bytes(b"half a checkpoint")
    # With workers, which must not change what is seen.
    pieces = run(coco, model, replace(tiny_training, workers=1), path).state_dict()
    assert whole.keys() == pieces.keys()
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_training_changes_every_trained_parameter(coco, tiny_model, tiny_training, tmp_path):
    first = run(coco, tiny_model, replace(tiny_training, stop_after=0), tmp_path / "a.pt").state_dict()
    last = run(coco, tiny_model, tiny_training, tmp_path / "b.pt")
    trained = {name for name, parameter in last.named_parameters() if parameter.requires_grad}
    moved = {name for name, value in last.state_dict().items() if not torch.equal(value, first[name])}
    assert moved <= trained
    assert {name for name in trained if name.startswith("backbone.body")} <= moved


def test_a_checkpoint_of_another_model_is_refused(coco, tiny_model, tiny_training, tmp_path):
    path = tmp_path / "checkpoint.pt"
    run(coco, tiny_model, replace(tiny_training, stop_after=1), path)
    with pytest.raises(ValueError, match="another model or seed"):
        run(coco, replace(tiny_model, width=16), tiny_training, path)


def test_checkpoints_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "none.pt", CPU)
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.pt is no readable checkpoint"):
        checkpoint.load(tmp_path / "text.pt", CPU)
    torch.save({"model": {}}, tmp_path / "part.pt")
    with pytest.raises(ValueError, match=r"part\.pt lacks optimizer, iteration, options, seed"):
        checkpoint.load(tmp_path / "part.pt", CPU)


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"iteration": 1})
    before = path.read_bytes()

    def killed(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"iteration": 2})
    assert path.read_bytes() == before


@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
def test_a_network_from_scratch_is_calibrated(norm, coco, tiny_model, tiny_training, tmp_path, recwarn):
    """Where it has frozen norms, and before the first step: the package's warning about them does not come."""
    model = run(coco, replace(tiny_model, norm=norm), replace(tiny_training, iterations=1), tmp_path / "checkpoint.pt")
    norms = [layer for layer in model.backbone.modules() if isinstance(layer, FrozenBatchNorm2d)]
    assert len(norms) == (0 if norm == "gn" else 20)
    assert all(layer.running_mean.any() for layer in norms)
    assert not [warning for warning in recwarn if "never given statistics" in str(warning.message)]


def test_a_loss_that_is_no_number_is_an_error(coco, tiny_model, tiny_training, tmp_path):
    with pytest.raises(ValueError, match="the loss of iteration"):
        run(coco, tiny_model, replace(tiny_training, learning_rate=1e30, iterations=10), tmp_path / "checkpoint.pt")
