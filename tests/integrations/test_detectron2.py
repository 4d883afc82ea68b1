"""detectron2's configurations, checkpoints and detectors on our backbone, against its own."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from same import assert_near, assert_same, randomise

OURS = {
    "build_resnet_backbone": "build_resnet_cuda_backbone",
    "build_resnet_fpn_backbone": "build_resnet_cuda_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_cuda_fpn_backbone",
}
ALL = ["res2", "res3", "res4", "res5"]
NARROW = {"STEM_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 32, "RES2_OUT_CHANNELS": 64, "OUT_FEATURES": ["stem", *ALL]}
BASIC = {"STEM_OUT_CHANNELS": 16, "RES2_OUT_CHANNELS": 64, "OUT_FEATURES": ALL}
DEFORM = {"DEFORM_ON_PER_STAGE": [False, True, True, True]}


def configured(name="build_resnet_backbone", resnets=(), fpn=(), freeze_at=0):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    cfg.MODEL.RESNETS.update({**NARROW, **dict(resnets)})
    cfg.MODEL.FPN.update({"OUT_CHANNELS": 32, **dict(fpn)})
    return cfg


def both(cfg):
    """Ours with theirs' random weights, and theirs."""
    from detectron2.modeling import build_backbone

    torch.manual_seed(0)
    theirs = randomise(build_backbone(cfg))
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.NAME = OURS[cfg.MODEL.BACKBONE.NAME]
    ours = build_backbone(cfg)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def image(*shape):
    torch.manual_seed(5)
    return torch.randn(*(shape or (2, 3, 64, 96)), dtype=torch.float64)


@pytest.mark.parametrize(
    "resnets",
    [
        {},
        {"DEPTH": 101},
        {"DEPTH": 18, **BASIC},
        {"DEPTH": 34, **BASIC},
        {"STRIDE_IN_1X1": False},
        {"NUM_GROUPS": 8, "WIDTH_PER_GROUP": 4, "STRIDE_IN_1X1": False},
        {"RES5_DILATION": 2},
        {"OUT_FEATURES": ["res4"]},
        {"NORM": "GN"},
        {"NORM": "BN"},
        {"NORM": "", "OUT_FEATURES": ["res2", "res3"]},
        {**DEFORM},
        {**DEFORM, "DEFORM_MODULATED": True},
        {**DEFORM, "DEFORM_MODULATED": True, "DEFORM_NUM_GROUPS": 2, "NUM_GROUPS": 8, "WIDTH_PER_GROUP": 4},
        {**DEFORM, "DEFORM_NUM_GROUPS": 4, "RES5_DILATION": 2, "STRIDE_IN_1X1": False},
        {**DEFORM, "DEFORM_MODULATED": True, "NORM": "GN", "DEPTH": 101},
    ],
    ids=lambda resnets: ",".join(f"{key}={value}" for key, value in resnets.items()) or "default",
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_backbone_is_detectron2s(detectron2, resnets, training):
    ours, theirs = both(configured(resnets=resnets))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert ours.output_shape() == theirs.output_shape()
    assert (ours.size_divisibility, ours.padding_constraints) == (theirs.size_divisibility, theirs.padding_constraints)
    ours.double().train(training), theirs.double().train(training)
    assert_same(ours, theirs, image())
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-9, atol=0, msg=name)


@pytest.mark.parametrize("name", ["build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone"])
@pytest.mark.parametrize("fpn", [{}, {"FUSE_TYPE": "avg"}, {"NORM": "GN"}, {"NORM": "BN", "FUSE_TYPE": "avg"}], ids=str)
def test_pyramid_is_detectron2s(detectron2, name, fpn):
    features = ALL if name == "build_resnet_fpn_backbone" else ALL[1:]
    cfg = configured(name, {**DEFORM, "OUT_FEATURES": features}, {"IN_FEATURES": features, **fpn})
    ours, theirs = both(cfg)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.output_shape() == theirs.output_shape()
    assert (ours.size_divisibility, ours.padding_constraints) == (theirs.size_divisibility, theirs.padding_constraints)
    assert_same(ours.double(), theirs.double(), image())


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing_is_detectron2s(detectron2, freeze_at, norm):
    ours, theirs = both(configured(freeze_at=freeze_at, resnets={"NORM": norm, "OUT_FEATURES": ALL}))
    wanted = {name: parameter.requires_grad for name, parameter in theirs.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in ours.named_parameters()} == wanted
    kinds = [[type(it).__name__ for it in net.modules() if hasattr(it, "running_var")] for net in (ours, theirs)]
    assert kinds[0] == kinds[1]
    if any(wanted.values()):
        assert_same(ours.double().train(), theirs.double().train(), image())


