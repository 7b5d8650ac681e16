"""The generated tasks (`snnlearn.datasets.generated`): how they become spikes, on which networks, trained how.

Settings were chosen on the validation split. Steps of 1 ms throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from snnlearn.adaptive import Adaptive, alif
from snnlearn.datasets import Recordings
from snnlearn.datasets import generated as data
from snnlearn.events import EventLIF, EventNetwork
from snnlearn.firstspike import FirstSpikeCrossEntropy
from snnlearn.losses import OverTime
from snnlearn.network import Layer, Network
from snnlearn.neurons import Neuron, cuba_lif, readout
from snnlearn.tasks.base import Task, linear


def soft_cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    """-sum_c target_c * log softmax(out)_c, outputs and targets (B, C) to (B,); 0 where the target is 0 throughout."""
    return -(target * functional.log_softmax(out, 1)).sum(1)


@dataclass(frozen=True, eq=False)
class Asked(OverTime):
    """Cross-entropy at the steps at which an answer is asked, averaged over them; the others cost nothing.

    Make it with `asked`.
    """

    def scores(self, out: Tensor) -> Tensor:
        """Outputs averaged over the steps that ask, (B, C)."""
        assert self.patterns is not None
        if out.dim() != 3 or len(out) != len(self.patterns):
            raise ValueError(f"outputs must have shape ({len(self.patterns)}, B, classes), got {tuple(out.shape)}")
        return self.scale * out[self.patterns.sum((1, 2)) > 0].mean(0)


def asked(steps: int, classes: int, last: int | None = None, scale: float = 1.0) -> Asked:
    """The loss of T = ``steps``, of which the ``last`` ask for the label; all of them if it is not given."""
    last = steps if last is None else last
    patterns = torch.zeros(steps, classes, classes)
    patterns[-last:] = torch.eye(classes) * steps / last
    return Asked(soft_cross_entropy, mean=True, scale=scale, patterns=patterns)


def at_times(shares: Tensor, last: int, steps: int) -> Tensor:
    """One spike of each input at step round(share * last), shares (B, N) of 0..1 to spikes (T, B, N)."""
    when = (shares * last).round().long()
    return functional.one_hot(when, steps).permute(2, 0, 1).to(shares.dtype)


def _with_start(x: Tensor) -> Tensor:
    """Shares with one more input, which always fires at the start and tells the others' times what they are after."""
    return torch.cat([x, torch.zeros_like(x[:, :1])], 1)


def _network(
    sizes: tuple[int, int, int],
    neuron: Neuron | Adaptive,
    scales: tuple[float, float, float],
    tau_out: float,
    generator: torch.Generator,
) -> Network:
    """Inputs, hidden neurons, a leaky readout; weights N(0, scale**2 / fan-in), recurrent ones if their scale is not 0."""
    inputs, hidden, outputs = sizes
    first, back, top = scales
    synapse = linear(inputs, hidden, first / math.sqrt(inputs), generator)
    own = linear(hidden, hidden, back / math.sqrt(hidden), generator) if back else None
    out = linear(hidden, outputs, top / math.sqrt(hidden), generator)
    return Network(Layer(synapse, neuron, own), Layer(out, readout(tau_mem=tau_out)))


SPAN, STEPS = 30, 50  # ms: of the input's spikes where each input has one, and of the run


def yinyang(hidden: int = 100) -> Task:
    """Yin-Yang: four values as spike times in 30 ms and a fifth input at the start; 5-100-3, current-based LIF.

    Args:
        hidden: number of hidden neurons.
    """
    neuron = cuba_lif(tau_mem=20e-3, tau_syn=5e-3)
    network = partial(_network, (5, hidden, 3), neuron, (0.6, 0.0, 0.3), 20e-3)
    return Task(
        "yinyang", data.yin_yang, _encode_yinyang, network, asked(STEPS, 3), epochs=20, batch=64, rate=1e-2
    )  # fmt: skip


def _encode_yinyang(x: Tensor) -> Tensor:
    return at_times(_with_start(x), SPAN, STEPS)


def temporal_xor(hidden: int = 20) -> Task:
    """Temporal XOR: two spikes in 30 ms; 2-20-2, current-based LIF.

    Args:
        hidden: number of hidden neurons.
    """
    neuron = cuba_lif(tau_mem=20e-3, tau_syn=5e-3)
    network = partial(_network, (2, hidden, 2), neuron, (0.6, 0.0, 0.3), 20e-3)
    encode = partial(at_times, last=SPAN, steps=STEPS)
    return Task("temporal-xor", data.temporal_xor, encode, network, asked(STEPS, 2), epochs=20, batch=32, rate=1e-2)


def randman(hidden: int = 100) -> Task:
    """Randman: ten manifolds of dimension 1 in the spike times of 20 inputs in 30 ms; 20-100-10, current-based LIF.

    Args:
        hidden: number of hidden neurons.
    """
    neuron = cuba_lif(tau_mem=20e-3, tau_syn=5e-3)
    network = partial(_network, (20, hidden, 10), neuron, (0.6, 0.0, 0.3), 20e-3)
    encode = partial(at_times, last=SPAN, steps=STEPS)
    return Task("randman", data.randman, encode, network, asked(STEPS, 10), epochs=20, batch=64, rate=1e-2)


def delayed_xor(hidden: int = 32, *, delay: int = 40, recurrent: bool = True) -> Task:
    """Delayed XOR across 40 ms, tau_mem 10 and tau_syn 5 ms: shorter than the delay, so recurrence has to hold the bit.

    Args:
        hidden: number of hidden neurons.
        delay: ms.
        recurrent: whether hidden neurons send to each other; without, it stays at chance.
    """
    steps = delay + 30
    neuron = cuba_lif(tau_mem=10e-3, tau_syn=5e-3)
    network = partial(_network, (10, hidden, 2), neuron, (0.5, 0.3 if recurrent else 0.0, 0.3), 10e-3)
    load = partial(data.delayed_xor, delay=delay)
    return Task(
        "delayed-xor", load, partial(_dense, steps=steps), network, asked(steps, 2, 10), epochs=10, batch=64, rate=2e-3
    )


def _dense(x: Recordings, steps: int) -> Tensor:
    return x.dense(steps)


CUES = {"cue": 15, "gap": 5, "delay": (50, 100), "recall": 20}  # ms


def cue_accumulation(hidden: int = 40) -> Task:
    """Accumulation of evidence, some six times as fast as in the paper: 7 cues in 140 ms, a delay of 50 to 100 ms.

    40-40-2, adaptive LIF without recurrence (tau_mem 20, tau_adapt 200 ms).

    Args:
        hidden: number of hidden neurons.
    """
    steps = 7 * 20 + 100 + 20
    neuron = alif(tau_mem=20e-3, tau_adapt=200e-3, strength=0.3)
    network = partial(_network, (40, hidden, 2), neuron, (2.0, 0.0, 0.3), 20e-3)
    load = partial(data.cue_accumulation, (1000, 300, 500), **CUES)
    loss = asked(steps, 2, 20)
    return Task("cue-accumulation", load, partial(_dense, steps=steps), network, loss, epochs=10, batch=64, rate=1e-2)
