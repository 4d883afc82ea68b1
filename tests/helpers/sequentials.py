"""Sequentials that do more than run their modules in order."""

from __future__ import annotations

from torch import nn


class Doubles(nn.Sequential):
    def forward(self, input):
        return super().forward(input) * 2


class DoublesAround(nn.Sequential):
    def __call__(self, input):
        return super().__call__(input) * 2