def test_input_channels_are_those_of_the_pixel_mean(detectron2):
    cfg = configured(resnets={"OUT_FEATURES": ["res2"]})
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 5, [1.0] * 5
    ours, theirs = both(cfg)
    assert_same(ours.double(), theirs.double(), image(1, 5, 32, 32))


def test_new_networks_start_as_detectron2s(detectron2):
    from detectron2.modeling import build_backbone

    cfg = configured(resnets={**DEFORM, "OUT_FEATURES": ALL})
    theirs = build_backbone(cfg)
    cfg.MODEL.BACKBONE.NAME = OURS[cfg.MODEL.BACKBONE.NAME]
    ours = build_backbone(cfg)
    for name, tensor in theirs.state_dict().items():
        got = ours.state_dict()[name]
        if "norm" in name or "offset" in name:
            assert torch.equal(got, tensor), name
        else:
            assert got.std().item() == pytest.approx(tensor.std().item(), rel=0.15), name


def detector(cfg, weights=None):
    from detectron2.modeling import build_model

    torch.manual_seed(0)
    model = build_model(cfg)
    if weights is None:
        randomise(model.backbone)
    else:
        model.load_state_dict(weights)
    return model


def in_float64(backbone):
    """The detector around it works in float32 only, where rounding alone would choose other proposals."""
    backbone.double()
    backbone.register_forward_pre_hook(lambda _, arguments: tuple(argument.double() for argument in arguments))
    backbone.register_forward_hook(lambda *call: {name: level.float() for name, level in call[-1].items()})


@pytest.mark.parametrize("file", ["mask_rcnn_R_50_FPN_1x", "retinanet_R_50_FPN_1x", "mask_rcnn_R_50_C4_1x"])
def test_detector_from_a_zoo_configuration(detectron2, file, tmp_path):
    """Only MODEL.BACKBONE.NAME differs: the same losses, gradients and detections, after its own checkpointer."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    folder = "COCO-Detection" if "retinanet" in file else "COCO-InstanceSegmentation"
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(detectron2.__file__).parents[1] / "configs" / folder / f"{file}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.update({"STEM_OUT_CHANNELS": 16, "WIDTH_PER_GROUP": 16, "RES2_OUT_CHANNELS": 32})
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    theirs = detector(cfg)
    DetectionCheckpointer(theirs, str(tmp_path)).save("model")
    cfg.MODEL.BACKBONE.NAME = OURS[cfg.MODEL.BACKBONE.NAME]
    ours = detector(cfg, theirs.state_dict())
    with torch.no_grad():
        for parameter in ours.backbone.parameters():
            parameter.zero_()
    incompatible = DetectionCheckpointer(ours).load(str(tmp_path / "model.pth"))
    assert "model" not in incompatible

    picture = torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)
    truth = Instances((96, 128))
    truth.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 60.0, 60.0], [30.0, 20.0, 110.0, 90.0]]))
    truth.gt_classes = torch.tensor([1, 3])
    truth.gt_masks = BitMasks(torch.rand(2, 96, 128) > 0.5)
    if "mask" in file:
        cfg.INPUT.MASK_FORMAT = "bitmask"
    results = []
    for model in (ours, theirs):
        in_float64(model.backbone)
        model.train()
        with EventStorage():
            torch.manual_seed(7)
            losses = model([{"image": picture, "instances": truth}])
        sum(losses.values()).backward()
        model.eval()
        with torch.no_grad():
            detections = model([{"image": picture}])[0]["instances"]
        gradients = {name: it.grad for name, it in model.backbone.named_parameters() if it.grad is not None}
        results.append((losses, gradients, detections))
    (losses, gradients, detections), (wanted_losses, wanted_gradients, wanted_detections) = results
    assert losses.keys() == wanted_losses.keys()
    for name, loss in wanted_losses.items():
        assert losses[name].item() == pytest.approx(loss.item(), rel=1e-6), name
    assert gradients.keys() == wanted_gradients.keys()
    for name, gradient in wanted_gradients.items():
        assert_near(gradients[name], gradient, name, 1e-5)
    assert len(detections) == len(wanted_detections) > 0
    assert_near(detections.scores, wanted_detections.scores, "scores", 1e-5)
    assert_near(detections.pred_boxes.tensor, wanted_detections.pred_boxes.tensor, "boxes", 1e-5)


def test_caffe2_files_with_scale_and_shift_alone_load(detectron2, tmp_path):
    """The model zoo's ImageNet files: Caffe2's names, no statistics, matched by detectron2's heuristics."""
    from detectron2.checkpoint import DetectionCheckpointer

    ours, theirs = both(configured(resnets={"OUT_FEATURES": ["res2"]}))
    letters = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "shortcut": "1"}
    blobs = {}
    for name, value in theirs.state_dict().items():
        parts = name.split(".")
        if parts[-1].startswith("running"):
            continue
        prefix = "res_conv1" if parts[0] == "stem" else f"{parts[0]}_{parts[1]}_branch{letters[parts[2]]}"
        if parts[-2] == "norm":
            blobs[f"{prefix}_bn_{'s' if parts[-1] == 'weight' else 'b'}"] = value.numpy()
        else:
            blobs[f"{'conv1' if parts[0] == 'stem' else prefix}_w"] = value.numpy()
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}))
    for network in (ours, theirs):
        for buffer in network.buffers():
            buffer.fill_(2.0)
        DetectionCheckpointer(network).load(str(path))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert_same(ours.double(), theirs.double(), image())


