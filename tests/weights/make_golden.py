"""Writes ``golden/*.json``: the keys of peers' own networks and what these compute with the weights of ``filled``.

``python tests/weights/make_golden.py [--check] [NAME ...]`` where mmdet, mmcv-lite and the checkouts of detectron2 and
maskrcnn-benchmark are, see tests/integrations/conftest.py. torchvision's operator stands in for compiled ones.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from weights.golden_networks import assert_known, filled, image, numbers, read, write  # noqa: E402

_spec = importlib.util.spec_from_file_location("peers", HERE.parent / "integrations" / "conftest.py")
peers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peers)


class Network(nn.Module):
    """A peer's modules under the names that its detectors give them."""

    def __init__(self, levels: Callable[[Network, Tensor], Sequence[Tensor]], **modules: nn.Module):
        super().__init__()
        self.levels = levels
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.levels(self, x))


# detectron2


def detectron2(name: str = "build_resnet_fpn_backbone", fpn: dict | None = None, **resnets) -> Network:
    sys.path.insert(0, os.environ["RESNET_CUDA_TEST_DETECTRON2"])
    sys.modules.setdefault("detectron2._C", peers.WithoutOperators("detectron2._C"))
    from detectron2.config import get_cfg
    from detectron2.layers import deform_conv
    from detectron2.modeling import build_backbone

    deform_conv.deform_conv, deform_conv.modulated_deform_conv = peers.deform_conv_v1, peers.deform_conv_v2
    features = ["res3", "res4", "res5"] if "retinanet" in name else ["res2", "res3", "res4", "res5"]
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "cpu", name, 0
    narrow = {"STEM_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8, "RES2_OUT_CHANNELS": 32, "OUT_FEATURES": features}
    cfg.MODEL.RESNETS.update({**narrow, **resnets})
    cfg.MODEL.FPN.update({"OUT_CHANNELS": 16, "IN_FEATURES": features, **(fpn or {})})
    return Network(lambda self, x: self.backbone(x).values(), backbone=build_backbone(cfg))


def detectron2_c4() -> Network:
    """With the C5 head of its Res5ROIHeads, run on the body's result."""
    network = detectron2("build_resnet_backbone", OUT_FEATURES=["res4"])
    from detectron2.layers import ShapeSpec  # noqa: F401
    from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet

    head = nn.Module()
    head.res5 = nn.Sequential(
        *ResNet.make_stage(
            BottleneckBlock,
            3,
            stride_per_block=[2, 1, 1],
            in_channels=128,
            bottleneck_channels=64,
            out_channels=256,
            num_groups=1,
            norm="FrozenBN",
            stride_in_1x1=True,
        )
    )

    def levels(self, x):
        (c4,) = self.backbone(x).values()
        return c4, self.roi_heads.res5(c4)

    network.levels = levels
    network.roi_heads = head
    return network


def caffe2(**resnets) -> tuple[Network, dict[str, str]]:
    """detectron2's network, and the Caffe2 name of each of its keys, as detectron2 itself translates them."""
    network = detectron2(**resnets)
    from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

    names = {}
    for key in network.state_dict():
        for c2 in _caffe2_names(key):
            names[c2] = torch.zeros(1)
    converted, originals = convert_c2_detectron_names(names)
    keys = {}
    for key in network.state_dict():
        short = key.removeprefix("backbone.").removeprefix("bottom_up.")
        if short in converted:
            keys[key] = originals[short]
    return network, keys


def _caffe2_names(key: str) -> list[str]:
    """Candidates for the name that Detectron gave a tensor, from its sources (modeling/ResNet.py, modeling/FPN.py)."""
    parts = key.removeprefix("backbone.").removeprefix("bottom_up.").split(".")
    last = {2: 2, 3: 3, 4: 5, 5: 2}
    leaf = {"weight": "w", "bias": "b"}.get(parts[-1])
    if leaf is None:
        return []
    if parts[0].startswith("fpn_"):
        level = int(parts[0][-1])
        inner = "inner_" if "lateral" in parts[0] else ""
        suffix = "_lateral" if inner and level < 5 else ""
        return [f"fpn_{inner}res{level}_{last[level]}_sum{suffix}_{leaf}"]
    norm = "norm" in parts
    kind = "bn_s" if parts[-1] == "weight" else "bn_b"
    if parts[0] == "stem":
        return [f"res_conv1_{kind}" if norm else f"conv1_{leaf}"]
    branch = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "shortcut": "1"}[parts[2]]
    return [f"{parts[0]}_{parts[1]}_branch{branch}_{kind if norm else leaf}"]


