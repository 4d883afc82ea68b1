"""What an evaluation found: numbers for a machine and for a reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from detection.evaluation.metrics import METRICS
from detection.evaluation.records import Record
from detection.evaluation.results import of_kind, results_of_records

WIDTH = 100  # of the table, in characters
MOST_CLASSES = 100  # in the table; as_dict has all


@dataclass
class Report:
    """COCO's metrics of a data set.

    Attributes:
        metrics: by "bbox", "segm", "keypoints" (those that apply): AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1,
            AR_10, AR_100, in 0..1, and -1 where there are no objects. "keypoints" has AR_20 instead of the other ARs,
            which are -1.
        per_class: by the same, then by class name: AP, AP50, and objects (without crowds).
        images: how many were evaluated.
        skipped_images, skipped_annotations: left out as damaged, neither predicted nor missed.
        dropped_objects: left out because they have no area.
        ignored_regions: places of skipped annotations, where detections of their class count neither as right nor as
            wrong; no objects.
        skipped: why each skipped image was.
        category_ids: the user's, of the labels 1, 2, ...
        records: what was evaluated, image by image; empty without ``keep_results``.
    """

    metrics: dict[str, dict[str, float]]
    per_class: dict[str, dict[str, dict[str, float]]]
    images: int
    skipped_images: int = 0
    skipped_annotations: int = 0
    dropped_objects: int = 0
    ignored_regions: int = 0
    skipped: list[str] = field(default_factory=list)
    category_ids: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list, repr=False)

    @property
    def primary(self) -> str:
        """The kind of metric that the model is for."""
        return next(kind for kind in ("segm", "keypoints", "bbox") if kind in self.metrics)

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO results with the user's image and category ids; empty without ``keep_results``.

        An entry has all of a detection: its box and its mask or keypoints. From such a list pycocotools takes areas
        from the boxes, so that AP by size of masks and keypoints differ: score :meth:`results_of` a kind.
        """
        return results_of_records(self.records, self.category_ids)

    def results_of(self, kind: str) -> list[dict[str, Any]]:
        """COCO results of one of the kinds in ``metrics`` ("bbox", "segm", "keypoints"), with its fields only.

        ``COCO(annotations).loadRes`` of them scores to the numbers in ``metrics``, as far as the JSON is undamaged and
        its areas are given. Empty without ``keep_results``.

        Raises:
            ValueError: for a kind that was not evaluated.
        """
        if kind not in self.metrics:
            raise ValueError(f"kind is {kind!r}; evaluated were {', '.join(map(repr, self.metrics))}")
        return of_kind(self.results, kind)

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file: all numbers, unrounded."""
        names = (
            "metrics",
            "per_class",
            "images",
            "skipped_images",
            "skipped_annotations",
            "dropped_objects",
            "ignored_regions",
            "skipped",
        )
        return {name: getattr(self, name) for name in names}

    def table(self) -> str:
        """The numbers as text, at most 100 columns wide: over all classes, by class (the first 100), what was left out.

        "-" stands where there are no objects, or where COCO defines no such metric.
        """
        return "\n".join([*self._overall(), "", *self._classes(), "", self._counts()])

    def _overall(self) -> list[str]:
        names = [*METRICS, *(["AR_20"] if "keypoints" in self.metrics else [])]
        widths = [max(6, len(name)) + 2 for name in names]
        lines = [" " * 9 + _cells(names, widths)]
        for kind, values in self.metrics.items():
            lines.append(f"{kind:9}" + _cells([_number(values.get(name, -1)) for name in names], widths))
        return lines

    def _classes(self) -> list[str]:
        kinds = list(self.per_class)
        classes = sorted(self.per_class[kinds[0]])
        shown = classes[:MOST_CLASSES]
        heads = [head for kind in kinds for head in (f"{kind} AP", "AP50")]
        widths = [max(6, len(head)) + 2 for head in heads]
        longest = WIDTH - sum(widths) - len("  objects")
        titles = {name: _shortened(name, longest) for name in shown}
        first = max([len("class"), *map(len, titles.values())])
        lines = [f"{'class':{first}}" + _cells(heads, widths) + "  objects"]
        for name in shown:
            values = [_number(self.per_class[kind][name][metric]) for kind in kinds for metric in ("AP", "AP50")]
            objects = self.per_class[kinds[0]][name]["objects"]
            lines.append(f"{titles[name]:{first}}" + _cells(values, widths) + f"{objects:9d}")
        if len(classes) > len(shown):
            lines.append(f"and {len(classes) - len(shown)} more classes")
        return lines

    def _counts(self) -> str:
        left_out = ("skipped_images", "skipped_annotations", "dropped_objects", "ignored_regions")
        counts = [f"{name.replace('_', ' ')}: {getattr(self, name)}" for name in left_out if getattr(self, name)]
        return ", ".join([f"images: {self.images}", *counts])


def _cells(texts: list[str], widths: list[int]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _number(value: float) -> str:
    return "-" if value == -1 else f"{value:.3f}"


def _shortened(name: str, longest: int) -> str:
    name = " ".join(name.split())  # a line break within a name would break the table
    return name if len(name) <= longest else name[: longest - 3] + "..."