@pytest.mark.parametrize(
    ("resnets", "message"),
    [
        ({"DEPTH": 26}, "MODEL.RESNETS.DEPTH is 26; it must be 18, 34, 50, 101, 152"),
        ({"RES5_DILATION": 4}, "MODEL.RESNETS.RES5_DILATION is 4; it must be 1 or 2"),
        ({"NORM": "XN"}, "MODEL.RESNETS.NORM is 'XN'; it must be one of FrozenBN"),
        ({"OUT_FEATURES": ["res6"]}, "MODEL.RESNETS.OUT_FEATURES is .*; it must be a list of stem, res2"),
        ({"STRIDE_IN_1X1": "False"}, "MODEL.RESNETS.STRIDE_IN_1X1 is 'False'; it must be True or False"),
        ({"DEFORM_ON_PER_STAGE": [True]}, "MODEL.RESNETS.DEFORM_ON_PER_STAGE is .*; it must be 4 of True and False"),
        ({"STEM_TYPE": "deeplab"}, "MODEL.RESNETS.STEM_TYPE is 'deeplab'; it must be 'basic'"),
        ({"RES5_MULTI_GRID": [1, 2, 4]}, "MODEL.RESNETS.RES5_MULTI_GRID is .*; it must be .1, 1, 1."),
        ({"ATTENTION": True}, "MODEL.RESNETS.ATTENTION is not known; allowed are DEFORM_MODULATED, "),
        ({"DEPTH": 18}, "MODEL.RESNETS.DEFORM_ON_PER_STAGE|RES2_OUT_CHANNELS is .* for depth 18"),
        ({"DEPTH": 34, **BASIC, **DEFORM}, "DEFORM_ON_PER_STAGE is .*; it must be .* for depth 34"),
    ],
)
def test_what_is_not_there_is_refused_by_its_key(detectron2, resnets, message):
    from detectron2.modeling import build_backbone

    with pytest.raises(ValueError, match=message):
        build_backbone(configured("build_resnet_cuda_backbone", {"RES2_OUT_CHANNELS": 256, **resnets}))


@pytest.mark.parametrize(
    ("fpn", "message"),
    [({"FUSE_TYPE": "max"}, "FUSE_TYPE is 'max'"), ({"IN_FEATURES": ["res2", "res9"]}, "IN_FEATURES is .*res9")],
)
def test_wrong_pyramids_are_refused_by_their_key(detectron2, fpn, message):
    from detectron2.modeling import build_backbone

    with pytest.raises(ValueError, match=f"MODEL.FPN.{message}"):
        build_backbone(configured("build_resnet_cuda_fpn_backbone", {}, {"IN_FEATURES": ALL, **fpn}))


def test_neutral_keys_of_projects_are_taken(detectron2):
    from detectron2.modeling import build_backbone

    added = {"STEM_TYPE": "basic", "RES4_DILATION": 1, "RES5_MULTI_GRID": [1, 1, 1]}
    build_backbone(configured("build_resnet_cuda_backbone", added))


def test_without_detectron2_the_error_says_what_to_install():
    code = "import sys; sys.modules['detectron2'] = None\nimport resnet_cuda.integrations.detectron2"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert "ImportError: resnet_cuda.integrations.detectron2 needs detectron2: a checkout of it" in ended.stderr
