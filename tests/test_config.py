"""get_cfg() as a yacs CfgNode: keys of others, freezing, copies, dump and merges."""

from __future__ import annotations

import copy
import datetime
import pickle

import numpy as np
import pytest
import torch
import yaml

import resnet_cuda
from resnet_cuda.config import CfgNode, get_cfg

# Every kind of value, those included that a careless dump would change.
FOREIGN = {
    "SOLVER": {"BASE_LR": 0.02, "STEPS": (60000, 80000), "NAME": "123", "QUOTED": "'a'", "NONE": None, "SMALL": 1e-5},
    "DATASETS": {
        "TRAIN": ("a_train", "a_val"),
        "EMPTY": (),
        "ONE": (1,),
        "LIST": [1, "2", "x"],
        "MIXED": [(1, 2), "a"],
    },
    "OUTPUT_DIR": ".",
    "TRUE": "True",
    "DATE": datetime.date(2018, 10, 25),
    "NESTED": {"A": {"B": {"C": [{"d": 1}, [2, [3]]]}}},
    "NUMBERS": {1: "one", 2: float("inf"), 3: -7},
    "TEXTS": dict(enumerate(["1e-3", "(1, 2", " 5", "a: b", "", "null", "1j", "ä\n#", "b'x'"])),
}


def filled():
    cfg = get_cfg()
    for key, value in FOREIGN.items():
        cfg[key] = value
    cfg.MODEL.WEIGHT = "catalog://R-50"
    cfg.MODEL.RPN = CfgNode({"ANCHOR_STRIDE": (4, 8), "USE_FPN": True})
    cfg.MODEL.RETINANET.FG_IOU_THRESHOLD = 0.5
    cfg.MODEL.RESNETS.STAGE_WITH_DCN = (False, True, True, True)
    cfg.MODEL.GROUP_NORM.EPSILON = 1e-6
    cfg.MODEL.BACKBONE.CONV_BODY = "123"  # no literal: the backbone reads a string here
    return cfg


def plain(node):
    return {key: plain(value) if isinstance(value, CfgNode) else value for key, value in node.items()}


def test_foreign_keys_are_kept_as_they_came(tmp_path):
    cfg = filled()
    assert {key: plain(cfg)[key] for key in FOREIGN} == FOREIGN
    assert cfg.SOLVER.BASE_LR == cfg["SOLVER"]["BASE_LR"] == cfg.SOLVER.get("BASE_LR") == 0.02
    path = tmp_path / "file.yaml"
    path.write_text("SOLVER: {BASE_LR: 0.01, STEPS: '(1, 2)', IMS: '8'}\nMODEL: {WEIGHT: a/b, RPN: {USE_FPN: False}}\n")
    cfg.merge_from_file(path)
    cfg.merge_from_list(["SOLVER.GAMMA", "0.1", "TEST.IMS_PER_BATCH", 8, "MODEL.MASK_ON", "True", "A", "b"])
    cfg.merge_from_other_cfg(CfgNode({"DTYPE": "float16", "SOLVER": {"BASE_LR": 3}}))
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SOLVER.IMS, cfg.SOLVER.GAMMA) == (3, (1, 2), 8, 0.1)
    assert (cfg.MODEL.WEIGHT, cfg.MODEL.RPN.USE_FPN, cfg.MODEL.RPN.ANCHOR_STRIDE) == ("a/b", False, (4, 8))
    assert (cfg.TEST.IMS_PER_BATCH, cfg.MODEL.MASK_ON, cfg.A, cfg.DTYPE) == (8, True, "b", "float16")
    cfg.SOLVER.NEW = 5
    assert cfg.SOLVER.NEW == 5
    cfg.merge_from_list(["MODEL.RESNETS.NUM_GROUPS", "32", "MODEL.FPN.USE_GN", "True"])
    assert (cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.FPN.USE_GN) == (32, True)
    for node, name in ((cfg.SOLVER, "SOLVER"), (cfg, "cfg"), (cfg.MODEL.RESNETS, "MODEL.RESNETS")):
        with pytest.raises(AttributeError, match=f"{name} has no key MISSING"):
            _ = node.MISSING


