#!/usr/bin/env bash
# One GPU run: build, first calls, tests, compute-sanitizer, ncu and the phases, each below its own deadline, tables last.
#
#   OUT=folder bash benchmarks/gpu_run.sh --half 1 [options of python -m benchmarks.gpu, see --help]
#   OUT=folder bash benchmarks/gpu_run.sh --half 2
#
# Everything that comes of it lies in $OUT (default benchmarks/results), a few small files. Exit status 0: all went well;
# 1: some step did not; 3: build, import or first call failed, and the run ended there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${OUT:=$root/benchmarks/results}"
OUT=$(cd "$OUT" && pwd)
export OUT
cd "$root"
# The program ends itself; this is behind all of its own deadlines.
exec timeout --signal=TERM --kill-after=10 "${LIMIT:-900}" "${PYTHON:-python3}" -m benchmarks.gpu "$@"
