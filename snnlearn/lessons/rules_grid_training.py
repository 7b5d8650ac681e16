"""Tutorial 13, the grid: one task, one network, and what every pair that runs on it comes to.

The whole table takes minutes, so it was made once, by ``python -m snnlearn.lessons.rules_grid_training``, and lies
beside this file as rules_grid.json. The notebook makes a part of it again, and a test another.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnlearn import datasets, encoding, footprint, grid
from snnlearn.losses import OverTime, accuracy, cross_entropy
from snnlearn.network import Layer, Network
from snnlearn.neurons import cuba_lif, readout
from snnlearn.rule import Rule
from snnlearn.surrogate import FastSigmoid
from snnlearn.tasks import linear
from snnlearn.temporal import Unrolled

RECORD = Path(__file__).with_name("rules_grid.json")
STEPS, HIDDEN, BATCH, EPOCHS, SEEDS = 20, 32, 64, 8, 4
RATES = (2e-2, 5e-2)  # of Adam; for each pair the validation split chooses
WIDTH = 0.3  # of the surrogate, where nothing else is said
WIDTHS = (0.1, 0.3, 1.0)
LENGTHS = (10, 20, 40, 80)  # of the sequence, for the costs
ROWS = ("bptt", "exodus", "slayer", "eligibility", "eprop")  # rows that run on this network
COLUMNS = tuple(space.name for space in grid.SPACES)
LAYERS = ("layers.0.synapse.weight", "layers.1.synapse.weight")
LOSS = OverTime(cross_entropy, mean=True, scale=5.0)  # a mean over steps, so that forward rules can learn from it

MakeRule = Callable[[Network, torch.Generator, FastSigmoid], Rule]


def network(seed: int, hidden: int = HIDDEN) -> Network:
    """128 inputs, two hidden layers of current-based LIF, a leaky readout; float32.

    Args:
        seed: of the weights.
        hidden: neurons of each hidden layer.
    """
    draw = torch.Generator().manual_seed(seed)
    neuron, top = cuba_lif(tau_mem=20e-3, tau_syn=10e-3), readout(tau_mem=20e-3, tau_syn=5e-3)
    gain = 1 - math.exp(-1 / 20)  # 1 - beta
    with InFloat32():
        synapses = (
            linear(128, hidden, 8 / math.sqrt(128), draw),
            linear(hidden, hidden, 15 / math.sqrt(hidden), draw),
            linear(hidden, 10, 1 / math.sqrt(hidden), draw),
        )
    neurons = (neuron, neuron, top)
    return Network(*(Layer(synapse, n, gain=gain) for synapse, n in zip(synapses, neurons, strict=True)))


class InFloat32:
    """The notebooks compute in float64; what is trained here is not."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


@cache
def data(split: str) -> tuple[Tensor, Tensor]:
    """Digits of "train", "validation" or "test" as spikes (STEPS, samples, 128), and labels."""
    x, y = getattr(_digits(), split)
    return spikes(x, STEPS), y


@cache
def _digits() -> datasets.Dataset:
    return datasets.digits()


def spikes(x: Tensor, steps: int) -> Tensor:
    """Pixels as latencies, ON and OFF channels: (steps, samples, 128)."""
    return encoding.latency(encoding.on_off(x), steps).float()


def batch(steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """The BATCH samples on which gradients are laid beside each other."""
    x, y = _digits().train
    return spikes(x[:BATCH], steps), y[:BATCH]


@dataclass(frozen=True, eq=False)
class History:
    """A training run. Index 0 is before the first update, then one entry an epoch.

    Attributes:
        accuracy: on the test split.
        validation: on the validation split.
        weights: the network's state at each of them.
        rule: the rule.
    """

    accuracy: list[float]
    validation: list[float]
    weights: list[dict[str, Tensor]]
    rule: Rule


def named(row: str, column: str) -> MakeRule:
    """How to make the rule of a field of the grid."""
    return grid.pair(row, column).rule


def fit(
    make: MakeRule, seed: int, rate: float, epochs: int = EPOCHS, width: float = WIDTH, readout_only: bool = False
) -> History:
    """Train the network of a seed by a rule, with Adam at one rate.

    Args:
        make: (network, generator, surrogate) -> the rule; `named` for one of the grid.
        seed: of the weights, the feedback weights and the order of the data.
        rate: of Adam.
        epochs: passes over the data, of 20 updates each.
        width: of the surrogate.
        readout_only: leave the hidden layers as they were drawn.
    """
    net, draw = network(seed), torch.Generator().manual_seed(1000 + seed)
    for layer in net.layers[:-1]:
        layer.requires_grad_(not readout_only)
    rule = make(net, draw, FastSigmoid(width))
    x, y = data("train")
    adam = torch.optim.Adam(rule.parameters(net), lr=rate)
    order = torch.Generator().manual_seed(2000 + seed)
    found = History([], [], [], rule)
    for epoch in range(epochs + 1):
        found.accuracy.append(score(net, rule, "test"))
        found.validation.append(score(net, rule, "validation"))
        found.weights.append({name: p.detach().clone() for name, p in net.state_dict().items()})
        if epoch < epochs:
            for chosen in torch.randperm(len(y), generator=order).split(BATCH):
                adam.zero_grad()
                rule.backward(net, x[:, chosen], y[chosen], LOSS)
                adam.step()
    return found


def score(net: Network, rule: Rule, split: str) -> float:
    """The share of a split that the network answers rightly."""
    x, y = data(split)
    with torch.no_grad():
        return accuracy(LOSS.scores(rule.spatial.answer(net(x, rule))), y)


def cosines(net: Network, rule: Rule) -> list[float]:
    """Of the rule's gradient to BPTT's with the same surrogate: hidden layer 1, hidden layer 2, both as one vector.

    Of a layer for which one of the two is zero, 0.
    """
    x, y = batch()
    mine = rule.gradients(net, x, y, LOSS)[1]
    true = Rule(rule.surrogate, Unrolled()).gradients(net, x, y, LOSS)[1]
    pairs = [(mine[name].flatten().double(), true[name].flatten().double()) for name in LAYERS]
    pairs.append((torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])))
    return [torch.nn.functional.cosine_similarity(a, b, dim=0).item() for a, b in pairs]