def test_is_a_dictionary():
    cfg = filled()
    assert "SOLVER" in cfg
    assert "RESNETS" in cfg.MODEL
    assert "GROUPS" not in cfg.MODEL.RESNETS
    assert set(cfg.MODEL.FPN.keys()) == {"USE_GN", "USE_RELU"}
    assert dict(cfg.MODEL.FPN.items()) == {"USE_GN": False, "USE_RELU": False}
    assert cfg.MODEL.get("NOTHING", 7) == 7
    assert cfg.pop("DATE") == FOREIGN["DATE"]
    del cfg.OUTPUT_DIR, cfg["TRUE"]
    assert not {"DATE", "OUTPUT_DIR", "TRUE"} & set(cfg)
    assert cfg.setdefault("NEW", 3) == cfg.NEW == 3
    cfg.update(NEW=4, SOLVER={"A": 1})
    assert cfg.NEW == 4
    assert dict(cfg.SOLVER) == {"A": 1}
    cfg |= {"NEW": 5}
    assert cfg.NEW == 5
    for missing in (cfg.__getitem__, cfg.__delitem__):
        with pytest.raises(KeyError):
            missing("MISSING")
    with pytest.raises(AttributeError, match="no key MISSING"):
        del cfg.MISSING


REFUSED = {
    "removing a section": lambda cfg: cfg.MODEL.pop("RESNETS"),
    "removing all": lambda cfg: cfg.clear(),
    "removing a key": lambda cfg: delattr(cfg.MODEL.RESNETS, "NUM_GROUPS"),
    "replacing the model": lambda cfg: setattr(cfg, "MODEL", 5),
    "replacing a section": lambda cfg: cfg.MODEL.update(RESNETS={}),
    "a misspelt key": lambda cfg: setattr(cfg.MODEL.RESNETS, "STRIDE_IN_1X2", False),
    "a misspelt key by []": lambda cfg: cfg.MODEL.RESNETS.__setitem__("STRIDE_IN_1X2", False),
    "a misspelt key by update": lambda cfg: cfg.MODEL.RESNETS.update(STRIDE_IN_1X2=False),
    "a misspelt key by |=": lambda cfg: cfg.MODEL.RESNETS.__ior__({"STRIDE_IN_1X2": False}),
    "a misspelt key by setdefault": lambda cfg: cfg.MODEL.RESNETS.setdefault("STRIDE_IN_1X2", False),
    "a misspelt key in a list": lambda cfg: cfg.merge_from_list(["SOLVER.A", 1, "MODEL.RESNETS.STRIDE_IN_1X2", 0]),
    "a misspelt key in a node": lambda cfg: cfg.merge_from_other_cfg({"A": 1, "MODEL": {"FPN": {"USE_GROUP": True}}}),
    "a wrong type": lambda cfg: cfg.merge_from_list(["SOLVER.A", 1, "MODEL.RESNETS.NUM_GROUPS", "many"]),
    "a number for a flag": lambda cfg: cfg.merge_from_list(["MODEL.RESNETS.STAGE_WITH_DCN", (0, 1, 1, 1)]),
    "a value for a section": lambda cfg: cfg.merge_from_list(["MODEL.RESNETS", 5]),
    "no section": lambda cfg: cfg.merge_from_list(["MODEL", 5]),
    "too deep": lambda cfg: cfg.merge_from_list(["MODEL.RESNETS.NUM_GROUPS.X", 5]),
    "a base outside of a file": lambda cfg: cfg.merge_from_list(["_BASE_", "x.yaml"]),
    "a value for a foreign section": lambda cfg: cfg.merge_from_dict({"SOLVER": 3}),
    "a section for a foreign value": lambda cfg: cfg.merge_from_dict({"OUTPUT_DIR": {"A": 1}}),
    "an object": lambda cfg: setattr(cfg, "DEVICE", torch.device("cpu")),
    "an object inside": lambda cfg: cfg.merge_from_dict({"DEVICES": [torch.device("cpu")]}),
    "an array": lambda cfg: setattr(cfg, "ARRAY", np.zeros(3)),
    "no dictionary": lambda cfg: cfg.merge_from_dict([1]),
    "no list": lambda cfg: cfg.merge_from_list("SOLVER.A"),
    "an empty name": lambda cfg: cfg.merge_from_list(["SOLVER..A", 1]),
    "no name": lambda cfg: cfg.merge_from_list([5, 1]),
    "a value and its keys": lambda cfg: cfg.merge_from_list(["A", 1, "A.B", 1]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing_that_the_backbone_reads(name):
    cfg = filled()
    with pytest.raises(ValueError):
        REFUSED[name](cfg)
    if name != "removing all":
        assert cfg == filled()
    assert plain(cfg.MODEL.RESNETS) == plain(filled().MODEL.RESNETS)


def test_half_a_pair_in_a_list_is_named():
    with pytest.raises(ValueError, match="pairs of key and value"):
        get_cfg().merge_from_list(["MODEL.RESNETS.NUM_GROUPS"])


def test_dump_merges_back_to_an_equal_configuration(tmp_path):
    cfg = filled()
    for options in ({}, {"default_flow_style": True}, {"sort_keys": False}):
        path = tmp_path / "dumped.yaml"
        path.write_text(cfg.dump(**options), encoding="utf-8")
        again = get_cfg()
        again.merge_from_file(path)
        assert again == cfg
        assert plain(again) == plain(cfg)
        assert type(again.DATASETS.MIXED[0]) is tuple
        assert again.dump(**options) == cfg.dump(**options)
    assert get_cfg().dump() != cfg.dump()
    default = get_cfg()
    default.merge_from_dict(yaml.safe_load(get_cfg().dump()))
    assert default == get_cfg()


def writes(cfg):
    return {
        "attribute": lambda: setattr(cfg.MODEL.RESNETS, "NUM_GROUPS", 32),
        "foreign attribute": lambda: setattr(cfg.SOLVER, "BASE_LR", 1),
        "new attribute": lambda: setattr(cfg, "NEW", 1),
        "[]": lambda: cfg.MODEL.RESNETS.__setitem__("NUM_GROUPS", 32),
        "del": lambda: delattr(cfg, "SOLVER"),
        "pop": lambda: cfg.SOLVER.pop("BASE_LR"),
        "popitem": lambda: cfg.SOLVER.popitem(),
        "clear": lambda: cfg.SOLVER.clear(),
        "update": lambda: cfg.SOLVER.update(A=1),
        "|=": lambda: cfg.SOLVER.__ior__({"A": 1}),
        "setdefault": lambda: cfg.SOLVER.setdefault("A", 1),
        "merge_from_list": lambda: cfg.merge_from_list(["MODEL.RESNETS.NUM_GROUPS", 32]),
        "merge_from_dict": lambda: cfg.merge_from_dict({"NEW": {"A": 1}}),
        "merge_from_other_cfg": lambda: cfg.merge_from_other_cfg(CfgNode({"SOLVER": {"BASE_LR": 1}})),
    }


@pytest.mark.parametrize("name", writes(get_cfg()))
def test_a_frozen_configuration_is_not_written(name):
    cfg = filled()
    cfg.freeze()
    assert cfg.is_frozen() and cfg.MODEL.RESNETS.is_frozen() and cfg.SOLVER.is_frozen()
    with pytest.raises(AttributeError, match="CfgNode is immutable"):
        writes(cfg)[name]()
    assert cfg == filled()
    cfg.defrost()
    assert not cfg.is_frozen() and not cfg.SOLVER.is_frozen()
    writes(cfg)[name]()
    assert cfg != filled()


@pytest.mark.parametrize("make", [CfgNode.clone, copy.copy, copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))])
@pytest.mark.parametrize("frozen", [False, True])
def test_copies_are_independent(make, frozen):
    cfg = filled()
    if frozen:
        cfg.freeze()
    other = make(cfg)
    assert type(other) is CfgNode
    assert other == cfg
    assert other.is_frozen() == other.MODEL.RESNETS.is_frozen() == frozen
    other.defrost()
    other.MODEL.RESNETS.NUM_GROUPS = 32
    other.SOLVER.BASE_LR = 1
    other.NESTED.A.B.C.append(1)
    other.merge_from_dict({"MODEL": None})
    assert cfg == filled()
    assert cfg.is_frozen() == frozen
    with pytest.raises(ValueError, match=r"unknown key MODEL\.RESNETS\.GROUPS; allowed are"):
        other.MODEL.RESNETS.GROUPS = 1
    assert get_cfg().MODEL.RESNETS.NUM_GROUPS == 1


