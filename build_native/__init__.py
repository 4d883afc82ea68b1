"""Builds the compiled part of resnet_cuda: finds the toolkits, plans, writes a ninja file, runs it.

Used by ``setup.py`` only. torch's ``BuildExtension`` requires that the CUDA toolkit match the CUDA that torch was built
with. With the stable ABI and a statically linked CUDA runtime they need not match, so it is not used.
"""

from build_native.errors import BuildError
from build_native.native import build
from build_native.plan import Plan, make_plan

__all__ = ["BuildError", "Plan", "build", "make_plan"]
