"""The numbers behind tutorial 14: bytes that are counted, roofs that are computed, and times from the record.

Traffic            counts what torch operations read and write
Counted            counts what single reads and writes of an array come to
layer, step        the record of `kernels_measured`, by size and density
break_even         the density at which events and matrix products take the same time, between measured ones
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snnlearn import bench
from snnlearn.bench.growth import Point
from snnlearn.bench.rows import Row
from snnlearn.lessons import kernels_measured as measured

# Of a LIF without synaptic current, for each neuron and step, forward and backward pass.
FORWARD, BACKWARD = 3 * 4, 3 * 4  # bytes of one pass: reads a, writes s and U; reads e and U, writes kap
WORK = 5 + 10  # additions, multiplications, comparisons; section 2 of the notebook counts them


class Traffic(TorchDispatchMode):
    """Counts the bytes that torch operations read and write inside its ``with`` block; views are free.

    Attributes:
        bytes: of all arguments and results.
        calls: how many operations there were.
        log: (name, bytes read, bytes written) of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int, int]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first operation of a process would import torch's compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = size((args, kwargs)), size(out)
        if not func.is_view and read + written:
            self.log.append((func.overloadpacket.__name__.strip("_"), read, written))
        return out

    @property
    def bytes(self) -> int:
        """Read and written."""
        return sum(read + written for _, read, written in self.log)

    @property
    def calls(self) -> int:
        """Of operations."""
        return len(self.log)


def size(x: Any) -> int:
    """Bytes of all tensors in x."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(x) if isinstance(t, Tensor))


class Counted:
    """An array whose entries are read and written one by one, as the numbers of a machine's memory are.

    Args:
        values: what it holds at first.

    Attributes:
        values: what it holds now.
        bytes: read and written so far, at 4 bytes a number.
    """

    def __init__(self, values: Any):
        self.values = np.array(values, float)
        self.bytes = 0

    def __getitem__(self, place: Any) -> float:
        self.bytes += 4
        return float(self.values[place])

    def __setitem__(self, place: Any, value: float) -> None:
        self.bytes += 4
        self.values[place] = value


# The record.


class LayerPoint(NamedTuple):
    """A layer of N neurons; times by contender: lower quartile, median, upper quartile."""

    N: int
    ms: dict[str, list[float]]
    updates: int  # T * B * N

    def ns(self, way: str) -> NDArray[np.float64]:
        """Nanoseconds a neuron and step."""
        return 1e6 * np.array(self.ms[way]) / self.updates

    def speed(self, way: str) -> float:
        """GFLOP/s, of the operations that are needed."""
        return WORK / float(self.ns(way)[1])

    def times_as_fast(self, way: str) -> float:
        """As the loop."""
        return self.ms["loop"][1] / self.ms[way][1]


@cache
def layers() -> tuple[LayerPoint, ...]:
    """All of the record, by N."""
    found = measured.load()["layer"]
    return tuple(LayerPoint(p["N"], p["ms"], found["T"] * found["B"] * p["N"]) for p in found["points"])


def layer(N: int) -> LayerPoint:
    """The record of a layer.

    Raises:
        KeyError: that size was not measured.
    """
    return {p.N: p for p in layers()}[N]


class StepPoint(NamedTuple):
    """A whole step of learning, with N neurons in each hidden layer."""

    N: int
    density: float
    ms: dict[str, list[float]]
    cosine: dict[str, float]  # of the sparse gradient to the whole one, by the surrogate's steepness
    within: float  # B_th

    def times_as_fast(self, way: str) -> float:
        """As the loop."""
        return self.ms["loop"][1] / self.ms[way][1]

    @property
    def best(self) -> str:
        """The fastest of the exact ways."""
        return min(("loop", "fused", "events"), key=lambda way: self.ms[way][1])


@cache
def steps() -> tuple[StepPoint, ...]:
    """All of the record, by N and density."""
    points = measured.load()["step"]["points"]
    return tuple(StepPoint(p["N"], p["density"], p["ms"], p["cosine"], p["within"]) for p in points)


def step(N: int, density: float) -> StepPoint:
    """The record of a step.

    Raises:
        KeyError: it was not measured there.
    """
    return {(p.N, p.density): p for p in steps()}[N, density]


def break_even(N: int, way: str = "events") -> float:
    """The density at which a way by events takes as long as dense products behind fused neurons.

    Between two measured densities the logarithms of both times are taken as straight lines over that of the density.
    Infinite where events are faster at all that were measured, 0 where at none.
    """
    points = [p for p in steps() if p.N == N]
    x = [math.log(p.density) for p in points]
    y = [math.log(p.ms[way][1] / p.ms["fused"][1]) for p in points]
    if y[0] >= 0:
        return 0.0
    i = next((i for i in range(1, len(y)) if y[i] >= 0), None)
    if i is None:
        return math.inf
    return math.exp(x[i - 1] + (x[i] - x[i - 1]) * -y[i - 1] / (y[i] - y[i - 1]))


def roofs() -> tuple[float, float]:
    """GB/s of a copy, GFLOP/s of a matrix product, one thread."""
    found = measured.load()["roofs"]
    return found["GB/s"], found["GFLOP/s"]


def roof(intensity: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """GFLOP/s at best, at so many operations a byte."""
    bandwidth, peak = roofs()
    return np.minimum(bandwidth * np.asarray(intensity, float), peak)


def bound(bytes_: float = FORWARD + BACKWARD) -> float:
    """Nanoseconds that so many bytes take at the speed of a copy."""
    return bytes_ / roofs()[0]


def product_intensity(rows: int = 3200, inputs: int = 700, outputs: int = 200) -> float:
    """Operations a byte of a matrix product (rows, inputs) x (inputs, outputs), each number moved once."""
    moved = 4 * (rows * inputs + inputs * outputs + rows * outputs)
    return 2 * rows * inputs * outputs / moved


@cache
def moved() -> dict[str, float]:
    """Bytes that each way moves for a neuron and step, forward and backward: counted, not timed; T = 100."""
    from snnlearn import kernels
    from snnlearn.bench.contenders import LayerProblem, naive_layer, our_layer

    problem = LayerProblem.make(100, 16, 64, measured.CPU)
    found: dict[str, float] = {"fused": FORWARD + BACKWARD}
    for name, contender in (("loop", naive_layer(problem)), ("scan", our_layer(problem))):
        with kernels.off(), Traffic() as traffic:
            contender.step()
        found[name] = traffic.bytes / problem.a.numel()
    return found


def bench_text(words: Sequence[str] = ()) -> str:
    """What ``snnlearn bench`` printed when the record was made, rows with one of the words."""
    found = measured.load()["bench"]
    rows = [Row(**{k: v for k, v in row.items() if k != "met"}) for row in found["rows"]]
    if words:
        rows = [row for row in rows if any(word in f"{row.metric} {row.size}" for word in words)]
    points = [Point(**point) for point in found["growth"]]
    return str(bench.Results(found["machine"], rows, points, found["growth_note"]))


def spikes(*shape: int, density: float, seed: int) -> Tensor:
    """Zeros and ones."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density).float()
