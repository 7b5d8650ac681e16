"""A task is a data set with the settings that go with it: how it becomes spikes, on which network, trained how.

The settings were chosen on the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from snnlearn import datasets, encoding
from snnlearn.datasets import Dataset, Split
from snnlearn.events import EventNetwork
from snnlearn.filters import Exponentials
from snnlearn.firstspike import digits_loss, digits_network, on_off_times
from snnlearn.losses import CrossEntropy, OverTime, cross_entropy, mean_over_time, van_rossum
from snnlearn.network import Layer, Network, decolle_layer
from snnlearn.neurons import Neuron, Threshold, cuba_lif, readout
from snnlearn.resets import to_zero


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
    """

    name: str
    load: Callable[[], Dataset]
    encode: Callable[[Tensor], Tensor]
    network: Callable[[torch.Generator], Network | EventNetwork]
    loss: Loss
    epochs: int
    batch: int
    rate: float
    decay: float = 0.0


def linear(inputs: int, outputs: int, std: float, generator: torch.Generator) -> nn.Linear:
    """A Linear without bias whose weights are drawn from N(0, std**2) by the generator, and from nothing else."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std, generator=generator)
    return layer


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


TASKS: dict[str, Callable[[], Task]] = {"digits": digits}

# Rules that need other neurons or another loss than the task's own.
SUITED: dict[str, dict[str, Callable[[], Task]]] = {
    "digits": {
        "rtrl": partial(digits_online, steps=20, hidden=8),
        "eprop": digits_online,
        "ottt": digits_online,
        "superspike": digits_trains,
        "tssl_bp": digits_patterns,
        "eventprop": digits_events,
        "decolle": digits_decolle,
    }
}


def suited(task: str, rule: str) -> Task:
    """The task by this name, as the rule by that name needs it."""
    return SUITED.get(task, {}).get(rule, TASKS[task])()


def readout_only(task: Task) -> Task:
    """The same task with all layers but the last left as they were drawn: what a rule for hidden layers has to beat."""

    def network(generator: torch.Generator) -> Network | EventNetwork:
        net = task.network(generator)
        for layer in net.layers[:-1]:
            layer.requires_grad_(False)
        return net

    return replace(task, name=f"{task.name}-readout-only", network=network)


def baselines(data: Dataset) -> dict[str, float]:
    """Test accuracy of two models that know no time: logistic regression and a support vector machine (RBF)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    def arrays(split: Split):
        return split.x.flatten(1).double().numpy(), split.y.numpy()

    models = {"logistic regression": LogisticRegression(max_iter=1000), "support vector machine": SVC()}
    return {name: float(m.fit(*arrays(data.train)).score(*arrays(data.test))) for name, m in models.items()}
