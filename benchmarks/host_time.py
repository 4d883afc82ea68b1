"""Microseconds of CPU time per call, on tensors so small that the device's work is negligible.

``python -m benchmarks.host_time [--device cuda]``. Ours, torchvision's operator and the eager operations of FrozenBN. A
network with short kernels is limited by this time in eager mode; a CUDA graph avoids it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d
from resnet_cuda.ops import deform_conv2d

CALLS, ROUNDS = 100, 7


def measure(call: Callable[[], object], wait: Callable[[], None]) -> float:
    """The median over ROUNDS of CALLS calls each. Too few to fill a GPU's launch queue, which would block."""
    for _ in range(20):
        call()
    rounds = []
    for _ in range(ROUNDS):
        wait()
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append((time.perf_counter() - begin) / CALLS * 1e6)
    wait()
    return statistics.median(rounds)


def calls(device: str) -> dict[str, Callable[[], object]]:
    options = {"device": device, "requires_grad": True}
    input, weight = torch.randn(1, 8, 4, 4, **options), torch.randn(8, 8, 3, 3, **options)
    offset, mask = torch.randn(1, 18, 4, 4, **options), torch.rand(1, 9, 4, 4, **options)
    norm = FrozenBatchNorm2d(8).to(device)
    grad = torch.randn(1, 8, 4, 4, device=device)
    plain = {"ours": lambda: deform_conv2d(input, offset, weight, None, 1, 1, 1, mask)}
    norms = {
        "FrozenBN + ReLU": lambda: norm(input, relu=True),
        "eager FrozenBN + ReLU": lambda: eager_norm(norm, input),
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

    result = {}
    for name, call in plain.items():
        result[f"deform_conv2d, {name}, forward without gradient"] = without_gradient(call)
        result[f"deform_conv2d, {name}, forward"] = call
        result[f"deform_conv2d, {name}, backward"] = backward_of(call, input, offset, weight, mask)
    for name, call in norms.items():
        result[f"{name}, forward without gradient"] = without_gradient(call)
        result[f"{name}, forward"] = call
        result[f"{name}, backward"] = backward_of(call, input)
    return result


def eager_norm(norm: nn.Module, input: torch.Tensor) -> torch.Tensor:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return (input * scale[:, None, None] + shift[:, None, None]).relu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = parser.parse_args().device
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    torch.set_num_threads(1)
    for name, call in calls(device).items():
        print(f"{name:55} {measure(call, wait):8.1f} us")


if __name__ == "__main__":
    main()
