"""Other libraries' modules made to run this package's operators in place, with their parameters and names."""

from resnet_cuda.acceleration.accelerate import Acceleration, accelerate, restore

__all__ = ["Acceleration", "accelerate", "restore"]
