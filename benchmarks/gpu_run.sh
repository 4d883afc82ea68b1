#!/usr/bin/env bash
# One GPU run: build, first calls, tests, compute-sanitizer, ncu, measurements, each with a deadline; tables last.
#   OUT=folder bash benchmarks/gpu_run.sh --half 1 [options of python -m benchmarks.gpu, see --help]
# Results are a few small files in $OUT (default benchmarks/results). Exit status 0: every step succeeded; 1: a step
# failed; 3: build, import or a first call failed, and the run ended there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${OUT:=$root/benchmarks/results}"
OUT=$(cd "$OUT" && pwd)
export OUT
cd "$root"
# The program ends itself; this is behind all of its own deadlines.
exec timeout --signal=TERM --kill-after=10 "${LIMIT:-900}" "${PYTHON:-python3}" -m benchmarks.gpu "$@"