def test_values_are_copied_in():
    steps = [1, 2]
    solver = {"STEPS": steps}
    cfg = get_cfg()
    cfg.SOLVER = solver
    cfg.OTHER = cfg.SOLVER
    steps.append(3)
    solver["A"] = 1
    cfg.OTHER.B = 2
    assert dict(cfg.SOLVER) == {"STEPS": [1, 2]}


def test_numpy_values_become_pythons():
    cfg = get_cfg()
    cfg.MODEL.RESNETS.NUM_GROUPS = np.int64(32)
    cfg.MODEL.FPN.USE_GN = np.bool_(True)
    cfg.MODEL.GROUP_NORM.EPSILON = np.float32(0.5)
    cfg.MODEL.RESNETS.STAGE_WITH_DCN = np.array([False, True, True, True])
    cfg.SOLVER = {"LR": np.float64(0.1), "STEPS": (np.int32(1),)}
    values = cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.FPN.USE_GN, cfg.MODEL.GROUP_NORM.EPSILON, cfg.SOLVER.LR
    assert [type(value) for value in (*values, cfg.SOLVER.STEPS[0])] == [int, bool, float, float, int]
    assert cfg.MODEL.RESNETS.STAGE_WITH_DCN == (False, True, True, True)
    for value in (np.bool_(True), np.float64(2)):
        with pytest.raises(ValueError, match="NUM_GROUPS is .*; it must be an integer"):
            cfg.MODEL.RESNETS.NUM_GROUPS = value


