"""Tutorial 13, the grid: tables of the record, costs that are measured, and the rows that need another network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snnlearn import footprint, grid, tasks
from snnlearn.lessons import rules_grid_training as training
from snnlearn.losses import OverTime, cross_entropy, van_rossum
from snnlearn.network import Layer, Network
from snnlearn.neurons import Analog, Threshold, cuba_lif, lif, readout
from snnlearn.resets import to_zero
from snnlearn.rule import Rule
from snnlearn.spatial import LocalErrors
from snnlearn.srm import SRM
from snnlearn.surrogate import FastSigmoid

TIMES, SPACES = tuple(t.name for t in grid.TIMES), training.COLUMNS
COMPARED = ("bptt", "slayer", "eligibility")  # rows with all four columns; EXODUS is BPTT, and counts once


# The record.


def values(quantity: str, row: str, column: str, *, epoch: int, steps: int, width: float) -> NDArray[Any]:
    """One field of the record, a number for each seed (of a cost, one number); empty where nothing ran.

    Args:
        quantity: "accuracy", "cosine 1", "cosine 2", "cosine" (both hidden layers), "kept", "work" or "seconds".
        row, column: of the grid.
        epoch: 0 is before training.
        steps: of the sequence, for the costs.
        width: of the surrogate, for cosines.
    """
    found = training.load().get(f"{row} x {column}")
    if found is None:
        return np.empty(0)
    if quantity == "accuracy":
        return np.array(found["accuracy"])[:, epoch]
    if quantity.startswith("cosine"):
        layer = {"cosine 1": 0, "cosine 2": 1, "cosine": 2}[quantity]
        return np.array(found["cosine"][str(width)])[:, epoch, layer]
    return np.array([found[quantity][training.LENGTHS.index(steps)]])


def table(quantity: str, *, epoch: int = training.EPOCHS, steps: int = training.STEPS, width: float = training.WIDTH):
    """Means over the seeds, (rows of the grid, columns); NaN where nothing ran. Arguments as `values`."""
    settings: dict[str, Any] = {"epoch": epoch, "steps": steps, "width": width}
    cells = [[values(quantity, row, column, **settings) for column in SPACES] for row in TIMES]
    return np.array([[cell.mean() if len(cell) else np.nan for cell in row] for row in cells])


class Spread(NamedTuple):
    """How far apart accuracies are, in the same units as they.

    Attributes:
        rows: largest less smallest mean of a row, over the columns.
        columns: largest less smallest mean of a column, over the rows.
        seeds: standard deviation over the seeds of one field, in the mean over the fields.
        error: of a mean of a row, from that.
    """

    rows: float
    columns: float
    seeds: float
    error: float


def spread(epoch: int = training.EPOCHS) -> Spread:
    """Between the rows COMPARED, and between the columns."""
    settings: dict[str, Any] = {"epoch": epoch, "steps": training.STEPS, "width": training.WIDTH}
    cells = np.array([[values("accuracy", r, c, **settings) for c in SPACES] for r in COMPARED])  # rows, columns, seeds
    rows, columns = cells.mean((1, 2)), cells.mean((0, 2))
    seeds = float(np.sqrt(cells.var(2, ddof=1).mean()))
    return Spread(float(np.ptp(rows)), float(np.ptp(columns)), seeds, seeds / math.sqrt(cells[0].size))


def correlation(epoch: int, columns: Sequence[str] = SPACES) -> float:
    """Of mean accuracy and mean cosine of both hidden layers, over the fields of the rows COMPARED.

    Args:
        epoch: of training.
        columns: which to take in.
    """
    settings: dict[str, Any] = {"epoch": epoch, "steps": training.STEPS, "width": training.WIDTH}
    x, y = (
        [values(name, row, column, **settings).mean() for row in COMPARED for column in columns]
        for name in ("cosine", "accuracy")
    )
    return float(np.corrcoef(x, y)[0, 1])


# What grows, and how.

CE = OverTime(cross_entropy, mean=True)
Growing = tuple(t for t in grid.TIMES if t.name != "eventprop")  # which has spikes in the place of steps
SIZES = {"rtrl": (6, 12)}  # neurons; RTRL is too dear for more


def growing(row: str, neurons: int, steps: int, samples: int) -> tuple[Network, Tensor, Tensor, OverTime]:
    """As many inputs as neurons, two hidden layers, two readouts, or as near to it as the row's method allows."""
    draw, loss = torch.Generator().manual_seed(0), CE
    sizes = (neurons, neurons, 2) if row == "eprop" else (neurons, neurons, neurons, 2)
    neuron: Any = lif(reset=to_zero) if row == "tssl_bp" else lif()
    top: Any = readout()
    if row == "eligibility_filtered":
        top, loss = lif(), van_rossum()
    if row == "exodus_srm":
        neuron = top = SRM.lif(0.9, T=steps)
    kinds = [neuron] * (len(sizes) - 2) + [top]
    layers = [
        Layer(tasks.linear(n, m, 3 / math.sqrt(n), draw), kind)
        for (n, m), kind in zip(pairwise(sizes), kinds, strict=True)
    ]
    net = Network(*layers)
    x = (torch.rand(steps, samples, neurons, generator=draw) < 0.3).to(next(net.parameters()))
    y = torch.zeros(samples, dtype=torch.long) if loss is CE else x.new_zeros(steps, samples, 2)
    return net, x, y, loss


