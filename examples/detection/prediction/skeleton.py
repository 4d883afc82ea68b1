"""Lines between the keypoints of persons."""

from __future__ import annotations

from collections.abc import Sequence

COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
    *("left_ankle", "right_ankle"),
)
_LINES = (
    *(("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee")),
    *(("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip")),
    *(("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow")),
    *(("right_shoulder", "right_elbow"), ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist")),
    *(("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear")),
    *(("right_eye", "right_ear"), ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder")),
)


def lines_between(keypoint_names: Sequence[str]) -> list[tuple[int, int]]:
    """COCO's skeleton as pairs of indices where the names are COCO's 17 in any order; else no lines."""
    names = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in keypoint_names]
    if sorted(names) != sorted(COCO_KEYPOINTS):
        return []
    return [(names.index(start), names.index(end)) for start, end in _LINES]
