"""A task is a data set with the settings that go with it: how it becomes spikes, on which network, trained how.

The settings were chosen on the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnlearn import datasets, encoding
from snnlearn.datasets import Dataset, Split
from snnlearn.losses import CrossEntropy, SpikeCount, mean_over_time
from snnlearn.network import Layer, Network
from snnlearn.neurons import cuba_lif, readout


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
    """

    name: str
    load: Callable[[], Dataset]
    encode: Callable[[Tensor], Tensor]
    network: Callable[[torch.Generator], Network]
    loss: CrossEntropy | SpikeCount
    epochs: int
    batch: int
    rate: float


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


TASKS: dict[str, Callable[[], Task]] = {"digits": digits}


def baselines(data: Dataset) -> dict[str, float]:
    """Test accuracy of two models that know no time: logistic regression and a support vector machine (RBF)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    def arrays(split: Split):
        return split.x.flatten(1).double().numpy(), split.y.numpy()

    models = {"logistic regression": LogisticRegression(max_iter=1000), "support vector machine": SVC()}
    return {name: float(m.fit(*arrays(data.train)).score(*arrays(data.test))) for name, m in models.items()}