def kept(row: str, neurons: int, steps: int) -> int:
    """Bytes that a row keeps for one sample more, so that what comes once (gradients, weights) is not counted."""
    method = grid.pair(row, "transpose").time.method
    few, many = (footprint.measure(Rule(temporal=method), *growing(row, neurons, steps, B)).kept for B in (1, 2))
    return many - few


def work(row: str, neurons: int, steps: int = 4) -> int:
    """Operations of a gradient."""
    method = grid.pair(row, "transpose").time.method
    return footprint.work(Rule(temporal=method), *growing(row, neurons, steps, 1))


class Growth(NamedTuple):
    """By what a cost is multiplied, measured, with the grid's own claim beside it."""

    row: str
    memory: grid.Cost
    by_steps: float
    by_neurons: float
    work: grid.Cost
    work_by_neurons: float
    claimed: tuple[int, int, int]


def growth() -> list[Growth]:
    """Twice the steps and twice the neurons, for every row that has steps."""
    found = []
    for time in Growing:
        small, large = SIZES.get(time.name, (128, 256))
        T = 4 if time.name == "rtrl" else 10
        one = kept(time.name, small, T)
        many_small, many_large = SIZES.get(time.name, (256, 512))
        found.append(
            Growth(
                time.name,
                time.memory,
                kept(time.name, small, 2 * T) / one,
                kept(time.name, large, T) / one,
                time.work,
                work(time.name, many_large) / work(time.name, many_small),
                (2**time.memory.steps, 2**time.memory.neurons, 2**time.work.neurons),
            )
        )
    return found


# Rows that need another network.


class Elsewhere(NamedTuple):
    """A row on a network of its own.

    Attributes:
        network: in words.
        cosines: of the lowest layer's gradient to that of BPTT with the transpose on the same network (of EventProp:
            to its own with the transpose), by column; None where the pair is refused.
        refused: why, by column.
    """

    network: str
    cosines: list[float | None]
    refused: dict[str, str]


def elsewhere(samples: int = 32) -> dict[str, Elsewhere]:
    """The rows that do not run on the shared network, each on the nearest that it takes, on the same digits."""
    with training.InFloat32():
        return {row: _compare(row, *make(samples)) for row, make in _MAKERS.items()}


def _compare(row: str, words: str, net: Any, x: Any, y: Tensor, loss: Any) -> Elsewhere:
    exact = grid.pair("eventprop" if row == "eventprop" else "bptt", "transpose")
    surrogate, name = FastSigmoid(training.WIDTH), "layers.0.synapse.weight"
    true = exact.rule(net, torch.Generator(), surrogate).gradients(net, x, y, loss)[1][name].flatten()
    cosines: list[float | None] = []
    refused = {}
    for column in SPACES:
        draw = torch.Generator().manual_seed(1000)
        try:
            rule = _rule(row, column, net, draw, surrogate)
            mine = rule.gradients(net, x, y, loss)[1][name].flatten()
            cosines.append(torch.nn.functional.cosine_similarity(mine.double(), true.double(), dim=0).item())
        except ValueError as error:
            cosines.append(None)
            refused[column] = str(error)
    return Elsewhere(words, cosines, refused)


def _rule(row: str, column: str, net: Any, draw: torch.Generator, surrogate: FastSigmoid) -> Rule:
    pair = grid.pair(row, column)
    if column == "local_errors" and row == "eligibility_filtered":  # a top that fires has a critic, too
        return Rule(surrogate, pair.time.method, LocalErrors.random(net, draw, classes=10))
    return pair.rule(net, draw, surrogate)


