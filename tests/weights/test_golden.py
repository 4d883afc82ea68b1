"""Peers' own networks in ours: weights by load_weights, every level and the gradient as the peer computed them.

``golden/*.json`` has what peers computed; ``make_golden.py`` writes it, and where the peers are installed
``test_golden_files_are_the_peers`` compares.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.networks import levels_of, narrow_cfg
from helpers.processes import run_python
from torch import nn
from weights.golden_networks import FOLDER, assert_known, filled, image, numbers, read

from resnet_cuda import build_backbone, load_weights, resnet_fpn_backbone
from resnet_cuda.fpn import LastLevelP6P7
from resnet_cuda.resnet import ResNetHead, StageSpec

CASES = sorted(path.stem for path in FOLDER.glob("*.json"))
DCN = (False, True, True, True)
WRAPPERS = {"detectron2": "model", "caffe2": "blobs", "mmdetection": "state_dict", "maskrcnn-benchmark": "model"}


def content_of(case, golden):
    """The peer's file: its weights as its library wraps them."""
    return {WRAPPERS[peer_of(case)]: filled(golden["keys"])}


def peer_of(case):
    return next(peer for peer in WRAPPERS if case.startswith(peer))


class BodyAndHead(nn.Module):
    """A C4 detector's two parts, under names of no library."""

    def __init__(self, stride_in_1x1):
        super().__init__()
        cfg = narrow_cfg("R-50-C4", RES2_OUT_CHANNELS=32, STRIDE_IN_1X1=stride_in_1x1)
        self.features = build_backbone(cfg)
        self.box = ResNetHead(
            "BottleneckWithFixedBatchNorm",
            [StageSpec(4, 3, True)],
            width_per_group=8,
            res2_out_channels=32,
            stride_in_1x1=stride_in_1x1,
        )

    def forward(self, x):
        (c4,) = self.features(x)
        return [c4, self.box(c4)]


def cfg_built(case):
    """Ours with maskrcnn-benchmark's names, or None where its configurations have no such network."""
    stride_in_1x1 = not any(it in case for it in ("3x3", "resnext", "gn", "mmdetection")) or "caffe" in case[3:]
    if "c4" in case:
        return BodyAndHead(stride_in_1x1)
    if "r18" in case or "v1d" in case:
        return None
    options = {"RES2_OUT_CHANNELS": 32, "BACKBONE_OUT_CHANNELS": 16, "STRIDE_IN_1X1": stride_in_1x1}
    if "resnext" in case:
        options |= {"NUM_GROUPS": 8, "WIDTH_PER_GROUP": 2}
    if "dcn" in case:
        options |= {"STAGE_WITH_DCN": DCN, "WITH_MODULATED_DCN": "dcnv2" in case}
        options["DEFORMABLE_GROUPS"] = 1 if "v2" not in case or "maskrcnn" in case else 2
    width = 8
    if "gn" in case:
        width = 32
        options |= {"TRANS_FUNC": "BottleneckWithGN", "STEM_FUNC": "StemWithGN"}
        options |= {"RES2_OUT_CHANNELS": 128, "BACKBONE_OUT_CHANNELS": 32}
    cfg = narrow_cfg("R-50-FPN-RETINANET" if "retinanet" in case else "R-50-FPN", width=width, **options)
    cfg.MODEL.FPN.USE_GN = "gn" in case
    return build_backbone(cfg)


def torchvision_style(case):
    """Ours with torchvision's names, or None where its networks stride in the 1x1 or have no such part."""
    if "c4" in case or not ("mmdetection" in case or any(it in case for it in ("3x3", "resnext", "gn", "r18"))):
        return None
    if "mmdetection-caffe" in case:
        return None
    options = {"width": 32 if "gn" in case else 8, "fpn_channels": 32 if "gn" in case else 16}
    name = "resnet50"
    if "r18" in case:
        name, options["width"] = "resnet18", 64 if "detectron2" in case else 8
    if "resnext" in case:
        return None  # of 2 channels per group, which no name of torchvision's has
    if "gn" in case:
        options |= {"norm_layer": "gn", "fpn_norm_layer": "gn"}
    if "dcn" in case:
        options |= {"dcn_stages": DCN, "modulated": "v2" in case, "deformable_groups": 2 if "v2" in case else 1}
    if "v1d" in case:
        options |= {"width": 16, "deep_stem": True, "avg_down": True}
    if "retinanet" in case:
        options |= {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 16)}
    return resnet_fpn_backbone(name, **options)


def compared(network, case, **options):
    golden = read(case)
    report = load_weights(network.double().eval(), content_of(case, golden), **options)
    assert report.format == peer_of(case)
    assert not report.missing
    assert not report.unexpected
    x = image().requires_grad_()
    for parameter in network.parameters():
        parameter.requires_grad = True
    assert_known(numbers(levels_of(network(x)), x), golden)
    return report


@pytest.mark.parametrize("case", CASES)
def test_ours_by_configuration(case, backend):
    network = cfg_built(case)
    if network is None:
        pytest.skip("maskrcnn-benchmark's configurations have no such network")
    report = compared(network, case)
    assert all(key.endswith("num_batches_tracked") for key in report.ignored)


@pytest.mark.parametrize("case", [case for case in CASES if torchvision_style(case) is not None])
def test_ours_by_torchvisions_function(case, backend):
    compared(torchvision_style(case), case)


@pytest.mark.parametrize("peer", WRAPPERS)
def test_golden_files_are_the_peers(peer):
    """In a process of its own: integrations replace parts of the peers."""
    needed = {"detectron2": "DETECTRON2", "caffe2": "DETECTRON2", "maskrcnn-benchmark": "MASKRCNN_BENCHMARK"}
    if peer == "mmdetection":
        pytest.importorskip("mmdet")
    elif f"RESNET_CUDA_TEST_{needed[peer]}" not in os.environ:
        pytest.skip(f"set RESNET_CUDA_TEST_{needed[peer]} to the folder of a checkout")
    cases = [case for case in CASES if peer_of(case) == peer]
    result = run_python(str(Path(__file__).with_name("make_golden.py")), "--check", *cases)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == cases