def along(history: History, seed: int, width: float = WIDTH) -> list[list[float]]:
    """`cosines` at the weights that a run passed through, for a surrogate of this width."""
    net, rule = network(seed), Rule(FastSigmoid(width), history.rule.temporal, history.rule.spatial)
    found = []
    for weights in history.weights:
        net.load_state_dict(weights)
        found.append(cosines(net, rule))
    return found


def cost(row: str, column: str, steps: int) -> tuple[int, int, float]:
    """Bytes kept, operations, and processor seconds of the quickest of ten gradients of `batch` at this length."""
    net = network(0)
    rule = named(row, column)(net, torch.Generator().manual_seed(1000), FastSigmoid(WIDTH))
    x, y = batch(steps)
    kept, work = footprint.measure(rule, net, x, y, LOSS).kept, footprint.work(rule, net, x, y, LOSS)
    times = []
    for _ in range(10):
        start = time.process_time()
        rule.gradients(net, x, y, LOSS)
        times.append(time.process_time() - start)
    return kept, work, min(times)


@cache
def runs(row: str, column: str) -> str:
    """Why a pair does not run on this network and loss; "" if it does."""
    if row not in ROWS:
        return grid.pair(row, column).refused or f"needs {NEEDS[row]}"
    net = network(0, 4)
    try:
        grid.pair(row, column).rule(net, torch.Generator().manual_seed(0)).check(net, LOSS)
    except ValueError as error:
        return str(error)
    return ""


NEEDS = {
    "exodus_srm": "neurons written as kernels (SRM)",
    "tssl_bp": "a reset to zero",
    "rtrl": "a small network: N times as much memory as weights, and N² more work",
    "eligibility_filtered": "a van Rossum loss on spiking outputs",
    "eventprop": "spike times in the place of steps",
}


def _rounded(values: Any, digits: int = 4) -> Any:
    return [_rounded(v, digits) for v in values] if isinstance(values, list) else round(values, digits)


def _best(make: MakeRule, **settings: Any) -> tuple[float, list[History]]:
    """The rate with the better validation accuracy at the end, in the mean of all seeds, and the runs with it."""
    trials = {rate: [fit(make, seed, rate, **settings) for seed in range(SEEDS)] for rate in RATES}
    rate = max(RATES, key=lambda r: sum(h.validation[-1] for h in trials[r]))
    return rate, trials[rate]


def measured(row: str, column: str) -> dict[str, Any]:
    """One field of the record: the rate chosen, accuracies and cosines by seed and epoch."""
    rate, histories = _best(named(row, column))
    cosine = {str(w): [_rounded(along(h, seed, w)) for seed, h in enumerate(histories)] for w in WIDTHS}
    return {"rate": rate, "accuracy": [_rounded(h.accuracy) for h in histories], "cosine": cosine}


def untrained() -> dict[str, Any]:
    """The rate and accuracies where only the readout learns: what a rule for hidden layers has to beat."""
    rate, histories = _best(named("bptt", "transpose"), readout_only=True)
    return {"rate": rate, "accuracy": [_rounded(h.accuracy) for h in histories]}


def costs(row: str, column: str) -> dict[str, Any]:
    """The costs of a field, by length: lists of bytes, operations and seconds."""
    kept, work, seconds = zip(*(cost(row, column, T) for T in LENGTHS), strict=True)
    return {"kept": list(kept), "work": list(work), "seconds": _rounded(list(seconds), 5)}


@cache
def load() -> dict[str, dict[str, Any]]:
    """The record, by "row x column"."""
    return json.loads(RECORD.read_text())


def main(chosen: Sequence[str] = ROWS) -> None:
    """Make the record. Half an hour at most; a pair is written as soon as it is done."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record["readout only"] = untrained()
    for row in chosen:
        for column in COLUMNS:
            if not runs(row, column):
                name = f"{row} x {column}"
                # EXODUS is BPTT: the same gradient to rounding, so its learning is not measured a second time
                learned = record[f"bptt x {column}"] if row == "exodus" else measured(row, column)
                record[name] = {**learned, **costs(row, column)}
                RECORD.write_text(json.dumps(record, separators=(",", ":")).replace('},"', '},\n"') + "\n")
                print(name, record[name]["rate"], [a[-1] for a in record[name]["accuracy"]], flush=True)


if __name__ == "__main__":
    main()
