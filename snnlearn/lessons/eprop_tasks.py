"""The tasks of tutorial 12: what is asked after a delay, and of what network. Steps of 1 ms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from snnlearn.adaptive import Adaptive
from snnlearn.losses import OverTime
from snnlearn.network import Layer, Network
from snnlearn.neurons import Neuron, readout

SILENT = -1  # the target of a step at which nothing is asked
Weights = dict[str, Tensor]  # "W" (runs, H, N), "V" (runs, H, H), "W_out" (runs, C, H), "B" (runs, C, H)
Trials = tuple[Tensor, Tensor]  # spikes (T, B, N), the label where it is asked (T, B)


def asked_cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of outputs (B, C) for labels (B,); 0 where the label is `SILENT`."""
    return functional.cross_entropy(out, y, ignore_index=SILENT, reduction="none")


LOSS = OverTime(asked_cross_entropy, mean=True)


def accuracy(y: Tensor, labels: Tensor) -> Tensor:
    """The share of trials whose output, summed over the asked steps, is largest for the label; y (T, ..., B, C)."""
    asked = (labels != SILENT).to(y.dtype)
    shape = (len(asked), *[1] * (y.dim() - 3), asked.shape[1], 1)
    return ((y * asked.view(shape)).sum(0).argmax(-1) == labels.amax(0)).double().mean(-1)


# The tasks.


def _spikes(chance: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(chance.shape, generator=generator) < chance).double()


def _asked(steps: int, label: Tensor, last: int = 10) -> Tensor:
    """The label at the last steps."""
    y = torch.full((steps, len(label)), SILENT)
    y[-last:] = label
    return y


def delayed_xor(generator: torch.Generator, batch: int, delay: int = 40) -> Trials:
    """Two cues of 10 ms, a delay between them; asked is their XOR, in the 10 ms after the second.

    Five of ten inputs fire for a 0, the other five for a 1, with probability 0.3 at each step.
    """
    bits = torch.randint(0, 2, (2, batch), generator=generator)
    chance = torch.zeros(delay + 30, batch, 10)
    for start, bit in zip((0, 10 + delay), bits, strict=True):
        for value in (0, 1):
            chance[start : start + 10, bit == value, 5 * value : 5 * value + 5] = 0.3
    return _spikes(chance, generator), _asked(delay + 30, bits[0] ^ bits[1])


def store_and_recall(generator: torch.Generator, batch: int, delay: int = 100, bits: int = 4) -> Trials:
    """Some bits at once, for 20 ms; a delay; a "go" of 20 ms, always the same. Asked is the XOR of the first two bits.

    Two inputs for each bit, one for 0 and one for 1, and four for the go; asked during its last 10 ms.
    """
    drawn = torch.randint(0, 2, (bits, batch), generator=generator)
    chance = torch.zeros(delay + 40, batch, 2 * bits + 4)
    chance[:20, :, : 2 * bits] = 0.3 * _on_off(drawn)
    chance[-20:, :, 2 * bits :] = 0.3
    return _spikes(chance, generator), _asked(delay + 40, drawn[0] ^ drawn[1])


def relay(generator: torch.Generator, batch: int, bits: int = 8) -> Trials:
    """Eight bits for 40 ms, two inputs each. Asked is the XOR of the first two, during the last 10 ms."""
    drawn = torch.randint(0, 2, (bits, batch), generator=generator)
    chance = 0.25 * _on_off(drawn).expand(40, -1, -1)
    return _spikes(chance, generator), _asked(40, drawn[0] ^ drawn[1])


def _on_off(bits: Tensor) -> Tensor:
    """Bits (k, B) to (B, 2 k): 1 on the channel of its value."""
    return torch.stack([1 - bits.T, bits.T], 2).flatten(1).float()


# The network.


@dataclass(frozen=True)
class Constants:
    """Of the hidden neurons and the readout; times in ms, 0 for no synapse."""

    tau_mem: float = 10.0
    tau_syn: float = 5.0
    tau_out: float = 10.0
    tau_adapt: float = 200.0
    strength: float = 0.0
    width: float = 0.3  # of the fast sigmoid's slope

    @property
    def decays(self) -> tuple[float, float, float, float]:
        """alpha, beta, kappa, rho."""
        times = (self.tau_syn, self.tau_mem, self.tau_out, self.tau_adapt)
        alpha, beta, kappa, rho = (math.exp(-1 / tau) if tau else 0.0 for tau in times)
        return alpha, beta, kappa, rho


