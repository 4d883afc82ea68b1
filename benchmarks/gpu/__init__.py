"""What is measured on a GPU, in phases, each below its own deadline; see ``benchmarks/README.md``."""