# mmdetection


def mmdetection(neck: dict | None = None, **options) -> Network:
    sys.modules.setdefault("mmcv._ext", peers.WithoutOperators("mmcv._ext"))
    import mmdet.models  # noqa: F401
    from mmcv.ops import deform_conv, modulated_deform_conv
    from mmdet.registry import MODELS

    deform_conv.deform_conv2d = peers.deform_conv_v1
    modulated_deform_conv.modulated_deform_conv2d = peers.deform_conv_v2
    options = {"type": "ResNet", "depth": 50, "base_channels": 8, "stem_channels": 8, "norm_eval": True, **options}
    neck = {"type": "FPN", "in_channels": [32, 64, 128, 256], "out_channels": 16, "num_outs": 5, **(neck or {})}
    return Network(lambda self, x: self.neck(self.backbone(x)), backbone=MODELS.build(options), neck=MODELS.build(neck))


# maskrcnn-benchmark


def maskrcnn_benchmark(body: str = "R-50-FPN", use_gn: bool = False, **resnets) -> Network:
    import types

    sys.path.insert(0, os.environ["RESNET_CUDA_TEST_MASKRCNN_BENCHMARK"])
    sys.modules.setdefault("maskrcnn_benchmark._C", peers.WithoutOperators("maskrcnn_benchmark._C"))
    apex = sys.modules.setdefault("apex", types.ModuleType("apex"))
    apex.amp = types.SimpleNamespace(float_function=lambda function: function)
    import maskrcnn_benchmark

    maskrcnn_benchmark._C = sys.modules["maskrcnn_benchmark._C"]
    torch._six = sys.modules.setdefault("torch._six", types.SimpleNamespace(PY3=True))
    from maskrcnn_benchmark.config import cfg as defaults
    from maskrcnn_benchmark.layers.dcn import deform_conv_module
    from maskrcnn_benchmark.modeling.backbone import build_backbone

    deform_conv_module.deform_conv = peers.deform_conv_v1
    deform_conv_module.modulated_deform_conv = peers.deform_conv_v2
    cfg = defaults.clone()
    cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT, cfg.MODEL.FPN.USE_GN = body, 0, use_gn
    narrow = {"STEM_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8, "RES2_OUT_CHANNELS": 32, "BACKBONE_OUT_CHANNELS": 16}
    for key, value in {**narrow, **resnets}.items():
        setattr(cfg.MODEL.RESNETS, key, value)
    return Network(lambda self, x: self.backbone(x), backbone=build_backbone(cfg))


def maskrcnn_benchmark_c4() -> Network:
    """With the C5 head of its box feature extractor, run on the body's result."""
    network = maskrcnn_benchmark("R-50-C4")
    from maskrcnn_benchmark.modeling.backbone import resnet

    head = resnet.ResNetHead(
        block_module="BottleneckWithFixedBatchNorm",
        stages=(resnet.StageSpec(index=4, block_count=3, return_features=False),),
        num_groups=1,
        width_per_group=8,
        stride_in_1x1=True,
        stride_init=None,
        res2_out_channels=32,
        dilation=1,
    )
    network.roi_heads = nn.ModuleDict({"box": nn.ModuleDict({"feature_extractor": nn.ModuleDict({"head": head})})})

    def levels(self, x):
        (c4,) = self.backbone(x)
        return c4, self.roi_heads["box"]["feature_extractor"]["head"](c4)

    network.levels = levels
    return network


_D2_DEFORM = {"DEFORM_ON_PER_STAGE": [False, True, True, True]}
_MRB_GN = {"TRANS_FUNC": "BottleneckWithGN", "STEM_FUNC": "StemWithGN", "STRIDE_IN_1X1": False}
_MMDET_DCN = {"stage_with_dcn": (False, True, True, True)}
# The published models' sizes hide nothing that these do not show; group norms need 32 channels.
_WIDE = {"STEM_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 32, "RES2_OUT_CHANNELS": 128}
CASES: dict[str, Callable[[], Network | tuple[Network, dict[str, str]]]] = {
    "detectron2-fpn": detectron2,
    "detectron2-fpn-stride-3x3": lambda: detectron2(STRIDE_IN_1X1=False),
    "detectron2-resnext": lambda: detectron2(NUM_GROUPS=8, WIDTH_PER_GROUP=2, STRIDE_IN_1X1=False),
    "detectron2-r18": lambda: detectron2(DEPTH=18, STEM_OUT_CHANNELS=64, RES2_OUT_CHANNELS=64),
    "detectron2-c4": detectron2_c4,
    "detectron2-dcn": lambda: detectron2(**_D2_DEFORM),
    "detectron2-dcnv2": lambda: detectron2(**_D2_DEFORM, DEFORM_MODULATED=True, DEFORM_NUM_GROUPS=2),
    "detectron2-gn": lambda: detectron2(
        NORM="GN", STRIDE_IN_1X1=False, fpn={"NORM": "GN", "OUT_CHANNELS": 32}, **_WIDE
    ),
    "detectron2-retinanet": lambda: detectron2("build_retinanet_resnet_fpn_backbone"),
    "caffe2-fpn": caffe2,
    "caffe2-resnext": lambda: caffe2(NUM_GROUPS=8, WIDTH_PER_GROUP=2, STRIDE_IN_1X1=False),
    "mmdetection-fpn": mmdetection,
    "mmdetection-caffe": lambda: mmdetection(style="caffe"),
    "mmdetection-r18": lambda: mmdetection(depth=18, neck={"in_channels": [8, 16, 32, 64]}),
    "mmdetection-dcn": lambda: mmdetection(dcn={"type": "DCN", "deform_groups": 1}, **_MMDET_DCN),
    "mmdetection-dcnv2": lambda: mmdetection(dcn={"type": "DCNv2", "deform_groups": 2}, **_MMDET_DCN),
    "mmdetection-v1d": lambda: mmdetection(
        deep_stem=True, avg_down=True, stem_channels=16, base_channels=16, neck={"in_channels": [64, 128, 256, 512]}
    ),
    "mmdetection-retinanet": lambda: mmdetection(
        neck={"start_level": 1, "add_extra_convs": "on_input", "relu_before_extra_convs": True}
    ),
    "mmdetection-gn": lambda: mmdetection(
        base_channels=32,
        stem_channels=32,
        norm_cfg={"type": "GN", "num_groups": 32},
        neck={
            "in_channels": [128, 256, 512, 1024],
            "out_channels": 32,
            "norm_cfg": {"type": "GN", "num_groups": 32},
        },
    ),
    "maskrcnn-benchmark-fpn": maskrcnn_benchmark,
    "maskrcnn-benchmark-c4": maskrcnn_benchmark_c4,
    "maskrcnn-benchmark-resnext": lambda: maskrcnn_benchmark(NUM_GROUPS=8, WIDTH_PER_GROUP=2, STRIDE_IN_1X1=False),
    "maskrcnn-benchmark-dcn": lambda: maskrcnn_benchmark(STAGE_WITH_DCN=(False, True, True, True)),
    "maskrcnn-benchmark-dcnv2": lambda: maskrcnn_benchmark(
        STAGE_WITH_DCN=(False, True, True, True), WITH_MODULATED_DCN=True
    ),
    "maskrcnn-benchmark-gn": lambda: maskrcnn_benchmark(use_gn=True, BACKBONE_OUT_CHANNELS=32, **{**_WIDE, **_MRB_GN}),
    "maskrcnn-benchmark-retinanet": lambda: maskrcnn_benchmark("R-50-FPN-RETINANET"),
}


def golden(name: str) -> dict:
    """The content of a case's file, from the peer itself."""
    made = CASES[name]()
    network, names = made if isinstance(made, tuple) else (made, None)
    state = network.state_dict()
    keys = {key: list(value.shape) for key, value in state.items()}
    if names is None:
        weights = filled(keys)
    else:  # Caffe2's: scale and shift only, which its reader gives the statistics 0 and 1 - eps
        keys = {names[key]: list(state[key].shape) for key in state if key in names}
        weights = {key: state[key] for key in state}
        weights.update({key: filled({name: state[key].shape})[name] for key, name in names.items()})
        for key, value in weights.items():
            if key.endswith("running_var"):
                assert torch.allclose(value, torch.tensor(1 - 1e-5))
                weights[key] = torch.full_like(value.double(), 1 - 1e-5)
    network.double().load_state_dict(weights)
    network.eval()
    x = image().requires_grad_()
    return {"peer": name.partition("-fpn")[0], **numbers(network(x), x), "keys": keys}


def check(name: str) -> None:
    """The peer's network as it is now gives what the file says."""
    now, then = golden(name), read(name)
    assert now["keys"] == then["keys"], name
    assert_known(now, then)


if __name__ == "__main__":
    names = [it for it in sys.argv[1:] if it != "--check"]
    for case in names or CASES:
        if "--check" in sys.argv:
            check(case)
        else:
            write(case, golden(case))
        print(case)