@dataclass(frozen=True)
class Task:
    """What is learned, on what network, and how.

    Args:
        trials: (generator, batch) to spikes and labels.
        inputs, hidden: numbers of neurons.
        constants: of the neurons.
        scales: of W, V (None: no recurrence) and W_out: standard deviations times the square root of the fan-in.
        rate, updates: Adam's first rate, which falls to 0 as a cosine, and how many updates of 64 trials.
        first: so many hidden neurons get the input and are not read out; they send to the others (a relay). 0: none.
    """

    trials: Callable[..., Trials]
    inputs: int
    hidden: int
    constants: Constants = Constants()
    scales: tuple[float, float | None, float] = (0.5, 0.3, 0.3)
    rate: float = 2e-3
    updates: int = 250
    first: int = 0

    def masks(self) -> dict[str, Tensor]:
        """Which weights exist; nothing where all do."""
        if not self.first:
            return {}
        W, V, out = (torch.zeros(self.hidden, n) for n in (self.inputs, self.hidden, 2))
        W[: self.first], V[self.first :, : self.first], out[self.first :] = 1, 1, 1
        return {"W": W, "V": V, "W_out": out.T}

    def weights(self, seeds: Iterable[int]) -> Weights:
        """Weights drawn for each seed, and B of standard deviation 1/sqrt(2), as `DirectFeedback.random` has it."""
        drawn = [self._draw(torch.Generator().manual_seed(seed)) for seed in seeds]
        return {name: torch.stack([weights[name] for weights in drawn]) for name in drawn[0]}

    def _draw(self, g: torch.Generator) -> Weights:
        shapes = {"W": (self.hidden, self.inputs), "V": (self.hidden,) * 2, "W_out": (2, self.hidden)}
        masks, found = self.masks(), dict[str, Tensor]()
        for (name, shape), scale in zip(shapes.items(), self.scales, strict=True):
            values = torch.randn(shape, dtype=torch.float64, generator=g) * masks.get(name, 1.0)
            if scale is not None:
                found[name] = scale / math.sqrt(shape[1]) * values
        return found | {"B": torch.randn(shapes["W_out"], dtype=torch.float64, generator=g) / math.sqrt(2)}


XOR = Task(delayed_xor, 10, 32)
STORE = Task(
    store_and_recall, 12, 32, Constants(strength=1.0), scales=(2.0, None, 0.3), rate=1e-2
)  # fmt: skip
RELAY = Task(relay, 16, 24, scales=(0.7, 0.9, 0.37), rate=1e-2, first=8)


XOR_ADAPTIVE = replace(XOR, constants=Constants(strength=1.0), scales=(2.0, None, 0.3), rate=1e-2)


def with_delay(task: Task, delay: int) -> Task:
    """The same task across another delay, ms."""
    return replace(task, trials=partial(task.trials, delay=delay))


def without_recurrence(task: Task) -> Task:
    """The same task on a network without V."""
    return replace(task, scales=(task.scales[0], None, task.scales[2]))


def as_network(weights: Weights, constants: Constants, run: int = 0) -> Network:
    """One run's weights as a network of the library."""
    alpha, beta, _, rho = constants.decays
    plain = Neuron(alpha, beta, 1.0)
    neuron = Adaptive(plain, rho, constants.strength) if constants.strength else plain
    own = linear(weights["V"][run]) if "V" in weights else None
    out = readout(tau_mem=constants.tau_out * 1e-3)
    return Network(Layer(linear(weights["W"][run]), neuron, own), Layer(linear(weights["W_out"][run]), out))


def linear(W: Tensor) -> torch.nn.Linear:
    """A synapse with these weights, (post, pre)."""
    layer: torch.nn.Linear = torch.nn.utils.skip_init(
        torch.nn.Linear, W.shape[1], W.shape[0], bias=False, dtype=W.dtype
    )
    with torch.no_grad():
        layer.weight.copy_(W)
    return layer
