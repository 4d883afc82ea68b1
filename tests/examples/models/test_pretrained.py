"""Trained weights into the four detectors: all of the same classes, all but the last layers of others."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from detection.models.build import build_model
from detection.models.options import KINDS
from detection.models.pretrained import load_pretrained

PREDICTORS = {
    "maskrcnn": ["roi_heads.box_predictor", "roi_heads.mask_predictor.mask_fcn_logits"],
    "fasterrcnn": ["roi_heads.box_predictor"],
    "keypointrcnn": ["roi_heads.box_predictor"],
    "retinanet": ["head.classification_head.cls_logits"],
}


def published(state):
    """The keys of torchvision's published detectors, which are of version 1."""
    rules = [
        (r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"mask_head\.(\d)\.0\.", lambda it: f"mask_head.mask_fcn{int(it[1]) + 1}."),
        (r"(classification|regression)_head\.conv\.(\d)\.0\.", lambda it: f"{it[1]}_head.conv.{2 * int(it[2])}."),
    ]
    renamed = {}
    for key, value in state.items():
        for pattern, by in rules:
            key = re.sub(pattern, by, key)
        if "num_batches_tracked" not in key:
            renamed[key] = value
    return renamed


WRAPPINGS = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "references": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 1},
    "references, distributed": lambda state: {
        "model": {f"module.{key}": value for key, value in state.items()},
        "epoch": 1,
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_file_of_torchvisions_mask_rcnn(wrapping, plain, theirs, assert_same_outputs, tmp_path):
    other = theirs()
    torch.save(WRAPPINGS[wrapping](other.state_dict()), tmp_path / "detector.pth")
    model = build_model(plain())
    text = load_pretrained(model, plain(), str(tmp_path / "detector.pth"))
    assert text == f"{tmp_path / 'detector.pth'} (torchvision): loaded backbone.body, backbone.fpn, rpn, roi_heads"
    assert_same_outputs(model, other)


@pytest.mark.parametrize("keys", ["published", "present"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_torchvisions_results(kind, keys, plain, theirs, assert_same_outputs):
    """Those with the keys of the published files are of epsilon 0, as torchvision sets it for its COCO_V1."""
    other = theirs(kind, eps=0.0 if keys == "published" else 1e-5)
    state = published(other.state_dict()) if keys == "published" else other.state_dict()
    model = build_model(plain(kind))
    text = load_pretrained(model, plain(kind), state)
    assert "\n" not in text
    assert "new" not in text
    assert_same_outputs(model, other)


def test_a_published_model_that_was_saved_again_needs_its_epsilon(plain, theirs, assert_same_outputs):
    other = copy.deepcopy(theirs("fasterrcnn", eps=0.0))
    for module in other.modules():
        if hasattr(module, "running_var"):
            module.running_var *= 1e-4  # where it matters
            module.weight.data *= 1e-2
    model = build_model(plain("fasterrcnn"))
    load_pretrained(model, plain("fasterrcnn"), other.state_dict(), eps=0.0)
    assert_same_outputs(model, other)
    load_pretrained(model, plain("fasterrcnn"), other)  # a module tells its epsilon itself
    assert_same_outputs(model, other)
    load_pretrained(model, plain("fasterrcnn"), other.state_dict())
    with pytest.raises(AssertionError):
        assert_same_outputs(model, other)


@pytest.mark.parametrize("kind", KINDS)
def test_other_classes_get_new_predictors(kind, plain, theirs):
    other = theirs(kind, classes=5)
    options = plain(kind)
    model = build_model(options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    text = load_pretrained(model, options, published(other.state_dict()))
    after, state = model.state_dict(), other.state_dict()
    fresh = {key for key in after if key.startswith(tuple(PREDICTORS[kind]))}
    assert fresh
    for key, value in after.items():
        if key in fresh:
            assert torch.equal(value, before[key]), key
        elif ".bn" not in key and "downsample.1" not in key:  # whose epsilon is another
            assert torch.equal(value, state[key]), key
    assert text.splitlines()[1] == f"new for your 3 classes: {', '.join(PREDICTORS[kind])}"


def test_other_keypoints_get_a_new_predictor(plain, theirs):
    options = plain("keypointrcnn", classes=2)
    options = type(options).from_dict(options.as_dict() | {"keypoint_names": ["one", "other"]})
    text = load_pretrained(build_model(options), options, theirs("keypointrcnn", classes=2).state_dict())
    assert text.splitlines()[1] == "new for your 2 keypoints: roi_heads.keypoint_predictor"


def test_into_a_deformable_model(plain, theirs, assert_same_outputs):
    """Its offsets start at 0 and its masks are compensated, so that it begins as the plain network."""
    other = theirs()
    options = plain(dcn_stages=(False, True, True, True))
    model = build_model(options)
    text = load_pretrained(model, options, other.state_dict())
    assert text.splitlines()[1] == "the offsets of 13 deformable layers are new"
    assert_same_outputs(model, other)


def test_into_another_kind(plain, theirs):
    options = plain("fasterrcnn")
    model, other = build_model(options), theirs("maskrcnn")
    text = load_pretrained(model, options, other.state_dict())
    assert text.splitlines() == [
        "state dict (torchvision): loaded backbone.body, backbone.fpn, rpn, roi_heads",
        "not needed: roi_heads.mask_head, roi_heads.mask_predictor",
    ]
    options = plain("maskrcnn", classes=2)
    text = load_pretrained(build_model(options), options, model.state_dict())
    assert text.splitlines() == [
        "state dict (torchvision): loaded backbone.body, backbone.fpn, rpn, roi_heads.box_head",
        "new for your 2 classes: roi_heads.box_predictor, roi_heads.mask_predictor.mask_fcn_logits; "
        "new: roi_heads.mask_head, roi_heads.mask_predictor.conv5_mask",
    ]


def test_other_anchors_and_another_box_head(plain, theirs):
    options = plain(anchor_ratios=(0.5, 1.0), head_channels=32)
    text = load_pretrained(build_model(options), options, theirs().state_dict())
    assert "new for your 3 classes: roi_heads.box_predictor; new: rpn.head.cls_logits, rpn.head.bbox_pred, " in text
    assert "roi_heads.box_head" in text.splitlines()[1]


def test_a_classifier_fills_the_body(plain):
    from torchvision.models import resnet50

    options, classifier = plain(), resnet50()
    model = build_model(options)
    text = load_pretrained(model, options, {"state_dict": classifier.state_dict()})
    assert text == "state dict (torchvision): loaded backbone.body\nnew: backbone.fpn, rpn, roi_heads"
    assert torch.equal(model.backbone.body.layer3[2].conv2.weight, classifier.layer3[2].conv2.weight)


@pytest.mark.parametrize("library", ["detectron2", "mmdetection", "maskrcnn-benchmark", "caffe2"])
@pytest.mark.filterwarnings("error")
def test_files_of_other_libraries(library, narrow, tmp_path):
    """Their pixels become torchvision's."""
    from helpers.networks import randomise

    import resnet_cuda
    from resnet_cuda.weights.convert import convert_file

    source = randomise(resnet_cuda.resnet_fpn_backbone("resnet50", width=8, fpn_channels=8))
    convert_file(source, tmp_path / "other.pkl", library, pixels="caffe2" if library == "caffe2" else library)
    options = narrow(backbone="resnet50", dcn_stages=(False, False, False, False))
    model = build_model(options)
    text = load_pretrained(model, options, tmp_path / "other.pkl")
    assert f"other.pkl ({library}): loaded backbone.body, backbone.fpn\nnew: rpn, roi_heads" in text
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = source(image), model.backbone(image)
    for name, level in expected.items():
        torch.testing.assert_close(found[name], level, rtol=0, atol=1e-5)


def test_what_only_a_person_can_know_is_a_line(narrow):
    """detectron2's ResNet-50 mostly strides elsewhere, and no key tells."""
    import resnet_cuda
    from resnet_cuda.weights.convert import convert

    source = resnet_cuda.resnet_fpn_backbone("resnet50", width=8, fpn_channels=8)
    content = {"model": convert(source, "detectron2").weights}
    options = narrow(backbone="resnet50", dcn_stages=(False, False, False, False))
    lines = load_pretrained(build_model(options), options, content).splitlines()
    assert lines[2].startswith("warning: stride: the model's bottlenecks stride in the 3x3; detectron2's ResNet-50")
    assert len(lines) == 3


def own_checkpoint(model, options, **more):
    optimizer = torch.optim.AdamW([it for it in model.parameters() if it.requires_grad])
    sum(it.sum() for it in model.parameters() if it.requires_grad).backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": 7,
        "options": options.as_dict(),
        "seed": 0,
        **more,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_this_program(kind, narrow, tmp_path):
    options = narrow(kind)
    trained = build_model(options)
    torch.save(own_checkpoint(trained, options), tmp_path / "checkpoint.pt")
    model = build_model(options)
    text = load_pretrained(model, options, tmp_path / "checkpoint.pt")
    assert "new" not in text
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_of_a_checkpoint_the_average_is_taken(narrow, tmp_path):
    options = narrow()
    trained = build_model(options)
    average = build_model(options).state_dict()
    torch.save(own_checkpoint(trained, options, ema=average), tmp_path / "checkpoint.pt")
    model = build_model(options)
    load_pretrained(model, options, tmp_path / "checkpoint.pt")
    for key, value in average.items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize("kind", ["maskrcnn", "retinanet"])
def test_classes_of_a_checkpoint_are_found_by_name(kind, narrow, sample):
    """Some of them in another order: the same boxes, masks and scores under the new labels."""
    options = narrow(kind, class_names=("a", "b", "c", "d"), norm="gn")
    trained = build_model(options)
    chosen = narrow(kind, class_names=("d", "b"), norm="gn")
    model = build_model(chosen)
    text = load_pretrained(model, chosen, own_checkpoint(trained, options))
    assert f"by the names of your classes {', '.join(PREDICTORS[kind])}" in text
    assert "new" not in text
    theirs, ours = trained.state_dict(), model.state_dict()
    pairs = [(0, 0), (4, 1), (2, 2)]
    if kind == "retinanet":
        key = "head.classification_head.cls_logits.weight"
        for there, here in pairs:
            assert torch.equal(ours[key].view(9, 3, 8, 3, 3)[:, here], theirs[key].view(9, 5, 8, 3, 3)[:, there])
    else:
        for there, here in pairs:
            for key in ("box_predictor.cls_score.weight", "mask_predictor.mask_fcn_logits.bias"):
                assert torch.equal(ours[f"roi_heads.{key}"][here], theirs[f"roi_heads.{key}"][there])
            key = "roi_heads.box_predictor.bbox_pred.weight"
            assert torch.equal(ours[key][4 * here : 4 * here + 4], theirs[key][4 * there : 4 * there + 4])


def test_as_many_classes_of_other_names_are_new(narrow):
    options, chosen = narrow(class_names=("a", "b")), narrow(class_names=("a", "c"))
    checkpoint = own_checkpoint(build_model(options), options)
    text = load_pretrained(build_model(chosen), chosen, checkpoint)
    assert text.splitlines()[1] == (
        "new for your 2 classes: roi_heads.box_predictor, roi_heads.mask_predictor.mask_fcn_logits"
    )


def test_keypoints_are_found_by_name(narrow):
    options = narrow("keypointrcnn")
    chosen = narrow("keypointrcnn", keypoint_names=("top", "left"))
    trained, model = build_model(options), build_model(chosen)
    text = load_pretrained(model, chosen, own_checkpoint(trained, options))
    assert "; by the names of your keypoints roi_heads.keypoint_predictor" in text
    theirs, ours = (it.roi_heads.keypoint_predictor.kps_score_lowres for it in (trained, model))
    assert torch.equal(ours.weight, theirs.weight[:, [2, 0]])
    assert torch.equal(ours.bias, theirs.bias[[2, 0]])


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
