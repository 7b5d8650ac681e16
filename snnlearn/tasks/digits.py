"""Handwritten digits, in the forms that the rules need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from snnlearn import datasets, encoding
from snnlearn.filters import Exponentials
from snnlearn.firstspike import digits_loss, digits_network, on_off_times
from snnlearn.losses import CrossEntropy, OverTime, cross_entropy, mean_over_time, van_rossum
from snnlearn.network import Layer, Network, decolle_layer
from snnlearn.neurons import Neuron, Threshold, cuba_lif, readout
from snnlearn.resets import to_zero
from snnlearn.tasks.base import Task, linear


def digits(steps: int = 50, hidden: int = 128) -> Task:
    """Handwritten digits as spike latencies: a bright pixel fires early, and so does a dark one on its own channel.

    128 inputs (ON and OFF), a hidden layer of current-based LIF (tau_mem 20 ms, tau_syn 10 ms), a leaky readout whose
    mean over time is the score. Inputs are scaled by 1 - beta, so that a membrane settles where its current is.

    Args:
        steps: T, of 1 ms.
        hidden: number of hidden neurons.
    """
    inputs, classes = 128, 10

    def encode(x: Tensor) -> Tensor:
        return encoding.latency(encoding.on_off(x), steps)

    hidden_neuron = cuba_lif(tau_mem=20e-3, tau_syn=10e-3)
    output_neuron = readout(tau_mem=20e-3, tau_syn=5e-3)
    gain = 1 - math.exp(-1e-3 / 20e-3)

    def network(generator: torch.Generator) -> Network:
        # 6/sqrt(N) is large: one spike an input is so little that smaller weights leave most of the layer silent
        first = linear(inputs, hidden, 6 / math.sqrt(inputs), generator)
        second = linear(hidden, classes, 1 / math.sqrt(hidden), generator)
        return Network(Layer(first, hidden_neuron, gain=gain), Layer(second, output_neuron, gain=gain))

    loss = CrossEntropy(over=mean_over_time, scale=5.0)
    return Task("digits", datasets.digits, encode, network, loss, epochs=20, batch=64, rate=1e-2)


def digits_online(steps: int = 50, hidden: int = 64) -> Task:
    """Digits with a loss that is a mean over steps, as rules forward in time need it; fewer passes, larger steps."""
    loss = OverTime(cross_entropy, mean=True, scale=5.0)
    return replace(digits(steps, hidden), loss=loss, epochs=10, rate=2e-2)


def digits_patterns(steps: int = 5, hidden: int = 128) -> Task:
    """Digits as TSSL-BP's authors train images: pixels as currents that stay on, few steps, a spike pattern a class.

    Neurons are reset to zero, tau_m = 5 and tau_s = 3 steps; the label's output shall fire at every step but the first.

    Args:
        steps: T.
        hidden: number of hidden neurons.
    """
    inputs, classes, tau_m, tau_s = 128, 10, 5.0, 3.0

    def encode(x: Tensor) -> Tensor:
        both = encoding.on_off(x).flatten(1)
        return both.expand(steps, *both.shape)

    neuron = Neuron(1 - 1 / tau_s, 1 - 1 / tau_m, 1.0, to_zero, Threshold(strict=True))

    def network(generator: torch.Generator) -> Network:
        first = linear(inputs, hidden, 1.5 / math.sqrt(inputs), generator)
        second = linear(hidden, classes, 0.5 / math.sqrt(hidden), generator)
        return Network(*(Layer(synapse, neuron, gain=1 / tau_s) for synapse in (first, second)))

    patterns = torch.zeros(steps, classes, classes)
    patterns[1:] = torch.eye(classes)
    loss = van_rossum(Exponentials.postsynaptic(tau_s), mean=True, patterns=patterns)
    return Task("digits", datasets.digits, encode, network, loss, epochs=20, batch=64, rate=1e-2)


def digits_trains(steps: int = 50, hidden: int = 64) -> Task:
    """Digits for a rule that teaches spike trains: the label's output shall fire every 5 ms, the others be silent.

    As `digits`, with a spiking layer on top and the van Rossum distance for a loss; the score is the number of spikes.

    Args:
        steps, hidden: as `digits`.
    """
    base, classes = digits(steps, hidden), 10
    output_neuron, gain = cuba_lif(tau_mem=20e-3, tau_syn=5e-3), 1 - math.exp(-1e-3 / 20e-3)

    def network(generator: torch.Generator) -> Network:
        first = base.network(generator).layers[0]
        assert isinstance(first, Layer)
        second = linear(hidden, classes, 4 / math.sqrt(hidden), generator)
        return Network(first, Layer(second, output_neuron, gain=gain))

    patterns = torch.zeros(steps, classes, classes)
    patterns[10::5] = torch.eye(classes)
    return replace(base, network=network, loss=van_rossum(mean=True, patterns=patterns), epochs=10, rate=2e-2)


def digits_decolle(steps: int = 50, hidden: int = 64) -> Task:
    """Digits on DECOLLE's layer, with a readout on top of it; a loss that is a mean over steps.

    Args:
        steps, hidden: as `digits`.
    """
    base = digits_online(steps, hidden)

    def network(generator: torch.Generator) -> Network:
        first: nn.Linear = nn.utils.skip_init(nn.Linear, 128, hidden)
        nn.init.normal_(first.weight, std=4 / math.sqrt(128), generator=generator)
        nn.init.zeros_(first.bias)
        top = base.network(generator).layers[-1]
        assert isinstance(top, Layer)
        return Network(decolle_layer(first, tau_mem=20e-3, tau_syn=10e-3), top)

    return replace(base, network=network, loss=OverTime(cross_entropy, mean=True, scale=15.0), rate=3e-2)


def digits_events() -> Task:
    """Digits in continuous time: a spike for each pixel and its negative, and the first output to fire is the answer.

    128 hidden neurons; see `snnlearn.firstspike`.
    """
    return Task("digits", datasets.digits, on_off_times, digits_network, digits_loss(), epochs=15, batch=64, rate=1e-2)


# Rules that need other neurons or another loss than the task's own.
SUITED: dict[str, Callable[[], Task]] = {
    "rtrl": partial(digits_online, steps=20, hidden=8),
    "eprop": digits_online,
    "ottt": digits_online,
    "superspike": digits_trains,
    "tssl_bp": digits_patterns,
    "eventprop": digits_events,
    "decolle": digits_decolle,
}
