"""The report of a load, by key and as a short table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """The result of :func:`resnet_cuda.load_weights`; printed, a short table.

    Attributes:
        source: a label of the source, for messages.
        format: "torchvision", "maskrcnn-benchmark", "detectron2", "mmdetection" or "caffe2".
        loaded: the model's keys that were written.
        missing: the model's keys without a counterpart in the source; they are unchanged.
        unexpected: the source's keys without a counterpart in the model.
        reshaped: the model's keys whose tensors were changed to fit, such as a stem for other input channels.
        ignored: the source's keys that no model of this kind needs: the classifier, stages that the model does not
            have, other parts of a detector of another library. (``num_batches_tracked`` is not listed.)
        new_offsets: of ``missing``, the offset layers of deformable convolutions that got a plain convolution's weight.
        notes: assumptions about the source, and conversions: colour order, pixel scale, stride, epsilon.
    """

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    new_offsets: list[str] = field(default_factory=list)

    @property
    def missing_keys(self) -> list[str]:
        """As in the result of torch's load_state_dict."""
        return self.missing

    @property
    def unexpected_keys(self) -> list[str]:
        """As in the result of torch's load_state_dict."""
        return self.unexpected

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.format})"]
        for kind in ("loaded", "missing", "unexpected", "reshaped", "ignored"):
            keys = getattr(self, kind)
            if keys or kind == "loaded":
                lines.append(f"  {kind:10} {len(keys):4}  {summary(keys)}".rstrip())
            if kind == "missing" and self.new_offsets:
                number = "all" if len(self.new_offsets) == len(keys) else f"{len(self.new_offsets)} of them"
                lines[-1] += f" ({number} of offset layers, which a plain network does not have)"
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def summary(keys: list[str], most: int = 4) -> str:
    """Keys in a line: all if they are few, else their number in each part."""
    if len(keys) <= most:
        return ", ".join(keys)
    parts: Counter[str] = Counter()
    for key in keys:
        names = key.split(".")
        parts[".".join(names[: max(1, min(2, len(names) - 1))])] += 1
    shown = [f"{part} {count}" if count > 1 else part for part, count in parts.most_common(most + 1)]
    return ", ".join(shown[:most]) + (", ..." if len(parts) > most else "")
