"""The report of what optimize_for_inference did to a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_SHOWN = 8


@dataclass
class OptimizationReport:
    """Lists modules by their names in the original model. ``str()`` is a short table."""

    folded: list[str] = field(default_factory=list)  #: norms that are in their convolution's weights now
    fused: list[str] = field(default_factory=list)  #: blocks, stems, stages and pyramids with a forward of this package
    convolutions: list[str] = field(default_factory=list)  #: that run prepacked, with or without a norm in them
    left: dict[str, str] = field(default_factory=dict)  #: norms that stay as they are, and why

    def __str__(self) -> str:
        lines = [
            f"norms folded      {len(self.folded)}",
            f"blocks fused      {len(self.fused)}",
            f"convolutions      {len(self.convolutions)}",
            f"norms left alone  {len(self.left)}",
        ]
        return "\n".join(lines + [f"  {line}" for line in self.reasons()])

    def reasons(self) -> list[str]:
        """One line per reason why norms stay, with their number and some of their names."""
        counts = Counter(self.left.values())
        lines = []
        for reason, count in counts.most_common(_SHOWN):
            names = [name for name, why in self.left.items() if why == reason]
            more = f", ... ({count} in all)" if count > 2 else ""
            lines.append(f"{', '.join(names[:2])}{more}: {reason}")
        if len(counts) > _SHOWN:
            lines.append(f"and {len(counts) - _SHOWN} further reasons, in .left")
        return lines
