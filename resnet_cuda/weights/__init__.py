"""Weights of other libraries: where they come from, how their names translate, and how a model takes them."""

from resnet_cuda.weights.classification import load_classification_weights, state_dict_of

__all__ = ["load_classification_weights", "state_dict_of"]
