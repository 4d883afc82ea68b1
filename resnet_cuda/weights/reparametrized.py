"""Recognises by its keys a model whose weights are computed from other tensors: pruned, parametrized, normalised."""

from __future__ import annotations

import re
from collections.abc import Iterable

# By the ends of the keys that replace ``weight``: what was done, and what makes it a plain weight again.
_KINDS = (
    (r"_orig", r"_mask", "pruned", "torch.nn.utils.prune.remove(layer, {name!r})"),
    (r"_orig", r"_u", "spectrally normalised", "torch.nn.utils.remove_spectral_norm(layer, {name!r})"),
    (r"_g", r"_v", "weight-normalised", "torch.nn.utils.remove_weight_norm(layer, {name!r})"),
)
_PARAMETRIZED = re.compile(r"(?:.*\.)?parametrizations\.(\w+)\.original\d*$")


def advice(keys: Iterable[str], is_model: bool) -> str | None:
    """What to do where ``keys`` are of such a model, without a full stop; None for any other.

    Args:
        keys: of the source of a load or, with ``is_model``, of the model to load into.
    """
    found = _found(set(keys))
    if found is None:
        return None
    what, key, remedy = found
    if is_model:
        return f"The model is {what} ({key}): load the weights before that, or call {remedy} for its layers first"
    return f"The source is of a {what} model ({key}): call {remedy} for its layers before it is saved"


def _found(keys: set[str]) -> tuple[str, str, str] | None:
    for key in sorted(keys):
        parametrized = _PARAMETRIZED.match(key)
        if parametrized:
            remedy = f"torch.nn.utils.parametrize.remove_parametrizations(layer, {parametrized[1]!r})"
            return "parametrized", key, remedy
        for end, other, what, remedy in _KINDS:
            plain = key.removesuffix(end)
            if plain != key and plain + other in keys and plain not in keys:
                return what, key, remedy.format(name=plain.rpartition(".")[2])
    return None
