"""Configuration files: maskrcnn-benchmark's of every kind build, mistakes are named, and none can do harm."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

import resnet_cuda
from resnet_cuda import config_hints
from resnet_cuda.config import DEFAULTS, get_cfg

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
    "not a number": ("GROUP_NORM: {EPSILON: .nan}", "EPSILON is nan; it must be a finite number, 0 or more"),
    "infinite": ("GROUP_NORM: {EPSILON: .inf}", "EPSILON is inf; it must be a finite number"),
    "beyond floats": (f"GROUP_NORM: {{EPSILON: 1{'0' * 400}}}", "EPSILON is 10000.*; it must be a finite number"),
    "negative": ("GROUP_NORM: {EPSILON: -1e-5}", "EPSILON is -1e-05; it must be a finite number, 0 or more"),
    "section": ("RESNETS: 5", "MODEL.RESNETS is 5; it must be keys with values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_changes_nothing(name, tmp_path):
    model, message = WRONG[name]
    cfg = get_cfg()
    with pytest.raises(ValueError, match=rf"file\.yaml: .*{message}"):
        cfg.merge_from_file(write(tmp_path / "file.yaml", "R-101-FPN", model))
    assert cfg == get_cfg()


def test_base_files_are_merged_first(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "root.yaml").write_text("SOLVER: {BASE_LR: 1, STEPS: '(1, 2)'}\nMODEL: {RESNETS: {NUM_GROUPS: 32}}\n")
    (folder / "first.yaml").write_text("_BASE_: root.yaml\nSOLVER: {BASE_LR: 2}\n")
    (tmp_path / "second.yaml").write_text("MODEL: {RESNETS: {WIDTH_PER_GROUP: 8}}\nA: 1\n")
    path = tmp_path / "top.yaml"
    path.write_text("_BASE_: [base/first.yaml, second.yaml]\nMODEL: {BACKBONE: {CONV_BODY: R-101-FPN}}\nA: 2\n")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.A) == (2, (1, 2), 2)
    assert (cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP) == (32, 8)
    assert cfg.MODEL.BACKBONE.CONV_BODY == "R-101-FPN"
    assert "_BASE_" not in cfg
    (folder / "anchors.yaml").write_text("ONE: &one {X: 1}\nTWO: *one\n")
    path.write_text("_BASE_: base/anchors.yaml\nONE: {X: 2}\n")
    cfg.merge_from_file(path)
    assert (cfg.ONE.X, cfg.TWO.X) == (2, 1)  # what an anchor stands for is copied
    wrong = {
        "_BASE_: top.yaml": r"top\.yaml: _BASE_ .*top\.yaml: .*builds upon itself by _BASE_",
        "_BASE_: https://example.org/x.yaml": "_BASE_ is 'https://example.org/x.yaml'; it must be the path of a file",
        "_BASE_: 5": "_BASE_ is 5; it must be the path",
        "_BASE_: base/root.yaml\nSOLVER: {BASE_LR: {A: 1}}": "SOLVER.BASE_LR is a section; it is 1 in the file",
    }
    for text, message in wrong.items():
        path.write_text(text)
        before = cfg.clone()
        with pytest.raises(ValueError, match=message):
            cfg.merge_from_file(path)
        assert cfg == before
    path.write_text("_BASE_: missing.yaml")
    with pytest.raises(FileNotFoundError, match="missing.yaml"):
        cfg.merge_from_file(path)


BILLION_LAUGHS = "\n".join(
    ["A0: &a0 [x, x]"] + [f"A{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)
HARMFUL = {
    "binary": (b"\x00\xff\xfe\x93NUMPY", "is not a YAML file"),
    "another encoding": ("ä: 1".encode("latin-1"), "is not a YAML file"),
    "a tag that runs code": (b"A: !!python/object/apply:os.system [exit]", "is not a YAML file"),
    "a tag of a name": (b"A: !!python/name:os.system", "is not a YAML file"),
    "a wrong tag": (b"A: !!bool x", "is not a YAML file"),
    "no date": (b"A: 2001-99-99", "is not a YAML file"),
    "a key that is a list": (b"? [1, 2]\n: 3", "is not a YAML file"),
    "open brackets": (b"A: [1, 2", "is not a YAML file"),
    "two documents": (b"A: 1\n---\nA: 2", "is not a YAML file"),
    "deep brackets": (b"A: " + b"[" * 5000 + b"]" * 5000, "is not a YAML file|nested more than"),
    "deep enough": (b"A: " + b"[" * 100 + b"]" * 100, "nested more than 64 deep"),
    "deep sections": (b"A: " + b"{a: " * 100 + b"1" + b"}" * 100, "nested more than 64 deep"),
    "contains itself": (b"A: &a {B: *a}", "contains itself"),
    "a list that contains itself": (b"A: &a [*a]", "contains itself"),
    "billion laughs": (BILLION_LAUGHS.encode(), "more than 100000 entries"),
    "a list": (b"[1, 2]", "the configuration is list; it must be sections with keys"),
    "a text": (b"MODEL", "the configuration is str"),
    "a model of text": (b"MODEL: x", "MODEL is 'x'; it must be sections with keys"),
    "a section of nothing": (b"MODEL: {RESNETS: }", "MODEL.RESNETS is None; it must be keys with values"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_files_are_refused(name, tmp_path):
    content, message = HARMFUL[name]
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    cfg = get_cfg()
    cfg.SOLVER = {"BASE_LR": 0.02}
    before = cfg.clone()
    with pytest.raises(ValueError, match=rf"file\.yaml.*({message})"):
        cfg.merge_from_file(path)
    assert cfg == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", {}),
        ("# nothing", {}),
        ("MODEL:", {}),
        ("A: &a {x: [1]}\nB: *a\nC: {<<: *a, y: 2}", {"A": {"x": [1]}, "B": {"x": [1]}, "C": {"x": [1], "y": 2}}),
        ("A: \"__import__('os').getcwd()\"", {"A": "__import__('os').getcwd()"}),
        ('A: "{[]: 1}"', {"A": "{[]: 1}"}),
        ('A: "(1j,)"', {"A": "(1j,)"}),
        ("A: 1or", {"A": "1or"}),
        ("A: \"{'B': 1}\"", {"A": {"B": 1}}),
        ("A: " + "9" * 5000, None),
    ],
)
@pytest.mark.filterwarnings("error")
def test_unusual_files_are_read_as_yacs_reads_them(content, expected, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(content)
    cfg = get_cfg()
    if expected is None:  # Python reads no number of that length
        with pytest.raises(ValueError, match="is not a YAML file"):
            cfg.merge_from_file(path)
        return
    cfg.merge_from_file(path)
    assert cfg == get_cfg() | expected
    if "B" in expected:
        cfg.A.x.append(2)
        assert cfg.B.x == [1]  # what an anchor stands for is copied


TWICE = {
    "two sections": (
        "MODEL: {RESNETS: {NUM_GROUPS: 32}}\nSOLVER: {}\nMODEL: {BACKBONE: {CONV_BODY: R-101-FPN}}\n",
        "the key MODEL comes twice in one section, in line 1 and in line 3",
    ),
    "two keys": (
        "MODEL:\n  RESNETS:\n    NUM_GROUPS: 1\n    NUM_GROUPS: 32\n",
        "the key NUM_GROUPS .* line 3 and in line 4",
    ),
    "in one line": ("MODEL: {RESNETS: {NUM_GROUPS: 1, NUM_GROUPS: 1}}", "the key NUM_GROUPS .* line 1 and in line 1"),
    "of a foreign section": ("A: 1\nA: 2", "the key A comes twice"),
    "quoted": ("A: 1\n'A': 2", "the key A comes twice"),
    "numbers": ("A: {1: 2, 0x1: 3}", "the key 1 comes twice"),
    "of what a merge key brings": ("A: &a {X: 1, X: 2}\nB: {<<: *a}", "the key X comes twice"),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_comes_twice_is_refused(name, tmp_path):
    content, message = TWICE[name]
    path = tmp_path / "file.yaml"
    path.write_text(content)
    cfg = get_cfg()
    with pytest.raises(ValueError, match=rf"file\.yaml: {message}"):
        cfg.merge_from_file(path)
    (tmp_path / "top.yaml").write_text("_BASE_: file.yaml\n")
    with pytest.raises(ValueError, match=rf"top\.yaml: _BASE_ .*file\.yaml: {message}"):
        cfg.merge_from_file(tmp_path / "top.yaml")
    assert cfg == get_cfg()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("X: &a {NUM_GROUPS: 32, WIDTH_PER_GROUP: 4}\nMODEL: {RESNETS: {WIDTH_PER_GROUP: 8, <<: *a}}", (32, 8)),
        (
            "X: &a {NUM_GROUPS: 2}\nY: &b {<<: *a, NUM_GROUPS: 32}\nMODEL: {RESNETS: {<<: *b, WIDTH_PER_GROUP: 8}}",
            (32, 8),
        ),
        ("X: &a {NUM_GROUPS: 32}\nY: &b {WIDTH_PER_GROUP: 8}\nMODEL: {RESNETS: {<<: [*a, *b]}}", (32, 8)),
        ("X: &a {NUM_GROUPS: 32}\nY: &b {WIDTH_PER_GROUP: 8}\nMODEL: {RESNETS: {<<: *a, <<: *b}}", (32, 8)),
        ("X: &a {<<: &b {NUM_GROUPS: 32}, NUM_GROUPS: 16}\nY: *a\nMODEL: {RESNETS: *b}", (32, 64)),
    ],
)
def test_merge_keys_repeat_nothing(content, expected, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(content)
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert expected == (cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP)


NEAR = {  # the content, and what the message says is meant
    "case": ({"model": {"RESNETS": {"NUM_GROUPS": 32}}}, "unknown key model, .* write MODEL$"),
    "capitals": ({"Model": {}}, "unknown key Model, .* write MODEL$"),
    "one more letter": ({"MODELS": {}}, "write MODEL$"),
    "one letter less": (
        {"MODEL": {"RESNET": {"NUM_GROUPS": 32}}},
        r"unknown key MODEL\.RESNET, .* write MODEL\.RESNETS$",
    ),
    "case of a section": ({"MODEL": {"resnets": {}}}, r"write MODEL\.RESNETS$"),
    "a space": ({"MODEL": {"FPN ": {"USE_GN": True}}}, r"write MODEL\.FPN$"),
    "FPNS": ({"MODEL": {"FPNS": {"USE_GN": True}}}, r"write MODEL\.FPN$"),
    "a key of a shared section": ({"MODEL": {"RETINANET": {"use_c5": False}}}, r"write MODEL\.RETINANET\.USE_C5$"),
    "dots": (
        {"MODEL.RESNETS.NUM_GROUPS": 32},
        r"write MODEL: {RESNETS: {NUM_GROUPS: \.\.\.}}, names with dots are for merge",
    ),
    "dots to a section": ({"MODEL.RESNETS": {"NUM_GROUPS": 32}}, r"write MODEL: {RESNETS: \.\.\.}, names with"),
    "dots in MODEL": ({"MODEL": {"RESNETS.NUM_GROUPS": 32}}, r"write MODEL\.RESNETS: {NUM_GROUPS: \.\.\.}, names with"),
}


@pytest.mark.parametrize("name", NEAR)
def test_names_that_are_nearly_those_of_sections_are_refused(name, tmp_path):
    content, message = NEAR[name]
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(content))
    cfg = get_cfg()
    for merge, given in ((cfg.merge_from_file, path), (cfg.merge_from_dict, content)):
        with pytest.raises(ValueError, match=message):
            merge(given)
    assert cfg == get_cfg()


@pytest.mark.parametrize(
    ("key", "here"),
    [
        ("MODEL.BACKBONE.NAME", 'MODEL.BACKBONE.CONV_BODY, "R-50-FPN", say'),
        ("MODEL.BACKBONE.FREEZE_AT", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT"),
        ("MODEL.RESNETS.DEPTH", 'MODEL.BACKBONE.CONV_BODY, "R-50-FPN", say'),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", "MODEL.RESNETS.STAGE_WITH_DCN"),
        ("MODEL.FPN.OUT_CHANNELS", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS"),
    ],
)
def test_an_error_about_a_name_of_detectron2_says_what_it_is_called_here(key, here):
    cfg = get_cfg()
    with pytest.raises(ValueError) as caught:
        cfg.merge_from_list([key, 1])
    assert str(caught.value).startswith(f"unknown key {key}; allowed are ")
    assert f"detectron2's; here it is {here}. Files of detectron2 are read as they are by " in str(caught.value)
    assert cfg == get_cfg()


def test_what_an_error_recommends_instead_of_detectron2s_names_exists():
    for section, names in config_hints._DETECTRON2.items():
        for key, here in names.items():
            name = section.removeprefix("MODEL.")
            assert key not in DEFAULTS[name]
            for recommended in re.findall(r"MODEL\.([A-Z0-9]+)\.([A-Z0-9_]+)", here):
                assert recommended[1] in DEFAULTS[recommended[0]]


def test_other_names_stay_foreign():
    content = {
        "model": "resnet50",  # no section
        "MODE": {"A": 1},
        "MODEL2": {"A": 1},
        "SOLVER": {"model": {"A": 1}, "MODEL.RESNETS": 1},
        "A.B": 1,
        "MODEL": {"FP": {"A": 1}, "RESNEXTS": {"A": 1}, "RETINANET_ON": True, "fpn": 3, "RETINANET": {"C5": True}},
    }
    cfg = get_cfg()
    cfg.merge_from_dict(content)
    assert (cfg.model, cfg.MODE.A, cfg.SOLVER.model.A, cfg.MODEL.RESNEXTS.A, cfg.MODEL.fpn) == ("resnet50", 1, 1, 1, 3)


def test_names_are_refused_however_they_are_written():
    cfg = get_cfg()
    with pytest.raises(ValueError, match=r"write MODEL\.RESNETS$"):
        cfg.MODEL.RESNET = {"NUM_GROUPS": 32}
    with pytest.raises(ValueError, match=r"write MODEL\.RESNETS$"):
        cfg.merge_from_list(["MODEL.RESNET.NUM_GROUPS", 32])
    assert cfg == get_cfg()
