"""What the names of torchvision's weights stand for. Nothing is downloaded."""

from __future__ import annotations

import re

import pytest
import torch
from detection.models.build import build_model
from detection.models.pretrained import load_pretrained
from pretrained_support import published


@pytest.fixture
def downloads(monkeypatch):
    """What would be downloaded: records addresses, and gives no file."""
    from resnet_cuda.weights import downloads

    asked = []

    def local_file(address, argument="source"):
        asked.append(address.rpartition("/")[2])
        raise ValueError(f"{argument}: no network")

    monkeypatch.setattr(downloads, "local_file", local_file)
    return asked


@pytest.mark.parametrize(
    ("kind", "backbone", "weights", "file"),
    [
        ("maskrcnn", "resnet50", "DEFAULT", "maskrcnn_resnet50_fpn_coco-"),
        ("maskrcnn", "resnet50", "COCO_V1", "maskrcnn_resnet50_fpn_coco-"),
        ("fasterrcnn", "resnet50", "DEFAULT", "fasterrcnn_resnet50_fpn_coco-"),
        ("keypointrcnn", "resnet50", "COCO_LEGACY", "keypointrcnn_resnet50_fpn_coco-9f"),
        ("retinanet", "resnet50", "COCO_V1", "retinanet_resnet50_fpn_coco-"),
        ("maskrcnn", "resnet50", "IMAGENET1K_V1", "resnet50-0676ba61"),
        ("maskrcnn", "resnet50", "IMAGENET1K_V2", "resnet50-11ad3fa6"),
        ("maskrcnn", "resnet18", "DEFAULT", "resnet18-"),
        ("maskrcnn", "resnet50", "ResNet50_Weights.IMAGENET1K_V1", "resnet50-0676ba61"),
        ("retinanet", "resnet50", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1", "maskrcnn_resnet50_fpn_coco-"),
        ("maskrcnn", "resnet50", "https://example.org/my.pth", "my.pth"),
    ],
)
def test_what_a_name_stands_for(kind, backbone, weights, file, narrow, downloads):
    with pytest.raises(ValueError, match="no network"):
        load_pretrained(build_model(narrow()), narrow(kind, backbone=backbone), weights)
    assert [it.startswith(file) for it in downloads] == [True]


def test_a_member_of_an_enum_has_the_names_of_its_classes(plain, theirs, monkeypatch, tmp_path):
    """Two of COCO's classes keep what the published detector knows of them."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    from resnet_cuda.weights import downloads

    other = theirs(classes=90)
    torch.save(published(other.state_dict()), tmp_path / "coco.pth")
    monkeypatch.setattr(downloads, "local_file", lambda *_: str(tmp_path / "coco.pth"))
    options = type(plain()).from_dict(plain().as_dict() | {"class_names": ["dog", "person"]})
    for weights in ("DEFAULT", MaskRCNN_ResNet50_FPN_Weights.COCO_V1, "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"):
        model = build_model(options)
        text = load_pretrained(model, options, weights)
        assert text.startswith("torchvision MaskRCNN_ResNet50_FPN_Weights.COCO_V1 (torchvision): loaded")
        assert "new" not in text
        for key in ("box_predictor.cls_score", "mask_predictor.mask_fcn_logits"):
            ours, coco = (it.roi_heads.get_parameter(f"{key}.weight") for it in (model, other))
            assert torch.equal(ours, coco[[0, 18, 1]])


def test_names_that_torchvision_does_not_have(narrow, downloads):
    for weights, backbone, message in (
        (
            "COCO_V1",
            "resnet18",
            "weights is 'COCO_V1'; for maskrcnn on resnet18 torchvision has IMAGENET1K_V1, DEFAULT; else give a file",
        ),
        (
            "IMAGENET1K_V9",
            "resnet50",
            "weights is 'IMAGENET1K_V9'; for maskrcnn on resnet50 torchvision has IMAGENET1K",
        ),
        ("DEFAULT", "resnet18d", "weights is 'DEFAULT'; for maskrcnn on resnet18d torchvision has none; else give a"),
        (
            "ResNet50_Weights.V9",
            "resnet50",
            "weights is 'ResNet50_Weights.V9'; allowed of ResNet50_Weights are IMAGENET",
        ),
        ("No_Weights.V1", "resnet50", "weights is 'No_Weights.V1'; this torchvision has no such weights enum"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            load_pretrained(build_model(narrow()), narrow(backbone=backbone), weights)
    assert downloads == []


def test_without_a_network_it_is_one_sentence(narrow, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ValueError) as caught:
        load_pretrained(build_model(narrow()), narrow(backbone="resnet50"), "COCO_V1")
    file = "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoints' / file}: it is not there, and cannot be downloaded (Name or service not known); "
        f"put https://download.pytorch.org/models/{file} there"
    )
