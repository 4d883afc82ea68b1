#!/usr/bin/env bash
# One GPU run, inside 550 s: build, tests, compute-sanitizer, phases 1 to 8, each below its own deadline, the summary last.
#
#   OUT=folder bash benchmarks/gpu_run.sh [options of python -m benchmarks.gpu, see --help]
#
# Everything that comes of it lies in $OUT (default benchmarks/results), a few small files.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${OUT:=$root/benchmarks/results}"
OUT=$(cd "$OUT" && pwd)
export OUT
cd "$root"
# Behind the steps' own deadlines. At the signal children are ended and the tables written.
exec timeout --signal=TERM --kill-after=10 550 "${PYTHON:-python3}" -m benchmarks.gpu "$@"
