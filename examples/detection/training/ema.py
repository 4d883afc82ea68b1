"""The exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of the trained parameters; what is not trained, and buffers, are the model's own.

    Tensors beside the model, where ``torch.optim.swa_utils.AveragedModel`` is a copy of it: a model that FSDP has
    sharded cannot be copied. The decay rises to its value as (1 + n) / (10 + n) of the n-th update, so that the random
    weights of the beginning are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self._live = {name: it for name, it in model.named_parameters() if it.requires_grad}
        self._averages = {name: it.detach().clone() for name, it in self._live.items()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """``number`` counts the updates from 0."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + number) / (10 + number)))
        average([_local(it) for it in self._averages.values()], [_local(it) for it in self._live.values()], number)

    def state_dict(self) -> dict[str, Tensor]:
        """Whole tensors by the parameters' names. Under FSDP every rank must call it."""
        return {name: it.full_tensor() if isinstance(it, DTensor) else it for name, it in self._averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self._averages.items():
            value = state[name].to(average.device)
            if isinstance(average, DTensor):
                value = distribute_tensor(value, average.device_mesh, average.placements, src_data_rank=None)
            average.copy_(value)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
