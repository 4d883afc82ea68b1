"""Plain convolution [maskrcnn_benchmark.layers.Conv2d].

It is ``torch.nn.Conv2d`` itself: maskrcnn-benchmark's class added empty batches, which torch's takes since 1.5. So
torch.fx, quantization and every other tool that looks for torch's class find it.
"""

from torch.nn import Conv2d

__all__ = ["Conv2d"]
