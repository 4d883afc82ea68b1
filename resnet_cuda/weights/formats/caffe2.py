"""Detectron's (Caffe2) .pkl files, whose batch norms are folded into a scale and a shift."""

from __future__ import annotations

import re

from resnet_cuda.weights.formats.format import Format
from resnet_cuda.weights.formats.templates import Rule, group_norm_name

# How a norm's tensors may end; detectron2 reads those with statistics, too.
_LEAVES = {
    "weight": ("s", "gamma"),
    "bias": ("b", "beta"),
    "running_mean": ("rm", "running_mean"),
    "running_var": ("riv", "running_var"),
}


def _conv(neutral: str, spelled: str) -> tuple[Rule, ...]:
    return Rule(neutral + ".weight", spelled + "_w"), Rule(neutral + ".bias", spelled + "_b")


def _norm(neutral: str, spelled: str, group: str | None = None) -> tuple[Rule, ...]:
    """A batch norm, and a group norm whose tensors begin with ``group`` or ``spelled``."""
    return (
        *(
            Rule(f"{neutral}.{leaf}", f"{spelled}_bn_{end}", read_only=end != ends[0])
            for leaf, ends in _LEAVES.items()
            for end in ends
        ),
        Rule(group_norm_name(neutral) + ".weight", f"{group or spelled}_gn_s"),
        Rule(group_norm_name(neutral) + ".bias", f"{group or spelled}_gn_b"),
    )


BLOCK = "res{stage}_{block}_branch"
_SUM = "res{level}_{last}_sum"
_INNER, _TOP_INNER = f"fpn_inner_{_SUM}_lateral", "fpn_inner_res5_{last}_sum"

CAFFE2 = Format(
    name="caffe2",
    body=(
        *_conv("stem.conv", "conv1"),
        *_norm("stem.norm", "res_conv1", "conv1"),
        *_conv("res{stage}.{block}.conv{k}", BLOCK + "2{abc}"),
        *_norm("res{stage}.{block}.norm{k}", BLOCK + "2{abc}"),
        *_conv("res{stage}.{block}.shortcut.conv", BLOCK + "1"),
        *_norm("res{stage}.{block}.shortcut.norm", BLOCK + "1"),
    ),
    fpn=(
        *_conv("fpn.inner5.conv", _TOP_INNER),
        *_norm("fpn.inner5.norm", _TOP_INNER),
        *_conv("fpn.inner{level}.conv", _INNER),
        *_norm("fpn.inner{level}.norm", _INNER),
        *_conv("fpn.outer{level}.conv", f"fpn_{_SUM}"),
        *_norm("fpn.outer{level}.norm", f"fpn_{_SUM}"),
        *_conv("fpn.p{p}", "fpn_{p}"),
    ),
    classifier=(*_conv("classifier", "fc1000"), *_conv("classifier", "pred")),
    anchor=re.compile(r"res(?P<stage>[2-5])_0_branch2a_w"),
    fpn_anchor=re.compile(r"fpn_inner_res(?P<i>[2-5])_\d+_sum(?:_lateral)?_w"),
    prefixes=dict.fromkeys(("classifier", "backbone", "detector"), ("", "", "")),
    wrapper="blobs",
    eps=0.0,
    pixels="caffe2",
    stride_in_1x1=None,
)
