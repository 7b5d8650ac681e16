"""Spoken digits (`snnlearn.datasets.spoken`), on three networks and in the forms that the rules need.

70 channels of a model of the inner ear, steps of 10 ms, one second; 20 classes, 0 to 9 in English and in German.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from snnlearn import datasets
from snnlearn.datasets import Recordings
from snnlearn.events import EventLIF, EventNetwork, Events
from snnlearn.firstspike import FirstSpikeCrossEntropy
from snnlearn.losses import CrossEntropy, CurrentCount, OverTime, cross_entropy, mean_over_time, van_rossum
from snnlearn.network import Layer, Network, decolle_layer
from snnlearn.neurons import Neuron, Threshold, cuba_lif, readout
from snnlearn.resets import to_zero
from snnlearn.tasks.base import Task, linear

CHANNELS, CLASSES, HIDDEN = 70, 20, 128
STEPS, DT = 75, 10e-3  # the longest word takes 0.66 s
TAU_MEM, TAU_SYN, TAU_OUT = 20e-3, 10e-3, 100e-3
TAU_RECURRENT = 10e-3  # with recurrence a shorter membrane is better
W_IN, W_BACK, SCALE = 3.0, 1.0, 10.0


def encode(x: Recordings) -> Tensor:
    """Spikes (T, B, 70): whether a channel fired within 10 ms."""
    return x.dense(STEPS, DT)


def shifted(x: Recordings, generator: torch.Generator, most: int = 2) -> Recordings:
    """Every sample moved along the channels by -most .. most of them, as a longer or shorter throat would do.

    Spikes that leave the ear at an end are lost.
    """
    by = torch.randint(-most, most + 1, (len(x),), generator=generator)
    sample = torch.arange(len(x)).repeat_interleave(x.pointer.diff())
    units = x.units + by[sample]
    kept = (units >= 0) & (units < CHANNELS)
    ends = sample[kept].bincount(minlength=len(x)).cumsum(0)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), ends])
    return Recordings(x.times[kept], units[kept], pointer, x.shape, x.speakers)


def _gain(tau: float) -> float:
    """1 - beta: a membrane settles where its current is."""
    return 1 - math.exp(-DT / tau)


def _layer(synapse: nn.Module, tau_mem: float = TAU_MEM, recurrent: nn.Module | None = None) -> Layer:
    return Layer(synapse, cuba_lif(tau_mem=tau_mem, tau_syn=TAU_SYN, dt=DT), recurrent, gain=_gain(tau_mem))


def _first(generator: torch.Generator, hidden: int) -> nn.Linear:
    return linear(CHANNELS, hidden, W_IN / math.sqrt(CHANNELS), generator)


def _top(generator: torch.Generator, hidden: int) -> Layer:
    synapse = linear(hidden, CLASSES, 1 / math.sqrt(hidden), generator)
    return Layer(synapse, readout(tau_mem=TAU_OUT, tau_syn=TAU_SYN, dt=DT), gain=_gain(TAU_OUT))


def feedforward(generator: torch.Generator, hidden: int = HIDDEN) -> Network:
    """A layer of current-based LIF (tau_mem 20 ms, tau_syn 10 ms) and a leaky readout (100 ms), 70-128-20."""
    return Network(_layer(_first(generator, hidden)), _top(generator, hidden))


def recurrent(generator: torch.Generator, hidden: int = HIDDEN) -> Network:
    """The same with tau_mem 10 ms, and every hidden neuron sends its spikes to every other, a step later."""
    back = W_BACK * _gain(TAU_RECURRENT) / math.sqrt(hidden)
    first, among = _first(generator, hidden), linear(hidden, hidden, back, generator)
    return Network(_layer(first, TAU_RECURRENT, among), _top(generator, hidden))


def conv(generator: torch.Generator, maps: int = 16) -> Network:
    """Two convolutions along the channels of the ear, each with LIF behind it, and the same readout."""

    def convolution(inputs: int, outputs: int, width: int) -> nn.Conv1d:
        layer: nn.Conv1d = nn.utils.skip_init(nn.Conv1d, inputs, outputs, width, stride=2, bias=False)
        nn.init.normal_(layer.weight, std=W_IN / math.sqrt(inputs * width), generator=generator)
        return layer

    first = nn.Sequential(nn.Unflatten(1, (1, CHANNELS)), convolution(1, maps, 8))  # 32 places
    second = convolution(maps, 2 * maps, 4)  # 15 places
    top = _top(generator, 30 * maps)
    top.synapse = nn.Sequential(nn.Flatten(), top.synapse)
    return Network(_layer(first), _layer(second), top)


PRESETS: dict[str, Callable[[torch.Generator], Network]] = {
    "feedforward": feedforward,
    "recurrent": recurrent,
    "conv": conv,
}


def spoken(preset: str = "feedforward", *, hidden: int | None = None) -> Task:
    """Spoken digits; the readout's mean over time is the score.

    Args:
        preset: one of PRESETS.
        hidden: number of hidden neurons, or of maps of the first convolution; None for the preset's own.

    Raises:
        ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"spoken digits have no preset {preset!r}; they have {', '.join(PRESETS)}")
    name = "spoken" if preset == "feedforward" else f"spoken-{preset}"
    network: Callable[..., Network] = PRESETS[preset]
    network = network if hidden is None else partial(network, **{"maps" if preset == "conv" else "hidden": hidden})
    loss, epochs = CrossEntropy(over=mean_over_time, scale=SCALE), 80 if preset == "recurrent" else 50
    return Task(name, datasets.spoken, encode, network, loss, epochs, batch=64, rate=1e-2, augment=shifted)


