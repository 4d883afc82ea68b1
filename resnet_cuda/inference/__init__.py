"""Networks made ready for inference: norms folded into convolutions, ReLU and residual sums in their epilogues."""

from resnet_cuda.inference.optimize import optimize_for_inference
from resnet_cuda.inference.report import OptimizationReport

__all__ = ["OptimizationReport", "optimize_for_inference"]
