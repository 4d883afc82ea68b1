"""Numbers in messages."""

from __future__ import annotations


def counted(count: int, singular: str, plural: str = "") -> str:
    """``1 image`` or ``3 images``; ``plural`` where it is more than the singular with an s."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
