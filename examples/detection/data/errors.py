"""What is raised, or counted, for data that cannot be used."""

from __future__ import annotations

# What is done about it: "refuse" raises, "skip" warns and leaves it out.
DAMAGED = ("refuse", "skip")


class DamagedSampleError(ValueError):
    """An image or an annotation that cannot be used; the message names the file, and the annotation if it is one."""


class SampleError(RuntimeError):
    """The own code of a data set class failed; its cause is what it raised, with the traceback.

    No ValueError, so that it is not shown as a mistake in what the user typed.
    """
