"""What each of two processes does in test_ddp.py: ``python -m helpers.ddp_ranks SCENARIO RANK FILE`` prints JSON."""

from __future__ import annotations

import copy
import functools
import json
import sys

import torch
import torch.distributed as dist
from helpers.networks import assert_equal, frozen_norms, gradients, loss_of, randomise, torchvision_style
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint


def images(seed: int = 3) -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def digest(tensors) -> list[float]:
    return [float(tensor.double().sum()) for tensor in tensors]


def level_sums(network) -> list[float]:
    with torch.no_grad():
        return digest(network(images()).values())


def buffers_broadcast_in_forward(rank: int) -> list[float]:
    """Rank 1 begins with other statistics; DDP's broadcast in forward must be what both ranks compute with."""
    network = torchvision_style()
    wrapped = DistributedDataParallel(network)
    level_sums(wrapped)
    if rank == 0:  # behind the version counter and the module alike
        for norm in frozen_norms(network).values():
            norm.running_mean.data.add_(0.25)
    wrapped.train()
    loss_of(wrapped(images())).backward()
    gradients(network)
    return level_sums(wrapped)


def written_by_collectives(rank: int) -> list[float]:
    network = randomise(torchvision_style(dcn=False), seed=10 + rank)
    level_sums(network)
    for name, buffer in network.named_buffers():
        if "bias" in name:
            dist.broadcast(buffer, 0)
        else:
            dist.all_reduce(buffer)
            buffer.data.div_(2)
    return level_sums(network)


def checkpointed_gradients(rank: int) -> list[float]:
    """DDP's averaged gradients with and without checkpointing: differences, and their sums."""
    found = []
    for recompute in (False, True):
        network = torchvision_style()
        if recompute:
            for stage in (network.body.layer2, network.body.layer3):
                for block in stage:
                    block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        wrapped = DistributedDataParallel(network)
        loss_of(wrapped(images(seed=rank))).backward()
        found.append(gradients(network))
    plain, again = found
    assert_equal(again, plain)
    return digest(plain.values())


def average_of_weights(rank: int) -> list[float]:
    """An exponential moving average kept as every trainer keeps it."""
    network = torchvision_style()
    average = copy.deepcopy(network)
    level_sums(average)
    other = randomise(torchvision_style(), seed=7)
    state = other.state_dict()
    for key, value in average.state_dict().items():
        value.data.mul_(0.5).add_(0.5 * state[key].data)
    expected = copy.deepcopy(network)
    expected.load_state_dict({key: 0.5 * value + 0.5 * state[key] for key, value in network.state_dict().items()})
    torch.testing.assert_close(level_sums(average), level_sums(expected))
    return level_sums(average)


SCENARIOS = {
    it.__name__: it
    for it in (buffers_broadcast_in_forward, written_by_collectives, checkpointed_gradients, average_of_weights)
}


def main(scenario: str, rank: str, file: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=int(rank), world_size=2)
    print(json.dumps(SCENARIOS[scenario](int(rank))), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
