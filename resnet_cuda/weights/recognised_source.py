"""A source of weights whose format is recognised: tensors by neutral name, epsilon of each norm, pixels, stride."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from resnet_cuda.weights.checkpoint import Checkpoint, UnknownKeysError, recognise
from resnet_cuda.weights.conventions import PIXELS
from resnet_cuda.weights.formats import CAFFE2
from resnet_cuda.weights.report import LoadReport
from resnet_cuda.weights.target import Target
from resnet_cuda.weights.unwrap import conventions_of, unwrap


class Source:
    """A recognised checkpoint, its model if there is one, and the epsilon given by the caller.

    Attributes:
        checkpoint: names and tensors.
        target: the model, if there is one.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: nn.Module | None,
        eps: float | None,
        conventions: Mapping[str, Any] | None = None,
    ):
        self.checkpoint = checkpoint
        self._noted = {} if model is not None else dict(conventions or {})
        self.target = None if model is None else Target(model, checkpoint)
        self._eps = eps
        # Caffe2's norms with statistics are those of detectron2's files, which are not folded.
        self._folded = _complete_folded_norms(checkpoint) if checkpoint.format is CAFFE2 else set()

    @classmethod
    def of(
        cls,
        content: Mapping[str, Any],
        label: str,
        where: str,
        model: nn.Module | None,
        eps: float | None,
        like: Checkpoint | None = None,
    ) -> tuple[Source, LoadReport]:
        """The source in ``content``, read from ``label``, and a report that lists the entries that are no tensors.

        Args:
            where: the caller, for messages.
            model: the model that the content is from.
            eps: epsilon of its batch norms, if the caller knows it.
            like: see :func:`recognise`.

        Raises:
            ValueError: if there are no tensors, or no format has their names.
        """
        tensors, others, notes = unwrap(content, label)
        prefer = None if model is None else Target.of(model, f"{where}: source").checkpoint.format
        try:
            checkpoint = recognise(tensors, like=like, prefer=prefer)
        except UnknownKeysError as error:
            raise ValueError(f"{label}: {error}") from None
        report = LoadReport(label, checkpoint.format.name, ignored=others, notes=notes)
        return cls(checkpoint, model, eps, conventions_of(content)), report

    def eps(self, norm: str) -> float:
        """The epsilon of the norm with this neutral name."""
        if self._eps is not None:
            return float(self._eps)
        if self.target is not None:
            return self.target.eps(norm)
        it = self.checkpoint.format
        if it is CAFFE2:
            return 0.0 if norm in self._folded else 1e-5
        return 0.0 if self._is_published_version_1() else it.eps

    def assumed_eps(self) -> str | None:
        """The assumed epsilon and the reason; None if it is known or there is no batch norm."""
        known = self._eps is not None or self.target is not None
        norms = [name.rpartition(".")[0] for name in self.checkpoint.tensors if name.endswith(".running_var")]
        if known or not norms or norms[0] in self._folded:
            return None
        eps, name = self.eps(norms[0]), self.checkpoint.format.name
        if self._is_published_version_1():
            return (
                "epsilon 0, as torchvision gives its published detectors (keys of version 1); pass eps=1e-5 for one "
                "that you trained with torchvision before 0.13"
            )
        others = [it.name for it in self.checkpoint.alike if it.eps != eps]
        if others:
            return f"epsilon {eps:g}, that of {name}; the names fit {', '.join(others)}, too: pass eps= if it is not so"
        return f"epsilon {eps:g}, that of {name}; eps= says otherwise"

    def _is_published_version_1(self) -> bool:
        """Whether it is one of torchvision's detectors of version 1, to whose norms torchvision gives epsilon 0
        (``overwrite_eps``, not for FCOS): their pyramids' keys have no ``.0``."""
        checkpoint = self.checkpoint
        key = checkpoint.keys.get(f"fpn.inner{checkpoint.context.first_level}.conv.weight", "")
        is_old = re.search(r"inner_blocks\.\d\.weight$", key) is not None
        return is_old and not any("bbox_ctrness" in name for name in checkpoint.foreign)

    @property
    def pixels(self) -> str:
        """A name in ``PIXELS``: the one noted by convert, or the one of most weights of the format."""
        return self._noted["pixels"] if self.says("pixels") else self.checkpoint.format.pixels

    def says(self, convention: str) -> bool:
        """Whether the file tells ``convention``, "pixels" or "stride_in_1x1", if only what convert has assumed."""
        value = self._noted.get(convention)
        return isinstance(value, bool) if convention == "stride_in_1x1" else isinstance(value, str) and value in PIXELS

    def knows(self, convention: str) -> bool:
        """Whether the file or the model tells ``convention`` as a fact; else it is that of most files of its kind."""
        if convention == "stride_in_1x1" and self.target is not None:
            return True
        assumed = self._noted.get("assumed", ())
        return self.says(convention) and not (isinstance(assumed, (list, tuple)) and convention in assumed)

    def stride_in_1x1(self) -> bool | None:
        """Where the bottlenecks stride, see :meth:`knows`; None if files of its kind differ."""
        if self.target is not None:
            return self.target.stride_in_1x1()
        if self.says("stride_in_1x1"):
            return self._noted["stride_in_1x1"]
        formats = [self.checkpoint.format]
        if "classifier" not in self.checkpoint.components:  # a torchvision classifier's is mmdetection's as well
            formats += self.checkpoint.alike
        places = {it.stride_in_1x1 for it in formats}
        return places.pop() if len(places) == 1 else None


def _complete_folded_norms(checkpoint: Checkpoint) -> set[str]:
    """Adds mean 0 and variance 1 where a batch norm has only scale and shift; their neutral names."""
    tensors = checkpoint.tensors
    folded = set()
    for name in list(tensors):
        norm, _, leaf = name.rpartition(".")
        if leaf == "weight" and ".norm" in norm and f"{norm}.running_var" not in tensors:
            folded.add(norm)
            for statistic, value in (("running_mean", 0.0), ("running_var", 1.0)):
                tensors[f"{norm}.{statistic}"] = torch.full_like(tensors[name], value)
                checkpoint.keys[f"{norm}.{statistic}"] = f"{checkpoint.keys[name]} ({statistic})"
    return folded
