"""mmdetection's backbones and detectors by ResNetCUDA, against its own."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from same import assert_near, assert_same, randomise

from resnet_cuda.ops import frozen_bn

NARROW = {"depth": 50, "base_channels": 32, "norm_eval": False}
GN = {"norm_cfg": {"type": "GN", "num_groups": 16}}
DCN = {"dcn": {"type": "DCN", "deform_groups": 1}, "stage_with_dcn": (False, True, True, True)}
DCNV2 = {"dcn": {"type": "DCNv2", "deform_groups": 2}, "stage_with_dcn": (False, True, True, True)}
RESNEXT = {"groups": 8, "base_width": 4}


def both(**options):
    """Ours with theirs' random weights, and theirs."""
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    kind = "ResNeXt" if "groups" in options else "ResNet"
    theirs = randomise(MODELS.build({"type": kind, **copy.deepcopy(options)}))
    ours = MODELS.build({"type": "ResNetCUDA", **copy.deepcopy(options)})
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def image(*shape):
    torch.manual_seed(5)
    return torch.randn(*(shape or (2, 3, 64, 96)), dtype=torch.float64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"depth": 101},
        {"depth": 18},
        {"depth": 34, "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)},
        {"style": "caffe"},
        {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "style": "caffe"},
        {"in_channels": 5, "stem_channels": 16},
        {"deep_stem": True, "avg_down": True},
        {"deep_stem": True, "avg_down": True, "depth": 18, "frozen_stages": 0},
        {"num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1), "out_indices": (2,)},
        {**GN},
        {**RESNEXT},
        {**RESNEXT, "depth": 101, "style": "caffe"},
        {**DCN},
        {**DCNV2},
        {**DCNV2, **RESNEXT, **GN},
        {**DCN, "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "style": "caffe"},
        {**DCN, "depth": 101, "norm_eval": True},
        {"with_cp": True, "norm_eval": True},
        {"with_cp": True, "norm_eval": True, **DCNV2},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_backbone_is_mmdetections(mmdet, options, training):
    ours, theirs = both(**{**NARROW, **options})
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert (ours.feat_dim, ours.res_layers) == (theirs.feat_dim, theirs.res_layers)
    ours.double().train(training), theirs.double().train(training)
    assert_same(ours, theirs, image(2, options.get("in_channels", 3), 64, 96))
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-9, atol=0, msg=name)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("norm_eval", [False, True])
@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 4])
def test_freezing_is_mmdetections(mmdet, frozen_stages, norm_eval, requires_grad):
    norm_cfg = {"type": "BN", "requires_grad": requires_grad}
    ours, theirs = both(**NARROW | {"frozen_stages": frozen_stages, "norm_eval": norm_eval, "norm_cfg": norm_cfg})
    for mode in (True, False, True):
        ours.train(mode), theirs.train(mode)
        modes = {name: it.training for name, it in theirs.named_modules() if hasattr(it, "running_var")}
        assert {name: it.training for name, it in ours.named_modules() if hasattr(it, "running_var")} == modes
    wanted = {name: parameter.requires_grad for name, parameter in theirs.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in ours.named_parameters()} == wanted
    if any(wanted.values()):
        assert_same(ours.double(), theirs.double(), image())
        for name, buffer in theirs.named_buffers():
            torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-9, atol=0, msg=name)


def test_constant_norms_are_fused(mmdet, monkeypatch):
    """53 norms: all in evaluation and where frozen; none whose weight is trained."""
    ours, _ = both(**NARROW, frozen_stages=1)
    calls = []
    plain = frozen_bn._run
    monkeypatch.setattr(frozen_bn, "_run", lambda *arguments: calls.append(arguments) or plain(*arguments))
    x = image().float()
    for train, grad, count in ((False, False, 53), (False, True, 11), (True, True, 11)):
        calls.clear()
        with torch.set_grad_enabled(grad):
            ours.train(train)(x)
        assert len(calls) == count
        assert all(arguments[-1] for arguments in calls), "not in place"


def test_new_networks_start_as_mmdetections(mmdet):
    from mmdet.registry import MODELS

    options = {**NARROW, **DCNV2}
    theirs = MODELS.build({"type": "ResNet", **copy.deepcopy(options)})
    ours = MODELS.build({"type": "ResNetCUDA", **copy.deepcopy(options)})
    ours.init_weights(), theirs.init_weights()
    for name, tensor in theirs.state_dict().items():
        got = ours.state_dict()[name]
        if "bn" in name or "offset" in name or "downsample.1" in name:
            assert torch.equal(got, tensor), name
        elif "conv2" not in name:  # a deformable layer's own start is another
            assert got.std().item() == pytest.approx(tensor.std().item(), rel=0.15), name


