"""CPU time per call, on tensors so small that the GPU's work is negligible."""

from benchmarks import host_time
from benchmarks.gpu.context import Context


def run(context: Context) -> None:
    context.needs_native()
    for item, us in host_time.times(str(context.device)):
        context.write("host time", item=item, cpu_us=round(us, 1))
