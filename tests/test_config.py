"""maskrcnn-benchmark's configuration files: every kind of them builds, and mistakes are named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import resnet_cuda
from resnet_cuda.config import get_cfg

FPN = "RESNETS: {BACKBONE_OUT_CHANNELS: 256"
RESNEXT = "NUM_GROUPS: 32, WIDTH_PER_GROUP: 8, STRIDE_IN_1X1: False"
GN = "TRANS_FUNC: BottleneckWithGN, STEM_FUNC: StemWithGN, STRIDE_IN_1X1: False"
DCN = 'STAGE_WITH_DCN: "(False, True, True, True)"'

# One per row of that project's 59 ResNet files: body, what MODEL says besides, parameters of the upstream network.
FILES = {
    "C4": ("R-50-C4", "", 8_512_704),
    "FPN": ("R-50-FPN", f"{FPN}}}", 26_799_296),
    "R-101": ("R-101-FPN", f"{FPN}}}", 45_739_200),
    "X-101": ("R-101-FPN", f"{FPN}, {RESNEXT}}}", 89_883_840),
    "X-152": ("R-152-FPN", f"{FPN}, {RESNEXT}}}", 123_372_736),
    "DCN v1": ("R-50-FPN", f"{FPN}, {DCN}, WITH_MODULATED_DCN: False}}", 27_380_138),
    "DCN v2": ("R-50-FPN", f"{FPN}, {DCN}, WITH_MODULATED_DCN: True}}", 27_670_559),
    "GN": ("R-50-FPN", f"{FPN}, {GN}}}\n  FPN: {{USE_GN: True}}", 26_854_464),
    "RetinaNet": (
        "R-50-FPN-RETINANET",
        f"{FPN}}}\n  RETINANET: {{STRADDLE_THRESH: -1, FG_IOU_THRESHOLD: 0.5}}",
        31_452_352,
    ),
    "RetinaNet P5": ("R-101-FPN-RETINANET", f"{FPN}}}\n  RETINANET: {{USE_C5: False}}", 46_263_488),
    "RetinaNet X-101": ("R-101-FPN-RETINANET", f"{FPN}, {RESNEXT}}}", 94_536_896),
}


def write(path, body, model=""):
    """A file as that project has them, most of which is not for the backbone."""
    path.write_text(
        f"""MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  WEIGHT: "catalog://ImageNetPretrained/MSRA/R-50"
  BACKBONE:
    CONV_BODY: "{body}"
  {model}
  RPN:
    ANCHOR_STRIDE: (4, 8, 16, 32, 64)
    USE_FPN: True
  ROI_BOX_HEAD: {{POOLER_SCALES: (0.25, 0.125, 0.0625, 0.03125)}}
DATASETS:
  TRAIN: ("coco_2014_train", "coco_2014_valminusminival")
SOLVER: {{BASE_LR: 0.02, STEPS: (60000, 80000)}}
"""
    )
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_builds(name, tmp_path):
    body, model, parameters = FILES[name]
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "file.yaml", body, model))
    with torch.device("meta"):
        backbone = resnet_cuda.build_backbone(cfg)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
    assert backbone.out_channels == (1024 if body == "R-50-C4" else 256)
    frozen = {key.split(".")[1] for key, value in backbone.named_parameters() if not value.requires_grad}
    assert frozen == {"stem", "layer1"}


def test_fbnet_is_refused_by_name(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "fbnet.yaml", "FBNet", 'FBNET: {ARCH: "default", BN_TYPE: "bn"}'))
    with pytest.raises(KeyError, match="'FBNet' is not a ResNet.*R-50-FPN"):
        resnet_cuda.build_backbone(cfg)


WRONG = {
    "key": ("RESNETS: {STRIDE_IN_1X2: False}", r"MODEL.RESNETS.STRIDE_IN_1X2; allowed are .*STRIDE_IN_1X1"),
    "bool": ("RESNETS: {STRIDE_IN_1X1: 2}", "MODEL.RESNETS.STRIDE_IN_1X1 is 2; it must be True or False"),
    "integer": ("RESNETS: {NUM_GROUPS: 1.5}", "MODEL.RESNETS.NUM_GROUPS is 1.5; it must be an integer"),
    "bool for integer": ("RESNETS: {NUM_GROUPS: True}", "NUM_GROUPS is True; it must be an integer"),
    "too few stages": ('RESNETS: {STAGE_WITH_DCN: "(True, False)"}', "STAGE_WITH_DCN .* must be 4 of True and False"),
    "code": ("RESNETS: {STAGE_WITH_DCN: \"__import__('os')\"}", "STAGE_WITH_DCN .* must be 4 of True and False"),
    "string": ("RESNETS: {TRANS_FUNC: 3}", "TRANS_FUNC is 3; it must be a string"),
    "number": ("GROUP_NORM: {EPSILON: small}", "EPSILON is 'small'; it must be a number"),
    "section": ("RESNETS: 5", "MODEL.RESNETS is 5; it must be keys with values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_changes_nothing(name, tmp_path):
    model, message = WRONG[name]
    cfg = get_cfg()
    with pytest.raises(ValueError, match=rf"file\.yaml: .*{message}"):
        cfg.merge_from_file(write(tmp_path / "file.yaml", "R-101-FPN", model))
    assert cfg == get_cfg()


def test_a_file_runs_no_code(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(f"MODEL: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(ValueError, match=r"file\.yaml is no YAML file"):
        get_cfg().merge_from_file(path)
    assert not (tmp_path / "made").exists()


def test_merge_from_list_and_clone():
    cfg = get_cfg()
    clone = cfg.clone()
    cfg.merge_from_list(["MODEL.RESNETS.NUM_GROUPS", "32", "SOLVER.BASE_LR", 0.1, "MODEL.FPN.USE_GN", "True"])
    assert cfg.MODEL.RESNETS.NUM_GROUPS == 32
    assert cfg.MODEL.FPN.USE_GN is True
    assert clone == get_cfg() != cfg
    with pytest.raises(ValueError, match="pairs of key and value"):
        cfg.merge_from_list(["MODEL.RESNETS.NUM_GROUPS"])
    with pytest.raises(ValueError, match="unknown key MODEL.RESNETS.GROUPS; allowed are"):
        cfg.MODEL.RESNETS.GROUPS = 3
    with pytest.raises(AttributeError, match="MODEL.RESNETS has no key GROUPS"):
        _ = cfg.MODEL.RESNETS.GROUPS


def test_any_node_with_the_attributes_will_do():
    """As a yacs CfgNode, which is no class of ours."""
    cfg = get_cfg()
    sections = {name: SimpleNamespace(**getattr(cfg.MODEL, name)) for name in ("BACKBONE", "RESNETS")}
    node = SimpleNamespace(MODEL=SimpleNamespace(**sections))
    with torch.device("meta"):
        assert (
            resnet_cuda.build_backbone(node).state_dict().keys() == resnet_cuda.build_backbone(cfg).state_dict().keys()
        )


def test_registries_name_what_they_know():
    from resnet_cuda.registry import Registry

    registry = Registry("animal", {"cat": 1})
    with pytest.raises(KeyError, match="unknown animal 'dog'; allowed are cat"):
        registry["dog"]
    with pytest.raises(KeyError, match="animal 'cat' is registered already"):
        registry.register("cat", 2)

    @registry.register("cow")
    def cow():
        return "moo"

    assert registry["cow"]() == cow() == "moo"
