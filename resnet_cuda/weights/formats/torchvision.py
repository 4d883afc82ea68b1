"""torchvision's classifiers, backbones and detectors; timm's ResNets have the same names."""

from __future__ import annotations

import re

from resnet_cuda.weights.formats.format import Format
from resnet_cuda.weights.formats.templates import Rule, norm_rules

BLOCK = "layer{stage-1}.{block}"
# What torchvision, timm, maskrcnn-benchmark and mmdetection have in common.
CONVOLUTIONS = (Rule("res{stage}.{block}.conv{k}.{wb}", BLOCK + ".conv{k}.{wb}"),)
SHORTCUTS = (
    Rule("res{stage}.{block}.shortcut.conv.{wb}", BLOCK + ".downsample.0.{wb}"),
    *norm_rules("res{stage}.{block}.shortcut.norm", BLOCK + ".downsample.1"),
    Rule("res{stage}.{block}.shortcut_avg.conv.{wb}", BLOCK + ".downsample.1.{wb}"),
    *norm_rules("res{stage}.{block}.shortcut_avg.norm", BLOCK + ".downsample.2"),
)
BLOCKS = (*CONVOLUTIONS, *norm_rules("res{stage}.{block}.norm{k}", BLOCK + ".bn{k}"), *SHORTCUTS)
# This package's deformable layers, which maskrcnn-benchmark named.
DEFORMABLE = (
    Rule("res{stage}.{block}.offset.{wb}", BLOCK + ".conv2.offset.{wb}"),
    Rule("res{stage}.{block}.conv2.{wb}", BLOCK + ".conv2.conv.{wb}", read_only=True),
    Rule("res{stage}.{block}.deform.{wb}", BLOCK + ".conv2.conv.{wb}"),
)
ANCHOR = re.compile(r"layer(?P<stage>[1-4])\.0\.conv1\.weight")

TORCHVISION = Format(
    name="torchvision",
    body=(
        Rule("stem.conv.{wb}", "conv1.{wb}"),
        *norm_rules("stem.norm", "bn1"),
        # timm's deep stem: conv1 is a sequence, and bn1 the norm after it.
        *norm_rules("stem.2.norm", "bn1"),
        Rule("stem.{deep}.conv.{wb}", "conv1.{3deep}.{wb}"),
        *norm_rules("stem.{deep}.norm", "conv1.{3deep+1}"),
        *BLOCKS,
        *DEFORMABLE,
    ),
    fpn=(
        Rule("fpn.inner{level}.conv.{wb}", "inner_blocks.{i}.0.{wb}"),
        *norm_rules("fpn.inner{level}.norm", "inner_blocks.{i}.1"),
        Rule("fpn.outer{level}.conv.{wb}", "layer_blocks.{i}.0.{wb}"),
        *norm_rules("fpn.outer{level}.norm", "layer_blocks.{i}.1"),
        Rule("fpn.p{p}.{wb}", "extra_blocks.p{p}.{wb}"),
        # Published detectors are of version 1.
        Rule("fpn.inner{level}.conv.{wb}", "inner_blocks.{i}.{wb}", read_only=True),
        Rule("fpn.outer{level}.conv.{wb}", "layer_blocks.{i}.{wb}", read_only=True),
    ),
    classifier=(Rule("classifier.{wb}", "fc.{wb}"),),
    anchor=ANCHOR,
    fpn_anchor=re.compile(r"(?:inner|layer)_blocks\.(?P<i>\d)\.(?:0\.)?weight"),
    prefixes={
        "classifier": ("", "", ""),
        "backbone": ("body.", "fpn.", "head."),
        "detector": ("backbone.body.", "backbone.fpn.", "roi_heads.head."),
    },
    wrapper=None,
    eps=1e-5,
    pixels="torchvision",
    stride_in_1x1=False,
)
