"""Weights of other libraries: where they come from, how their names translate, and how a model takes them."""

from resnet_cuda.weights.load import load_weights
from resnet_cuda.weights.pretrained import load_pretrained
from resnet_cuda.weights.report import LoadReport

__all__ = ["LoadReport", "load_pretrained", "load_weights"]
