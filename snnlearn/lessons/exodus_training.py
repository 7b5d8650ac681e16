"""The experiment of EXODUS Fig. 2, made small: a deep network of integrate-and-fire neurons that reads digits."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlearn import datasets, encoding
from snnlearn.losses import CrossEntropy, accuracy, sum_over_time
from snnlearn.network import Layer, Network
from snnlearn.neurons import iaf
from snnlearn.rule import Rule

STEPS = 20
SIZES = (128, 64, 64, 64, 10)
loss = CrossEntropy(over=sum_over_time)
"""The cross-entropy of the output neurons' spike counts."""

data = functools.cache(datasets.digits)


def network(seed: int = 0) -> Network:
    """Four layers of neurons that do not leak, theta = 1, weights uniform within +-2 / sqrt(inputs).

    In double precision: in single the rounding of other machines changes accuracies by some percent.
    """
    draw = torch.Generator().manual_seed(seed)
    layers = []
    for below, above in itertools.pairwise(SIZES):
        synapse: nn.Linear = nn.utils.skip_init(nn.Linear, below, above, bias=False, dtype=torch.float64)
        reach = 2 / math.sqrt(below)
        nn.init.uniform_(synapse.weight, -reach, reach, generator=draw)
        layers.append(Layer(synapse, iaf()))
    return Network(*layers)


def inputs(x: Tensor, draw: torch.Generator) -> Tensor:
    """Images (B, 64), 0..1, to spikes (STEPS, B, 128): in each step one with probability 0.3 times ON or OFF value."""
    p = 0.3 * encoding.on_off(x.double())
    return (torch.rand((STEPS, *p.shape), generator=draw, dtype=p.dtype) < p).to(p.dtype)


def learn(
    rule: Rule,
    optimizer: Callable[..., torch.optim.Optimizer],
    rate: float,
    *,
    epochs: int = 3,
    seed: int = 0,
) -> list[float]:
    """Train `network` on the training images in batches of 64.

    Args:
        rule: how the gradient is taken.
        optimizer, rate: such as torch.optim.SGD and its learning rate.
        epochs: passes over the images.
        seed: of the weights, the order of the images and their spikes.

    Returns:
        The share of validation images read rightly, after each pass.
    """
    net, draw = network(seed), torch.Generator().manual_seed(seed + 1)
    train, validation = data().train, data().validation
    seen = inputs(validation.x, torch.Generator().manual_seed(99))
    method, shares = optimizer(net.parameters(), lr=rate), []
    for _ in range(epochs):
        for chosen in torch.randperm(len(train), generator=draw).split(64):
            method.zero_grad()
            rule.backward(net, inputs(train.x[chosen], draw), train.y[chosen], loss)
            method.step()
        with torch.no_grad():
            shares.append(accuracy(loss.scores(net(seen, rule)[-1].s), validation.y))
    return shares


def gradients(rule: Rule, *, samples: int = 64, seed: int = 0) -> list[Tensor]:
    """The gradient of each weight matrix of the untrained `network`, the lowest first."""
    net, train = network(seed), data().train
    x = inputs(train.x[:samples], torch.Generator().manual_seed(seed + 1))
    return list(rule.gradients(net, x, train.y[:samples], loss)[1].values())


def activity(rule: Rule, *, samples: int = 64, seed: int = 0) -> list[float]:
    """Spikes per neuron and step in each layer of the untrained `network`."""
    with torch.no_grad():
        x = inputs(data().train.x[:samples], torch.Generator().manual_seed(seed + 1))
        return [trace.s.mean().item() for trace in network(seed)(x, rule)]
