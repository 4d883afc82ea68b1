"""maskrcnn-benchmark's checkpoints, and this package's backbones that are built from a configuration."""

from __future__ import annotations

import re

from resnet_cuda.weights.formats.format import Format
from resnet_cuda.weights.formats.templates import Rule, norm_rules
from resnet_cuda.weights.formats.torchvision import ANCHOR, BLOCKS, DEFORMABLE

MASKRCNN_BENCHMARK = Format(
    name="maskrcnn-benchmark",
    body=(
        Rule("stem.conv.{wb}", "stem.conv1.{wb}"),
        *norm_rules("stem.norm", "stem.bn1"),
        *DEFORMABLE,
        *BLOCKS,
    ),
    fpn=(
        Rule("fpn.inner{level}.conv.{wb}", "fpn_inner{level-1}.{wb}"),
        Rule("fpn.outer{level}.conv.{wb}", "fpn_layer{level-1}.{wb}"),
        *norm_rules("fpn.inner{level}.norm", "fpn_inner{level-1}.1"),
        *norm_rules("fpn.outer{level}.norm", "fpn_layer{level-1}.1"),
        # With GN, or with a ReLU, a convolution is the first of a sequence.
        Rule("fpn.inner{level}.conv.{wb}", "fpn_inner{level-1}.0.{wb}", read_only=True),
        Rule("fpn.outer{level}.conv.{wb}", "fpn_layer{level-1}.0.{wb}", read_only=True),
        Rule("fpn.inner{level}.normed.{wb}", "fpn_inner{level-1}.0.{wb}"),
        Rule("fpn.outer{level}.normed.{wb}", "fpn_layer{level-1}.0.{wb}"),
        Rule("fpn.p{p}.{wb}", "top_blocks.p{p}.{wb}"),
    ),
    classifier=(Rule("classifier.{wb}", "fc.{wb}"),),
    anchor=ANCHOR,
    fpn_anchor=re.compile(r"fpn_(?:inner|layer)(?P<i>[1-4])\.(?:0\.)?weight"),
    prefixes={
        "classifier": ("", "", ""),
        "backbone": ("body.", "fpn.", "head."),
        "detector": ("backbone.body.", "backbone.fpn.", "roi_heads.box.feature_extractor.head."),
    },
    wrapper="model",
    eps=0.0,
    pixels="maskrcnn-benchmark",
    stride_in_1x1=None,
)