def _shared(samples: int, hidden: int = training.HIDDEN, layer: Callable[[nn.Module], Layer] | None = None, top=None):
    """The shared network with other hidden layers, or another top; inputs and labels."""
    net = training.network(0, hidden)
    layers: list[Any] = list(net.layers)
    if layer is not None:
        layers[:-1] = [layer(old.synapse) for old in layers[:-1]]
    if top is not None:
        layers[-1] = top(layers[-1].synapse)
    x, y = training.batch()
    return Network(*layers), x[:, :samples], y[:samples], training.LOSS


GAIN = 1 - math.exp(-1 / 20)


def _kernels(samples: int):
    neuron = SRM.double_exponential(tau_mem=20e-3, tau_syn=10e-3, T=training.STEPS)
    slow = SRM.double_exponential(tau_mem=20e-3, tau_syn=5e-3, T=training.STEPS)
    top = SRM(slow.eps, 0 * slow.nu[:1], fire=Analog())
    parts: dict[str, Any] = {"layer": lambda w: Layer(w, neuron, gain=GAIN), "top": lambda w: Layer(w, top, gain=GAIN)}
    return "the same neurons, as kernels", *_shared(samples, **parts)


def _to_zero(samples: int):
    neuron = cuba_lif(tau_mem=20e-3, tau_syn=10e-3, reset=to_zero, fire=Threshold(strict=True))
    return "hidden neurons reset to zero", *_shared(samples, layer=lambda w: Layer(w, neuron, gain=GAIN))


def _small(samples: int):
    return "4 neurons a layer, 2 samples", *_shared(2, hidden=4)


def _shallow(samples: int):
    net, x, y, loss = _shared(samples)
    top = training.network(0).layers[-1]
    return "one hidden layer", Network(net.layers[0], top), x, y, loss


def _trains(samples: int):
    neuron = cuba_lif(tau_mem=20e-3, tau_syn=5e-3)

    def fires(synapse: nn.Module) -> Layer:
        with torch.no_grad():
            synapse.get_parameter("weight").mul_(8)  # or none of them would fire
        return Layer(synapse, neuron, gain=GAIN)

    net, x, y, _ = _shared(samples, top=fires)
    target = torch.zeros(training.STEPS, samples, 10)
    target[5::5, torch.arange(samples), y] = 1
    return "spiking outputs, van Rossum loss", net, x, target, van_rossum(mean=True)


def _events(samples: int):
    task = tasks.digits_events()
    split = task.load().train
    net = task.network(torch.Generator().manual_seed(0))
    return "first spikes in continuous time", net, task.encode(split.x[:samples]), split.y[:samples], task.loss


_MAKERS = {
    "exodus_srm": _kernels,
    "tssl_bp": _to_zero,
    "rtrl": _small,
    "eligibility_filtered": _trains,
    "eprop": _shallow,
    "eventprop": _events,
}


# A rule of the reader's own.


class Landing(NamedTuple):
    """Where a rule comes to lie.

    Attributes:
        accuracy: of seed 0 after the epochs.
        cosine: of both hidden layers to BPTT's gradient, at start and end.
        among: how many of the record's fields are less accurate on the same seed at the same epoch, and of how many.
    """

    accuracy: float
    cosine: tuple[float, float]
    among: tuple[int, int]


def land(make: training.MakeRule, rate: float = 3e-2, epochs: int = training.EPOCHS) -> Landing:
    """Train a rule of one's own on the shared task, seed 0, and find its place in the grid.

    Args:
        make: (network, generator, surrogate) -> rule.
        rate: of Adam.
        epochs: passes over the data.
    """
    history = training.fit(make, 0, rate, epochs)
    cosine = training.along(history, 0)
    mine = history.accuracy[-1]
    others = [field["accuracy"][0][epochs] for name, field in training.load().items() if " x " in name]
    return Landing(mine, (cosine[0][2], cosine[-1][2]), (sum(a < mine for a in others), len(others)))


def named_fields(quantity: str, rows: Sequence[str] = training.ROWS, **settings: Any) -> list[tuple[str, str, float]]:
    """(row, column, mean) of the fields that ran, in reading order."""
    found = table(quantity, **settings)
    return [
        (row, column, float(found[TIMES.index(row), j]))
        for row in rows
        for j, column in enumerate(SPACES)
        if np.isfinite(found[TIMES.index(row), j])
    ]