def spoken_online(preset: str = "feedforward", *, hidden: int | None = None) -> Task:
    """The same with a loss that is a mean over steps, as rules forward in time need it."""
    return replace(spoken(preset, hidden=hidden), loss=OverTime(cross_entropy, mean=True, scale=SCALE), epochs=20)


def spoken_trains(hidden: int = 64) -> Task:
    """For a rule that teaches spike trains: the label's output shall fire at every step, the others never.

    Args:
        hidden: number of hidden neurons.
    """

    def network(generator: torch.Generator) -> Network:
        first = _layer(_first(generator, hidden))
        return Network(first, _layer(linear(hidden, CLASSES, 6 / math.sqrt(hidden), generator)))

    patterns = torch.zeros(STEPS, CLASSES, CLASSES)
    patterns[1:] = torch.eye(CLASSES)
    return replace(spoken(), network=network, loss=van_rossum(mean=True, patterns=patterns), epochs=15)


def spoken_counts() -> Task:
    """As TSSL-BP's authors train longer inputs: reset to zero, tau_m = 5 and tau_s = 3 steps, the count loss."""
    tau_m, tau_s = 5.0, 3.0
    neuron = Neuron(1 - 1 / tau_s, 1 - 1 / tau_m, 1.0, to_zero, Threshold(strict=True))

    def network(generator: torch.Generator) -> Network:
        second = linear(HIDDEN, CLASSES, 3 / math.sqrt(HIDDEN), generator)
        return Network(*(Layer(synapse, neuron, gain=1 / tau_s) for synapse in (_first(generator, HIDDEN), second)))

    return replace(spoken(), network=network, loss=CurrentCount(true=25.0, false=3.0, tau_s=tau_s))


def spoken_decolle() -> Task:
    """On DECOLLE's layer, with a readout on top of it; a loss that is a mean over steps."""

    def network(generator: torch.Generator) -> Network:
        first: nn.Linear = nn.utils.skip_init(nn.Linear, CHANNELS, HIDDEN)
        nn.init.normal_(first.weight, std=W_IN / math.sqrt(CHANNELS), generator=generator)
        nn.init.zeros_(first.bias)
        return Network(decolle_layer(first, tau_mem=TAU_MEM, tau_syn=TAU_SYN, dt=DT), _top(generator, HIDDEN))

    return replace(spoken_online(), network=network)


HORIZON = 0.8  # seconds


def spike_events(x: Recordings) -> Events:
    """In continuous time: the first spike of each channel in every 50 ms."""
    late = x.dense(15, 50e-3)  # (T, B, channels)
    times = torch.where(late > 0, 50e-3 * torch.arange(15).view(-1, 1, 1), math.inf)
    return Events.from_times(times.permute(1, 2, 0).contiguous())


def spoken_events() -> Task:
    """In continuous time, 70-64-20, and the first output to fire is the answer. It hardly learns."""

    def network(generator: torch.Generator) -> EventNetwork:
        def layer(inputs: int, outputs: int, mean: float, spread: float) -> EventLIF:
            synapse: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
            nn.init.normal_(synapse.weight, mean / inputs, spread / math.sqrt(inputs), generator=generator)
            return EventLIF(synapse, horizon=HORIZON, tau_mem=100e-3, tau_syn=20e-3)

        return EventNetwork(layer(CHANNELS, 64, 4.0, 3.0), layer(64, CLASSES, 20.0, 4.0))

    loss = FirstSpikeCrossEntropy(HORIZON, tau=20e-3, late=0.03, tau_late=200e-3)
    return replace(spoken(), encode=spike_events, network=network, loss=loss, epochs=5, rate=1e-3)


# Rules that need other neurons or another loss; those that keep the network are there for every preset.
SUITED: dict[str, Callable[..., Task]] = {
    "rtrl": partial(spoken_online, hidden=8),
    "eprop": spoken_online,
    "ottt": spoken_online,
    "superspike": spoken_trains,
    "tssl_bp": spoken_counts,
    "eventprop": spoken_events,
    "decolle": spoken_decolle,
}
ONLINE = ("rtrl", "eprop", "ottt")


def suited(rule: str, preset: str) -> Task:
    """The task with this network, as a rule needs it."""
    if rule in SUITED and rule not in ONLINE and preset != "feedforward":
        raise ValueError(f"{rule} needs a network of its own on spoken digits; leave the preset out")
    if rule == "direct_feedback_alignment" and preset == "conv":
        raise ValueError(
            "feedback straight to a convolution needs the shape of its input: take the recipe in Python, "
            "recipes.direct_feedback_alignment(net, generator, features=(70,))"
        )
    if rule in ONLINE:
        return SUITED[rule](preset)
    return SUITED.get(rule, partial(spoken, preset))()
