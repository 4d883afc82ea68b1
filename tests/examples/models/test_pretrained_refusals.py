"""Weights that do not fit, damaged ones and files of another kind: one sentence each, and the model is unchanged."""

from __future__ import annotations

import pytest
import torch
from detection.models.build import build_model
from detection.models.pretrained import load_pretrained


def test_files_of_another_kind(narrow, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not weights\n")
    empty = tmp_path / "empty.pth"
    empty.touch()
    tensors = tmp_path / "tensors.pth"
    torch.save({"a": torch.zeros(2)}, tensors)
    number = tmp_path / "number.pth"
    torch.save(3, number)
    model = build_model(narrow())
    for path, message in (
        (text, "it is not a file of weights: it begins with b'not weights\\n'"),
        (tmp_path, "it is a directory, not a file"),
        (empty, "it is empty"),
        (tmp_path / "missing.pth", "weights is not a file"),
        (tensors, "no key is one of a ResNet backbone as torchvision"),
        (number, "it holds a int"),
    ):
        with pytest.raises(ValueError) as caught:
            load_pretrained(model, narrow(), str(path))
        assert str(caught.value).startswith(f"{path}: {message}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="^weights is 'ftp://a/b.pth'; allowed addresses begin with http://"):
        load_pretrained(model, narrow(), "ftp://a/b.pth")
    with pytest.raises(TypeError, match="^weights is 3; it must be a path, "):
        load_pretrained(model, narrow(), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 16}, "has weights for width = 16; the model's width is 8"),
        ({"fpn_channels": 16}, "has weights for fpn_channels = 16; the model's fpn_channels is 8"),
        ({"backbone": "resnet34"}, "networks of another depth"),
        ({"norm": "gn"}, "The source has group norms in the body, the model not"),
        ({"kind": "retinanet"}, "does not fit the MaskRCNN, which is unchanged"),
    ],
)
def test_another_backbone_is_refused_and_changes_nothing(changes, message, narrow):
    model = build_model(narrow())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, narrow(), build_model(narrow(**changes)).state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_damaged_values_are_refused(narrow):
    model = build_model(narrow())
    for key in ("backbone.body.conv1.weight", "rpn.head.cls_logits.bias"):
        state = build_model(narrow()).state_dict()
        state[key] = torch.full_like(state[key], float("nan"))
        with pytest.raises(ValueError, match=f"with NaN or infinite values: {key}$"):
            load_pretrained(model, narrow(), state)
