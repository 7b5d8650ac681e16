"""Tutorial 14, from loop to kernel: the times that it shows, taken once and kept beside this file as kernels.json.

Made by ``python -m snnlearn.lessons.kernels_measured`` on one processor, by the rules of ``snnlearn bench``: one
thread, its processor time, contenders in turn, medians with quartiles, and each result compared with the loop's before
it is timed. Another machine has other times; the notebook and the tests read the file and time nothing.
"""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnlearn import bench, kernels
from snnlearn.bench.contenders import (
    INPUTS,
    NEURON,
    STEEPNESS,
    Contender,
    LayerProblem,
    Outcome,
    StepProblem,
    agree,
    fused_step,
    naive_layer,
    naive_step,
    our_layer,
)
from snnlearn.bench.machine import describe
from snnlearn.bench.timing import Spread, in_turn, one_thread, repeats
from snnlearn.eventlayers import LinearLIF
from snnlearn.eventpath import Path as Way
from snnlearn.neurons import readout
from snnlearn.spikes import Spikes

RECORD = Path(__file__).with_name("kernels.json")
CPU = torch.device("cpu")
ROUNDS = 9

LAYER = (100, 16)  # T, B of the layer alone
LAYER_SIZES = (4, 16, 64, 256, 1024, 4096)  # its N
STEP = (100, 32)  # T, B of a whole step: INPUTS-N-N-20
STEP_SIZES = (50, 100, 200, 500, 1000)
DENSITIES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of the step's input
LAYER_WAYS = ("loop", "scan", "fused")
STEP_WAYS = ("loop", "fused", "events", "sparse")
BENCH_ROWS = (
    "LIF layer, forward + backward, vs naive T100 B64",
    "whole step, exact, vs naive T500 B128",
    "whole step, sparse gradient, vs naive T500 B128",
    "memory saved, exact T500 B128",
)

Times = dict[str, list[float]]
"""By contender: lower quartile, median and upper quartile, in ms."""


def timed(steps: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> Times:
    """Processor time of each step, in turn."""
    for step in steps.values():
        step()
    turns = max(repeats(step, time.process_time, least=5e-3) for step in steps.values())
    spreads = {name: Spread.of(seconds) for name, seconds in in_turn(steps, rounds, repeats=turns).items()}
    return {name: [_digits(1e3 * x) for x in (s.low, s.median, s.high)] for name, s in spreads.items()}


def _digits(x: float) -> float:
    """Four of them."""
    return float(f"{x:.4g}")


def layer(N: int) -> dict[str, Any]:
    """Forward and backward pass of one layer: the loop, the library's torch path, its kernel."""
    problem = LayerProblem.make(*LAYER, N, CPU)
    loop, fused = naive_layer(problem), our_layer(problem)

    def scan() -> Any:
        with kernels.off():
            return fused.step()

    contenders = {"loop": loop, "scan": Contender("scan", scan), "fused": fused}
    for contender in contenders.values():
        agree(contender.name, contender.outcome(), loop.outcome())
    return {"N": N, "ms": timed({name: c.step for name, c in contenders.items()})}


def by_events(problem: StepProblem, name: str) -> Contender:
    """`LinearLIF` on the path of events at every density; the input comes as bits."""
    layers = []
    for i, W in enumerate(problem.weights):
        neuron = NEURON if i < len(problem.weights) - 1 else readout(tau_mem=20e-3, dt=1e-3)
        outputs, inputs = W.shape
        layers.append(LinearLIF(inputs, outputs, neuron, surrogate=problem.surrogate, bias=False, path=Way.EVENTS))
        with torch.no_grad():
            layers[-1].weight.copy_(W)
    bits = Spikes.pack(problem.x)
    weights = [layer.weight for layer in layers]

    def step() -> tuple[tuple, tuple[Tensor, ...]]:
        passed: list[Any] = [bits]
        for layer in layers:
            passed.append(layer(passed[-1]))
        return problem.differentiate(passed[1:-1], passed[-1], weights)

    return Contender(name, step, lambda found: Outcome(tuple(s.dense() for s in found[0]), found[1]))


def cosine(g: Tensor, h: Tensor) -> float:
    """Of two gradients of one weight."""
    return round(torch.cosine_similarity(g.flatten(), h.flatten(), dim=0).item(), 4)


def step(N: int, density: float) -> dict[str, Any]:
    """A whole step of learning, and how the sparse gradient of the lowest weights lies to the whole one."""
    exact, narrow = (StepProblem.make(*STEP, N, CPU, density=density, sparse=s) for s in (False, True))
    loop, cut = naive_step(exact, name="loop"), naive_step(narrow, within=narrow.within)
    contenders = [loop, fused_step(exact), by_events(exact, "events"), by_events(narrow, "sparse")]
    wanted, sparse = loop.outcome(), cut.outcome()
    for contender in contenders:
        agree(contender.name, contender.outcome(), sparse if contender.name == "sparse" else wanted)
    shallow = naive_step(exact, within=narrow.within).outcome()
    cosines = {
        f"{narrow.steepness:g}": cosine(sparse.gradients[0], naive_step(narrow).outcome().gradients[0]),
        f"{STEEPNESS:g}": cosine(shallow.gradients[0], wanted.gradients[0]),
    }
    times = timed({c.name: c.step for c in contenders} | {"pack": lambda: Spikes.pack(exact.x)})
    return {"N": N, "density": density, "within": narrow.within, "cosine": cosines, "ms": times}


def roofs() -> dict[str, float]:
    """What one thread can at best: bytes a second of our copy, operations a second of a matrix product."""
    a, (A, B) = torch.randn(2**25), torch.randn(2, 1024, 1024)
    seconds = in_turn({"copy": lambda: torch.ops.snnlearn.stream_copy(a), "product": lambda: A @ B}, 3 * ROUNDS)
    copy, product = (statistics.median(seconds[name]) for name in ("copy", "product"))
    return {"GB/s": _digits(8 * a.numel() / copy / 1e9), "GFLOP/s": _digits(2 * 1024**3 / product / 1e9)}


def measure() -> dict[str, Any]:
    """The whole record; minutes.

    Raises:
        BuildError: there are no kernels to time.
        Disagreement: a contender does not compute what the loop does.
    """
    kernels.load()
    with one_thread():
        record: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": describe(CPU),
            "roofs": roofs(),
            "layer": {"T": LAYER[0], "B": LAYER[1], "points": [layer(N) for N in LAYER_SIZES]},
        }
        points = [step(N, density) for N in STEP_SIZES for density in DENSITIES]
        record["step"] = {"T": STEP[0], "B": STEP[1], "inputs": INPUTS, "points": points}
    record["bench"] = found = bench.run(against=(), only=BENCH_ROWS, progress=False).record()
    found["rows"] = [row for row in found["rows"] if row["value"] is not None]  # of other processors, or of peers
    return record


@cache
def load() -> dict[str, Any]:
    """The record: date, machine, roofs, layer, step, bench."""
    return json.loads(RECORD.read_text())


def main() -> None:
    """Measure, and write the record."""
    text = json.dumps(measure(), separators=(",", ":"), ensure_ascii=False)
    RECORD.write_text(text.replace('},{"', '},\n{"').replace('],"', '],\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
