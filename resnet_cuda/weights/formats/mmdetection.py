"""mmdetection's checkpoints."""

from __future__ import annotations

import re

from resnet_cuda.weights.formats.format import Format
from resnet_cuda.weights.formats.templates import Rule, norm_rules
from resnet_cuda.weights.formats.torchvision import ANCHOR, BLOCK, CONVOLUTIONS, SHORTCUTS

MMDETECTION = Format(
    name="mmdetection",
    body=(
        Rule("stem.conv.{wb}", "conv1.{wb}"),
        *norm_rules("stem.norm", "bn1", "gn1"),
        Rule("stem.{deep}.conv.{wb}", "stem.{3deep}.{wb}"),
        *norm_rules("stem.{deep}.norm", "stem.{3deep+1}"),
        *CONVOLUTIONS,
        *SHORTCUTS,
        Rule("res{stage}.{block}.offset.{wb}", BLOCK + ".conv2.conv_offset.{wb}"),
        Rule("res{stage}.{block}.offset.{wb}", BLOCK + ".conv2_offset.{wb}", read_only=True),  # of version 1
        *norm_rules("res{stage}.{block}.norm{k}", BLOCK + ".bn{k}", BLOCK + ".gn{k}"),
    ),
    fpn=(
        Rule("fpn.inner{level}.conv.{wb}", "lateral_convs.{i}.conv.{wb}"),
        *norm_rules("fpn.inner{level}.norm", "lateral_convs.{i}.bn", "lateral_convs.{i}.gn"),
        Rule("fpn.outer{level}.conv.{wb}", "fpn_convs.{i}.conv.{wb}"),
        *norm_rules("fpn.outer{level}.norm", "fpn_convs.{i}.bn", "fpn_convs.{i}.gn"),
        Rule("fpn.p{p}.{wb}", "fpn_convs.{extra}.conv.{wb}"),
    ),
    classifier=(Rule("classifier.{wb}", "fc.{wb}"), Rule("classifier.{wb}", "head.fc.{wb}", read_only=True)),
    anchor=ANCHOR,
    fpn_anchor=re.compile(r"lateral_convs\.(?P<i>\d)\.conv\.weight"),
    prefixes={
        "classifier": ("", "", ""),
        "backbone": ("backbone.", "neck.", "roi_head.shared_head."),
        "detector": ("backbone.", "neck.", "roi_head.shared_head."),
    },
    wrapper="state_dict",
    eps=1e-5,
    pixels="mmdetection",
    stride_in_1x1=None,
    extras={"meta": {}},
)
