"""Converts other libraries' modules in place to run this package's operators; parameters and names do not change."""

from resnet_cuda.acceleration.accelerate import Acceleration, accelerate, restore

__all__ = ["Acceleration", "accelerate", "restore"]
