"""Keys outside the backbone that a library has renamed in its detectors, so that published files load."""

from __future__ import annotations

import re

# torchvision's heads of version 1, as its classes rename them when they load.
_RENAMED = (
    (re.compile(r"(.*rpn\.head\.conv)\.(weight|bias)"), lambda match: f"{match[1]}.0.0.{match[2]}"),
    (
        re.compile(r"(.*roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)"),
        lambda match: f"{match[1]}.{int(match[2]) - 1}.0.{match[3]}",
    ),
    (
        re.compile(r"(.*head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)"),
        lambda match: f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}",
    ),
)


def present_key(key: str) -> str:
    """The current name of ``key``; ``key`` itself if it was not renamed."""
    for pattern, rename in _RENAMED:
        match = pattern.fullmatch(key)
        if match:
            return rename(match)
    return key
