"""The generated tasks (`snnlearn.datasets.generated`): how they become spikes, on which networks, trained how.

Those of Yin-Yang were chosen on the validation split, the others are the first that worked. Steps of 1 ms throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from snnlearn.adaptive import Adaptive, alif
from snnlearn.datasets import Dataset, Recordings
from snnlearn.datasets import generated as data
from snnlearn.events import EventLIF, EventNetwork
from snnlearn.firstspike import FirstSpikeCrossEntropy
from snnlearn.losses import OverTime
from snnlearn.network import Layer, Network
from snnlearn.neurons import Neuron, Threshold, cuba_lif, euler_decay, lif, readout
from snnlearn.resets import to_zero
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
    """Inputs, hidden neurons, a leaky readout; weights N(0, scale**2 / fan-in), recurrent ones if scaled above 0."""
    inputs, hidden, outputs = sizes
    first, back, top = scales
    synapse = linear(inputs, hidden, first / math.sqrt(inputs), generator)
    own = linear(hidden, hidden, back / math.sqrt(hidden), generator) if back else None
    out = linear(hidden, outputs, top / math.sqrt(hidden), generator)
    return Network(Layer(synapse, neuron, own), Layer(out, readout(tau_mem=tau_out)))


SPAN, STEPS = 30, 50  # ms: of the input's spikes where each input has one, and of the run


def _one_spike_each(
    name: str, load: Callable[[], Dataset], sizes: tuple[int, int, int], start: bool, reset_to_zero: bool
) -> Task:
    """A task whose inputs fire once each, within 30 ms of 50, on current-based LIF with a leaky readout."""
    # TSSL-BP's neuron is reset to zero and strict; the gains leave its currents as large as the other's
    other = {"reset": to_zero, "fire": Threshold(strict=True), "decay": euler_decay} if reset_to_zero else {}
    neuron = cuba_lif(tau_mem=20e-3, tau_syn=5e-3, **other)  # type: ignore[arg-type]
    network = partial(_network, sizes, neuron, (3.0 if start else 1.5, 0.0, 0.5), 20e-3)
    encode = partial(_at_times, start=start)
    loss = asked(STEPS, sizes[2], scale=10.0 if start else 3.0)
    return Task(name, load, encode, network, loss, epochs=20, batch=64, rate=1e-2)


def _at_times(x: Tensor, start: bool) -> Tensor:
    return at_times(_with_start(x) if start else x, SPAN, STEPS)


def yinyang(hidden: int = 120, *, reset_to_zero: bool = False) -> Task:
    """Yin-Yang: four values as spike times in 30 ms and a fifth input at the start; 5-120-3, current-based LIF.

    Args:
        hidden: number of hidden neurons.
        reset_to_zero: as TSSL-BP needs it.
    """
    return _one_spike_each("yinyang", data.yin_yang, (5, hidden, 3), True, reset_to_zero)


def temporal_xor(hidden: int = 20, *, reset_to_zero: bool = False) -> Task:
    """Temporal XOR: two spikes in 30 ms; 2-20-2, current-based LIF.

    Args:
        hidden, reset_to_zero: as `yinyang`.
    """
    task = _one_spike_each("temporal-xor", data.temporal_xor, (2, hidden, 2), False, reset_to_zero)
    return replace(task, batch=32)


def randman(hidden: int = 100, *, reset_to_zero: bool = False) -> Task:
    """Randman: ten manifolds of dimension 2 in the spike times of 20 inputs in 30 ms; 20-100-10, current-based LIF.

    Args:
        hidden, reset_to_zero: as `yinyang`.
    """
    load = partial(data.randman, dimension=2)
    return _one_spike_each("randman", load, (20, hidden, 10), False, reset_to_zero)


def _in_time(task: Task, sizes: tuple[int, int, int], start: bool, mean: float = 12.0, spread: float = 4.5) -> Task:
    """The same in continuous time, where the first output to fire is the answer (`snnlearn.events`)."""
    horizon = 60e-3

    def network(generator: torch.Generator) -> EventNetwork:
        layers = []
        for inputs, outputs in itertools.pairwise(sizes):
            synapse = linear(inputs, outputs, spread / math.sqrt(inputs), generator)
            with torch.no_grad():
                synapse.weight.add_(mean / inputs)  # what is silent does not learn
            layers.append(EventLIF(synapse, horizon=horizon, tau_mem=20e-3, tau_syn=5e-3))
        return EventNetwork(*layers)

    def encode(x: Tensor) -> Tensor:
        return 1e-3 * SPAN * (_with_start(x) if start else x)

    loss = FirstSpikeCrossEntropy(horizon, tau=1e-3, late=0.03, tau_late=10e-3)
    return replace(task, encode=encode, network=network, loss=loss)


def yinyang_events() -> Task:
    """Yin-Yang in continuous time, 5-120-3; few passes, since each takes some 20 s."""
    return replace(_in_time(yinyang(), (5, 120, 3), True), epochs=5)


def temporal_xor_events() -> Task:
    """Temporal XOR in continuous time, 2-20-2."""
    return replace(_in_time(temporal_xor(), (2, 20, 2), False), epochs=40)


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


def cue_accumulation(hidden: int = 40, *, adaptive: bool = True) -> Task:
    """Accumulation of evidence, faster than in the paper: 7 cues in 140 ms, a delay of 50 to 100 ms, cues at 150 Hz.

    40-40-2, adaptive LIF without recurrence (tau_mem 20, tau_adapt 200 ms).

    Args:
        hidden: number of hidden neurons.
        adaptive: if not, plain LIF of tau_mem 100 ms, for rules that know no other.
    """
    steps = 7 * 20 + 100 + 20
    neuron = alif(tau_mem=20e-3, tau_adapt=200e-3, strength=0.3) if adaptive else lif(tau_mem=100e-3)
    network = partial(_network, (40, hidden, 2), neuron, (2.0 if adaptive else 0.7, 0.0, 0.3), 20e-3)
    load = partial(data.cue_accumulation, (1000, 300, 500), cue=15, gap=5, delay=(50, 100), recall=20, rate=150.0)
    loss = asked(steps, 2, 20)
    return Task("cue-accumulation", load, partial(_dense, steps=steps), network, loss, epochs=10, batch=64, rate=1e-2)


TASKS: dict[str, Callable[[], Task]] = {
    "temporal-xor": temporal_xor,
    "delayed-xor": delayed_xor,
    "yinyang": yinyang,
    "randman": randman,
    "cue-accumulation": cue_accumulation,
}

_ADJOINTS = ("feedback_alignment", "direct_feedback_alignment", "exodus", "slayer", "sparse")
# Rules that need other neurons, or, for RTRL, fewer.
SUITED: dict[str, dict[str, Callable[[], Task]]] = {
    "temporal-xor": {
        "rtrl": partial(temporal_xor, 8),
        "tssl_bp": partial(temporal_xor, reset_to_zero=True),
        "eventprop": temporal_xor_events,
    },
    "delayed-xor": {"rtrl": partial(delayed_xor, 8)},
    "yinyang": {
        "rtrl": partial(yinyang, 8),
        "tssl_bp": partial(yinyang, reset_to_zero=True),
        "eventprop": yinyang_events,
    },
    "randman": {
        "rtrl": partial(randman, 8),
        "tssl_bp": partial(randman, reset_to_zero=True),
    },
    "cue-accumulation": {
        "rtrl": partial(cue_accumulation, 8),
        **dict.fromkeys(_ADJOINTS, partial(cue_accumulation, adaptive=False)),
    },
}
