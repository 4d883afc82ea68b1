"""Microseconds of CPU time per call, on tensors so small that the device's work is negligible.

``python -m benchmarks.host_time [--device cuda]``. Ours, torchvision's operator, the eager operations of FrozenBN, and
ReLU, the cheapest operator with a backward. A network with short kernels is limited by this time in eager mode; a CUDA
graph avoids it.

"backward" is a call of ``torch.autograd.grad`` for one operator. Most of that is the call itself, as ReLU's shows. In a
network the engine is entered once for all operators: "backward in a chain" is the time of each of CHAIN in a row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d
from resnet_cuda.ops import deform_conv2d

CALLS, ROUNDS = 100, 7
CHAIN = 50  # as many norms as ResNet-50 has, nearly


def measure(call: Callable[[], object], wait: Callable[[], None], operators: int = 1) -> float:
    """Microseconds of each of the ``operators`` that ``call`` runs: the median over ROUNDS of CALLS of them.

    CALLS are too few to fill a GPU's launch queue, which would block.
    """
    count = CALLS // operators
    for _ in range(count):
        call()
    rounds = []
    for _ in range(ROUNDS):
        wait()
        begin = time.perf_counter()
        for _ in range(count):
            call()
        rounds.append((time.perf_counter() - begin) / (count * operators) * 1e6)
    wait()
    return statistics.median(rounds)


def calls(device: str) -> dict[str, tuple[Callable[[], object], int]]:
    """What is measured: a name, a call, and the number of operators in it."""
    options = {"device": device, "requires_grad": True}
    input, weight = torch.randn(1, 8, 4, 4, **options), torch.randn(8, 8, 3, 3, **options)
    offset, mask = torch.randn(1, 18, 4, 4, **options), torch.rand(1, 9, 4, 4, **options)
    norm = FrozenBatchNorm2d(8).to(device)
    grad = torch.randn(1, 8, 4, 4, device=device)
    plain = {"ours": lambda: deform_conv2d(input, offset, weight, None, 1, 1, 1, mask)}
    norms = {
        "FrozenBN + ReLU": lambda x: norm(x, relu=True),
        "eager FrozenBN + ReLU": lambda x: eager_norm(norm, x),
        "ReLU": torch.relu,
    }
    try:
        from torchvision.ops import deform_conv2d as peer
    except ImportError:
        pass
    else:
        plain["torchvision"] = lambda: peer(input, offset, weight, None, 1, 1, 1, mask)

    def without_gradient(call):
        def run():
            with torch.no_grad():
                call()

        return run

    def backward_of(call, *inputs):
        output = call()
        return lambda: torch.autograd.grad(output, inputs, grad, retain_graph=True)

    def chained(function):
        output = input
        for _ in range(CHAIN):
            output = function(output)
        return output

    result = {}
    for name, call in plain.items():
        result[f"deform_conv2d, {name}, forward without gradient"] = without_gradient(call), 1
        result[f"deform_conv2d, {name}, forward"] = call, 1
        result[f"deform_conv2d, {name}, backward"] = backward_of(call, input, offset, weight, mask), 1
    for name, function in norms.items():
        call = partial(function, input)
        result[f"{name}, forward without gradient"] = without_gradient(call), 1
        result[f"{name}, forward"] = call, 1
        result[f"{name}, backward"] = backward_of(call, input), 1
        result[f"{name}, backward in a chain"] = backward_of(partial(chained, function), input), CHAIN
    return result


def eager_norm(norm: nn.Module, input: torch.Tensor) -> torch.Tensor:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return (input * scale[:, None, None] + shift[:, None, None]).relu()


def times(device: str) -> Iterator[tuple[str, float]]:
    """Name and microseconds of everything that is measured, each as soon as it is known."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for name, (call, operators) in calls(device).items():
        yield name, measure(call, wait, operators)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    for name, us in times(parser.parse_args().device):
        print(f"{name:55} {us:8.1f} us")


if __name__ == "__main__":
    main()
