"""What was predicted before any GPU run, and the ceilings it was predicted from. Nothing here needs torch.

Source: the project's GPU kernel plan, sections 1 (floors), 2 (peers), 3.5 (times of stage A) and 5 (ratios and aims);
microseconds on an H200, bfloat16 unless a name says otherwise. On another GPU they are no predictions.
"""

from __future__ import annotations

from benchmarks.gpu import names

GPU = "NVIDIA H200"
GFLOP_PER_IMAGE = 4.954  # the matrix product of every stage's layer; a backward makes two
TERAFLOPS = {"16 bit": 790.0, "TF32": 395.0, "float32": 60.0}

# (stage, batch): (forward, with TF32), (backward, with TF32) of stage A, section 3.5.
STAGE_A_US = {
    ("C3", 1): ((24, 40), (68, 116)),
    ("C3", 8): ((167, 292), (436, 825)),
    ("C4", 1): ((22, 38), (48, 84)),
    ("C4", 2): ((31, 53), (83, 150)),
    ("C4", 8): ((113, 202), (289, 555)),
    ("C5", 1): ((19, 34), (42, 67)),
    ("C5", 8): ((90, 165), (222, 426)),
}
# At C4, batch 8, section 5.
STRICT_FLOAT32_US = {names.FORWARD: 870, names.BACKWARD: 1860}
PEERS_US = {
    names.TORCHVISION_AUTOCAST: {names.FORWARD: 1416, names.BACKWARD: 5750},
    names.TORCHVISION_FLOAT32: {names.FORWARD: 1416, names.BACKWARD: 5750},
    names.TORCHVISION_AUTOCAST_TF32: {names.FORWARD: 696, names.BACKWARD: 4230},
    names.TORCHVISION_TF32: {names.FORWARD: 696, names.BACKWARD: 4230},
    names.MMCV_FLOAT16: {names.FORWARD: 840, names.BACKWARD: 12000},
}
_SIXTEEN_BIT = (names.OURS_AUTOCAST, names.OURS_BFLOAT16, names.OURS_FLOAT16)


def predicted_us(direction: str, stage: str, batch: int, candidate: str) -> float | None:
    """The predicted time of a candidate; None where none was made."""
    if candidate in _SIXTEEN_BIT or candidate == names.OURS_TF32:
        pair = STAGE_A_US.get((stage, batch))
        if pair is None:
            return None
        return pair[direction == names.BACKWARD][candidate == names.OURS_TF32]
    if (stage, batch) != ("C4", 8):
        return None
    if candidate == names.OURS_FLOAT32:
        return STRICT_FLOAT32_US[direction]
    return PEERS_US.get(candidate, {}).get(direction)


def floor_us(direction: str, batch: int, candidate: str) -> float | None:
    """The matrix products alone at the H200's measured ceiling for the candidate's precision; None for a peer."""
    if candidate in _SIXTEEN_BIT:
        ceiling = TERAFLOPS["16 bit"]
    elif candidate == names.OURS_TF32:
        ceiling = TERAFLOPS["TF32"]
    elif candidate == names.OURS_FLOAT32:
        ceiling = TERAFLOPS["float32"]
    else:
        return None
    products = 2 if direction == names.BACKWARD else 1
    return round(products * batch * GFLOP_PER_IMAGE / ceiling * 1e3, 2)
