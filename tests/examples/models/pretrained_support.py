"""What the tests of pretrained weights share: each kind's last layers, and the keys of torchvision's own files."""

from __future__ import annotations

import re

PREDICTORS = {
    "maskrcnn": ["roi_heads.box_predictor", "roi_heads.mask_predictor.mask_fcn_logits"],
    "fasterrcnn": ["roi_heads.box_predictor"],
    "keypointrcnn": ["roi_heads.box_predictor"],
    "retinanet": ["head.classification_head.cls_logits"],
}


def published(state):
    """The keys of torchvision's published detectors, which are of version 1."""
    rules = [
        (r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"mask_head\.(\d)\.0\.", lambda it: f"mask_head.mask_fcn{int(it[1]) + 1}."),
        (r"(classification|regression)_head\.conv\.(\d)\.0\.", lambda it: f"{it[1]}_head.conv.{2 * int(it[2])}."),
    ]
    renamed = {}
    for key, value in state.items():
        for pattern, by in rules:
            key = re.sub(pattern, by, key)
        if "num_batches_tracked" not in key:
            renamed[key] = value
    return renamed
