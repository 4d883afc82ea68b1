"""Checkpoints: whole or not there, and clear about what is wrong with a file."""

from __future__ import annotations

import os
import resource
import signal

import pytest
import torch
from detection.models.build import build_model
from detection.training import checkpoint
from detection.training.checkpoint import SaveError
from training_support import CPU, MODEL


def state_of(**more):
    model = build_model(MODEL)
    return {"model": model.state_dict(), "options": MODEL.as_dict(), "iteration": 1, **more}


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "none.pt", CPU)
    (tmp_path / "text.pt").write_text("not a checkpoint")
    checkpoint.save(tmp_path / "whole.pt", state_of())
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("text.pt", "half.pt", "empty.pt"):
        assert_refused(tmp_path / name, "is no checkpoint: torch.save did not write it, or not to its end")
    middle = content.index(b"backbone.body.conv1.weight") - 40
    (tmp_path / "damaged.pt").write_bytes(content[:middle] + b"\xff" * 60 + content[middle + 60 :])
    assert_refused(tmp_path / "damaged.pt", "is no checkpoint of this program, or damaged")


class Code:
    """What torch.load(weights_only=True) does not build."""


def test_a_checkpoint_from_elsewhere_is_for_weights(tmp_path):
    torch.save({"model": Code()}, tmp_path / "code.pt")
    assert_refused(tmp_path / "code.pt", "if it is from elsewhere, to start from its weights, give it as --weights")
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "plain.pt")
    assert_refused(tmp_path / "plain.pt", "it lacks model, options, iteration; to start from its weights, give it as")
    torch.save([1, 2], tmp_path / "list.pt")
    assert_refused(tmp_path / "list.pt", "it lacks model, options, iteration")


def assert_refused(path, message: str) -> None:
    with pytest.raises(ValueError) as error:
        checkpoint.load(path, CPU)
    text = str(error.value)
    assert text.startswith(str(path)) and message in text
    assert "\n" not in text and len(text) < len(str(path)) + 200


def test_options_and_weights_that_do_not_fit_name_the_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, state_of(options={**MODEL.as_dict(), "colour": "red"}))
    with pytest.raises(ValueError, match=r"checkpoint\.pt: there is no model option colour"):
        checkpoint.load_model(path, CPU)
    checkpoint.save(path, state_of(options={**MODEL.as_dict(), "width": 16}))
    with pytest.raises(ValueError, match=r"checkpoint\.pt: its weights do not fit its model options"):
        checkpoint.load_model(path, CPU)


def test_a_model_is_loaded_with_its_averaged_weights(tmp_path):
    path, state = tmp_path / "checkpoint.pt", state_of()
    checkpoint.save(path, {**state, "ema": None})
    model, options = checkpoint.load_model(path, CPU)
    assert options == MODEL and not model.training
    name = "rpn.head.cls_logits.weight"
    assert torch.equal(model.state_dict()[name], state["model"][name])
    checkpoint.save(path, {**state, "ema": {**state["model"], name: torch.full_like(state["model"][name], 3)}})
    model, _ = checkpoint.load_model(path, CPU)
    assert (model.state_dict()[name] == 3).all()


def test_a_kill_while_it_is_written_keeps_the_one_before(tmp_path, monkeypatch):
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


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit of a file's size on this system")
def test_a_full_disk_keeps_the_one_before(tmp_path):
    """The system's limit of a file's size fails in the middle of writing, as a full disk does."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"iteration": 1})
    before = path.read_bytes()
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(SaveError) as error:
            checkpoint.save(path, {"iteration": 2, "model": torch.zeros(10**6)})
        with pytest.raises(SaveError) as first:
            checkpoint.save(tmp_path / "other.pt", {"model": torch.zeros(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == f"{path} cannot be saved: File too large; the checkpoint before it is kept"
    assert str(first.value) == f"{tmp_path / 'other.pt'} cannot be saved: File too large"
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(SaveError, match=r"run/checkpoint\.pt cannot be saved: (File exists|Not a directory)"):
        checkpoint.save(tmp_path / "run" / "checkpoint.pt", {})


def test_a_link_to_another_disk_stays_and_so_do_permissions(tmp_path):
    (tmp_path / "disk").mkdir()
    path, link = tmp_path / "disk" / "kept.pt", tmp_path / "checkpoint.pt"
    link.symlink_to("disk/kept.pt")
    for mode in (None, 0o600):
        if mode is not None:
            path.chmod(mode)
        checkpoint.save(link, {"iteration": 1})
        assert link.is_symlink() and torch.load(path) == {"iteration": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "disk") == ["kept.pt"]


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(SaveError, match=r"checkpoint\.pt cannot be saved: it is a named pipe.*regular file") as caught:
        checkpoint.save(tmp_path / "checkpoint.pt", {})
    assert "is kept" not in str(caught.value)
    assert (tmp_path / "checkpoint.pt").is_fifo()
