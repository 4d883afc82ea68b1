"""The images that a detector does worst on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detection.evaluation.matching import OVERLAP, SCORE, Matches, match
from detection.evaluation.records import Record


@dataclass(frozen=True)
class ImageScore:
    """One image's count of ``found`` and ``missed`` objects and ``false`` detections, and what matched what."""

    record: Record
    matches: Matches

    @property
    def found(self) -> int:
        return len(self.matches.pairs)

    @property
    def missed(self) -> int:
        return len(self.matches.missed)

    @property
    def false(self) -> int:
        return len(self.matches.false)

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); 1 where there is nothing and nothing was detected."""
        mistakes = self.missed + self.false
        return 2 * self.found / (2 * self.found + mistakes) if self.found or mistakes else 1.0

    def __str__(self) -> str:
        return f"F1 {self.f1:.2f}: {self.found} found, {self.missed} missed, {self.false} false"


def worst_images(
    records: Iterable[Record], count: int, *, score: float = SCORE, overlap: float = OVERLAP, by: str = "bbox"
) -> list[ImageScore]:
    """At most ``count`` images with mistakes, the lowest F1 first, of equal ones that with more mistakes first.

    An object is found where a detection of its class, with a score of at least ``score``, overlaps it ("bbox" or
    "segm") by at least ``overlap``.
    """
    scores = [ImageScore(record, match(record, score=score, overlap=overlap, by=by)) for record in records]
    wrong = [it for it in scores if it.missed or it.false]
    return sorted(wrong, key=lambda it: (it.f1, -(it.missed + it.false), it.record.index))[:count]
