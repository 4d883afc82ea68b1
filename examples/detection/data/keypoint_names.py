"""Left and right in the names of keypoints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Runs of capitals, words that may begin with one, numbers, and what separates them: "LEye" is L, Eye.
TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+|[\W_]+")
OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def mirrored_keypoints(names: Sequence[str]) -> list[int]:
    """For each keypoint the number of the one that it is in a mirror: left and right change places, others stay.

    The side is a word "left" or "right", or "l" or "r" or one of these words at the name's beginning or end, in small
    or capital letters: left_eye, RIGHT-EYE, LEye, hip_r, lefteye, rsho. Where it is no word of its own, or a letter,
    it is one only if there is the counterpart: "upright" alone has no side.

    Raises:
        ValueError: for a name with a word left or right whose counterpart is not among ``names``.
    """
    places = {name.casefold(): number for number, name in reversed(list(enumerate(names)))}
    pairs: list[int | None] = [None] * len(names)
    for number, name in enumerate(names):
        if pairs[number] is not None:
            continue
        pairs[number] = number
        for other in _others(name):
            there = places.get(other.casefold())
            if there is not None and there != number and pairs[there] in (None, there):
                pairs[number], pairs[there] = there, number
                break
        else:
            swapped = _swapped_words(name)
            if swapped is not None:
                raise ValueError(f"keypoint {name!r} has no counterpart {swapped!r}; the images cannot be mirrored")
    return [int(pair) for pair in pairs]


def _others(name: str) -> Iterator[str]:
    """What the counterpart may be called, the surest first."""
    words = _swapped_words(name)
    if words is not None:
        yield words
        return
    tokens = TOKEN.findall(name)
    for place in (0, -1):
        if len(tokens) > 1 and tokens[place].casefold() in ("l", "r"):
            changed = list(tokens)
            changed[place] = _swapped(tokens[place])
            yield "".join(changed)
    for side in ("left", "right", "l", "r"):
        if len(name) > len(side) + 1:
            if name.casefold().startswith(side):
                yield _swapped(name[: len(side)]) + name[len(side) :]
            if name.casefold().endswith(side):
                yield name[: -len(side)] + _swapped(name[-len(side) :])


def _swapped_words(name: str) -> str | None:
    """The name with its words left and right exchanged; None where it has neither."""
    tokens = TOKEN.findall(name)
    changed = [_swapped(token) if token.casefold() in ("left", "right") else token for token in tokens]
    return "".join(changed) if changed != tokens else None


def _swapped(side: str) -> str:
    other = OTHER[side.casefold()]
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other
