"""Weights of other libraries: finding and reading files, translating names, and loading into a model."""

from resnet_cuda.weights.load import load_weights
from resnet_cuda.weights.pretrained import load_pretrained
from resnet_cuda.weights.report import LoadReport

__all__ = ["LoadReport", "load_pretrained", "load_weights"]