def test_pretrained_offsets_stay(mmdet, tmp_path):
    from mmdet.registry import MODELS

    _, theirs = both(**NARROW, **DCN)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "backbone.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "backbone.pth")}
    ours = MODELS.build({"type": "ResNetCUDA", **NARROW, **copy.deepcopy(DCN), "init_cfg": init_cfg})
    ours.init_weights()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_offsets_by_their_older_name_load(mmdet):
    ours, theirs = both(**NARROW, **DCN)
    state = {name.replace("conv2.conv_offset", "conv2_offset"): it for name, it in theirs.state_dict().items()}
    assert state.keys() != theirs.state_dict().keys()
    for parameter in ours.parameters():
        parameter.data.zero_()
    ours.load_state_dict(state)
    assert_same(ours.double(), theirs.double(), image())


def test_retinanet_by_its_configuration(mmdet):
    """Only the backbone's type differs: the same losses and gradients, frozen stages and norm_eval included."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    backbone = {
        "type": "ResNet",
        "depth": 50,
        "base_channels": 16,
        "frozen_stages": 1,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "norm_eval": True,
        "dcn": {"type": "DCNv2", "deform_groups": 1},
        "stage_with_dcn": (False, True, True, True),
    }
    cfg = {
        "type": "RetinaNet",
        "backbone": backbone,
        "neck": {
            "type": "FPN",
            "in_channels": [64, 128, 256, 512],
            "out_channels": 32,
            "start_level": 1,
            "add_extra_convs": "on_input",
            "num_outs": 5,
        },
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": 4,
            "in_channels": 32,
            "feat_channels": 32,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
        },
        "train_cfg": {
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
        },
    }
    torch.manual_seed(0)
    theirs = MODELS.build(copy.deepcopy(cfg))
    randomise(theirs.backbone)
    cfg["backbone"]["type"] = "ResNetCUDA"
    ours = MODELS.build(cfg)
    ours.load_state_dict(theirs.state_dict())
    sample = DetDataSample(metainfo={"img_shape": (96, 128), "pad_shape": (96, 128), "batch_input_shape": (96, 128)})
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0], [30.0, 20.0, 110.0, 90.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 3]))
    results = []
    for model in (ours, theirs):
        model.train()
        model.backbone.double().register_forward_hook(lambda *call: tuple(level.float() for level in call[-1]))
        losses = model.loss(image(1, 3, 96, 128), [sample])
        total = sum(sum(loss) for loss in losses.values())
        total.backward()
        results.append((total, {name: it.grad for name, it in model.backbone.named_parameters()}))
    (loss, gradients), (wanted_loss, wanted) = results
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
    assert any(gradient is None for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert (gradients[name] is None) == (gradient is None), name
        if gradient is not None:
            assert_near(gradients[name], gradient, name, 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 26}, "ResNetCUDA: depth is 26; it must be 18, 34, 50, 101, 152"),
        ({"plugins": [{"cfg": {"type": "ContextBlock"}}]}, "ResNetCUDA: plugins is .*; it must be None"),
        ({"conv_cfg": {"type": "ConvWS"}}, "ResNetCUDA: conv_cfg is .*ConvWS.*; it must be None or"),
        ({"style": "caffe2"}, "ResNetCUDA: style is 'caffe2'; it must be 'pytorch' or 'caffe'"),
        ({"num_stages": 3}, "ResNetCUDA: num_stages is 3; it must be 1 to 4, as strides"),
        ({"out_indices": (4,)}, "ResNetCUDA: out_indices is .4,.; it must be of 0 to 3"),
        ({"frozen_stages": 5}, "ResNetCUDA: frozen_stages is 5; it must be -1 to 4"),
        ({"norm_eval": "yes"}, "norm_eval is 'yes'; it must be True or False"),
        ({"dcn": {"type": "DCNv3"}}, "ResNetCUDA: dcn.'type'. is 'DCNv3'; it must be 'DCN' or 'DCNv2'"),
        ({"dcn": {"type": "DCN", "fallback_on_stride": True}}, "fallback_on_stride'. is True; it must be False"),
        ({"dcn": {"type": "DCN", "bias": True}}, "dcn has 'bias'; allowed are type, deform_groups"),
        ({"dcn": {"type": "DCN", "deform_groups": 0}}, "deform_groups'. is 0; it must be at least 1"),
        ({**DCN, "stage_with_dcn": (True,)}, "stage_with_dcn is .True,.; it must be 4 of"),
        ({**DCN, "depth": 18}, "ResNetCUDA: dcn is .*; it must be None or 1 for depth 18"),
        ({"pretrained": "x", "init_cfg": {"type": "Pretrained", "checkpoint": "x"}}, "pretrained is 'x'; it must be"),
    ],
)
def test_what_is_not_there_is_refused_by_its_key(mmdet, options, message):
    from resnet_cuda.integrations.mmdetection import ResNetCUDA

    with pytest.raises(ValueError, match=message):
        ResNetCUDA(**{**NARROW, **options})


def test_without_mmdet_the_error_says_what_to_install():
    code = "import sys; sys.modules['mmdet'] = None\nimport resnet_cuda.integrations.mmdetection"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert "ImportError: resnet_cuda.integrations.mmdetection needs mmdet: pip install mmdet" in ended.stderr
