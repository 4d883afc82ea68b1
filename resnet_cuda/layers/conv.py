"""Plain convolution [maskrcnn_benchmark.layers.Conv2d].

It is ``torch.nn.Conv2d`` itself, so that torch.fx, quantization and other tools recognise it. maskrcnn-benchmark's
class added support for empty batches, which torch's has had since 1.5.
"""

from torch.nn import Conv2d

__all__ = ["Conv2d"]
