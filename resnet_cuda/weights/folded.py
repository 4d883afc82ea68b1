"""Refuses to mix weights whose norms are folded into the convolutions with weights beside norms."""

from __future__ import annotations

import re

from resnet_cuda.weights.checkpoint import Checkpoint, component_of

_BIAS = re.compile(r"res\d+\.\d+\.conv\d\.bias$")
_NORM = re.compile(r"\.(?:norm|gn)\d?\.")


def refuse_half_folded(where: str, given: Checkpoint, wanted: Checkpoint) -> None:
    """Without ``strict`` such weights would load, and the outputs would be wrong.

    Raises:
        ValueError: if the body of one side has folded norms and that of the other has norms.
    """
    if _is_folded(wanted) and _has_norms(given):
        raise ValueError(
            f"{where} has norms, the model has them folded into its convolutions, as optimize_for_inference leaves it; "
            "load into the model that the copy was made of, then optimize again"
        )
    if _is_folded(given) and _has_norms(wanted):
        raise ValueError(
            f"{where} has its norms folded into the convolutions, as optimize_for_inference leaves them, the model has "
            "norms; load the weights of the model that was optimized"
        )


def _is_folded(checkpoint: Checkpoint) -> bool:
    return not _has_norms(checkpoint) and any(_BIAS.search(name) for name in checkpoint.tensors)


def _has_norms(checkpoint: Checkpoint) -> bool:
    return any(component_of(name) == "body" and _NORM.search(name) for name in checkpoint.tensors)