def test_printed_as_yacs_prints():
    cfg = get_cfg()
    cfg.SOLVER = {"STEPS": (1, 2), "SUB": {"A": "b"}}
    assert str(cfg.SOLVER) == "STEPS: (1, 2)\nSUB:\n  A: b"
    assert "MODEL:\n  BACKBONE:\n    CONV_BODY: R-50-C4\n" in str(cfg)
    assert repr(cfg.SOLVER) == "CfgNode({'STEPS': (1, 2), 'SUB': CfgNode({'A': 'b'})})"
    assert "CONV_BODY" in dir(cfg.MODEL.BACKBONE)


def test_names_of_methods_are_keys_by_brackets():
    cfg = get_cfg()
    cfg.merge_from_dict({"SOLVER": {"items": 3, "freeze": 4, "_frozen": 5}})
    assert cfg.SOLVER["items"] == 3
    assert len(cfg.SOLVER.items()) == 3
    assert cfg.SOLVER["_frozen"] == 5
    assert not cfg.SOLVER.is_frozen()
    for name in ("items", "freeze", "_frozen", "_path"):
        with pytest.raises(AttributeError, match=rf"{name} cannot be an attribute.*use \['{name}'\]"):
            setattr(cfg.SOLVER, name, 1)


def test_equals_yacs_and_reads_its_dumps():
    yacs = pytest.importorskip("yacs.config", reason="compares with yacs")
    theirs, ours = yacs.CfgNode(plain(get_cfg())), get_cfg()
    assert str(theirs) == str(ours)
    pairs = ["MODEL.RESNETS.NUM_GROUPS", "32", "MODEL.RESNETS.STAGE_WITH_DCN", "(True, False, True, False)"]
    for node in (theirs, ours):
        node.merge_from_list(pairs)
        node.SOLVER = type(node)()
        node.SOLVER.BASE_LR = 0.1
        node.freeze()
        assert node.is_frozen() and node.clone().is_frozen() and node.SOLVER.is_frozen()
        with pytest.raises(AttributeError, match="CfgNode is immutable"):
            node.SOLVER.BASE_LR = 0.2
        node.defrost()
        node.merge_from_other_cfg(type(node)({"SOLVER": {"BASE_LR": 0.3}}))
    assert theirs == ours
    assert str(theirs) == str(ours)
    again = get_cfg()
    again.merge_from_other_cfg(theirs)
    assert again == ours
    # Either one's dump is read by the other.
    theirs.merge_from_other_cfg(yacs.load_cfg(ours.dump()))
    again = get_cfg()
    again.merge_from_dict(yaml.safe_load(theirs.dump()))
    assert again == ours == theirs
    with torch.device("meta"):
        for node in (theirs, ours):
            assert len(resnet_cuda.build_backbone(node).body.stages) == 3
