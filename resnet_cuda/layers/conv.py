"""Plain convolution [maskrcnn_benchmark.layers.Conv2d]."""

from torch import nn


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` under maskrcnn-benchmark's name. Theirs added empty batches, which torch's now takes."""
