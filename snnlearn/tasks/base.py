"""What a task is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from snnlearn.datasets import Dataset
from snnlearn.events import EventNetwork
from snnlearn.network import Network


class Loss(Protocol):
    """A loss that classifies."""

    def __call__(self, out: Any, y: Tensor, /) -> Tensor:
        """The loss of outputs for labels y (B,)."""

    def scores(self, out: Any, /) -> Tensor:
        """A score a class, (B, C)."""


@dataclass(frozen=True)
class Task:
    """What `snnlearn.training.train` needs to know.

    Args:
        name: as on the command line.
        load: the data.
        encode: samples (B, *features) to inputs (T, B, *inputs).
        network: a new network, its weights drawn from the generator.
        loss: a loss with scores.
        epochs, batch, rate: passes over the data, samples a step, Adam's first learning rate (it falls to 0 as a
            cosine).
        decay: of the weights, a step and unit of the rate (AdamW); feedback that learns needs some.
        augment: samples and a generator to samples that are as good, drawn anew for every batch of the training; None
            for none.
    """

    name: str
    load: Callable[[], Dataset]
    encode: Callable[[Any], Any]
    network: Callable[[torch.Generator], Network | EventNetwork]
    loss: Loss
    epochs: int
    batch: int
    rate: float
    decay: float = 0.0
    augment: Callable[[Any, torch.Generator], Any] | None = None


def linear(inputs: int, outputs: int, std: float, generator: torch.Generator) -> nn.Linear:
    """A Linear without bias whose weights are drawn from N(0, std**2) by the generator, and from nothing else."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std, generator=generator)
    return layer
