"""Builds the compiled part of resnet_cuda: finds the toolkits, plans, writes a ninja file, runs it.

Used by ``setup.py`` only. It is not torch's ``BuildExtension``, which insists that the CUDA toolkit match the CUDA that
torch was built with: on the stable ABI, with the CUDA runtime linked statically, they need not match.
"""

from build_native.errors import BuildError
from build_native.native import build
from build_native.plan import Plan, make_plan

__all__ = ["BuildError", "Plan", "build", "make_plan"]
