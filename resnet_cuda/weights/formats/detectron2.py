"""detectron2's checkpoints (.pth and .pkl)."""

from __future__ import annotations

import re

from resnet_cuda.weights.formats.format import Format
from resnet_cuda.weights.formats.templates import Rule, norm_rules

BLOCK = "res{stage}.{block}"

DETECTRON2 = Format(
    name="detectron2",
    body=(
        Rule("stem.conv.{wb}", "stem.conv1.{wb}"),
        *norm_rules("stem.norm", "stem.conv1.norm"),
        Rule("res{stage}.{block}.conv{k}.{wb}", BLOCK + ".conv{k}.{wb}"),
        *norm_rules("res{stage}.{block}.norm{k}", BLOCK + ".conv{k}.norm"),
        Rule("res{stage}.{block}.offset.{wb}", BLOCK + ".conv2_offset.{wb}"),
        Rule("res{stage}.{block}.shortcut.conv.{wb}", BLOCK + ".shortcut.{wb}"),
        *norm_rules("res{stage}.{block}.shortcut.norm", BLOCK + ".shortcut.norm"),
    ),
    fpn=(
        Rule("fpn.inner{level}.conv.{wb}", "fpn_lateral{level}.{wb}"),
        *norm_rules("fpn.inner{level}.norm", "fpn_lateral{level}.norm"),
        Rule("fpn.outer{level}.conv.{wb}", "fpn_output{level}.{wb}"),
        *norm_rules("fpn.outer{level}.norm", "fpn_output{level}.norm"),
        Rule("fpn.p{p}.{wb}", "top_block.p{p}.{wb}"),
    ),
    classifier=(
        Rule("classifier.{wb}", "linear.{wb}"),
        Rule("classifier.{wb}", "stem.fc.{wb}", read_only=True),  # of its convert-torchvision-to-d2.py
    ),
    anchor=re.compile(r"res(?P<stage>[2-5])\.0\.conv1\.weight"),
    fpn_anchor=re.compile(r"fpn_(?:lateral|output)(?P<i>[2-5])\.weight"),
    prefixes={
        "classifier": ("", "", ""),
        "backbone": ("bottom_up.", "", "head."),
        "detector": ("backbone.bottom_up.", "backbone.", "roi_heads."),
    },
    wrapper="model",
    eps=1e-5,
    pixels="detectron2",
    stride_in_1x1=None,
    extras={"__author__": "resnet_cuda"},
)
