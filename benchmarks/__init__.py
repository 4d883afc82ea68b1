"""Benchmarks of resnet_cuda beside its peers: ``python -m benchmarks --help``."""
