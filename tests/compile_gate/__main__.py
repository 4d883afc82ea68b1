"""``PYTHONPATH=tests python -m compile_gate``: the table of all kernels, on any machine with nvcc."""

from compile_gate.report import main

main()
