"""How cost grows, ours and the naive loop's: with T, N and B of one layer, with the density of the input of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snnlearn.bench.contenders import (
    Contender,
    LayerProblem,
    StepProblem,
    agree,
    event_step,
    naive_layer,
    naive_step,
    our_layer,
)
from snnlearn.bench.rows import Settings, milliseconds, sized, timed
from snnlearn.bench.timing import ratio

BASE = {"T": 200, "B": 64, "N": 200}
AXES = {"T": (50, 200, 800), "B": (16, 64, 256), "N": (50, 200, 800)}
DENSITIES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Point:
    """Milliseconds, medians, at one value of what is varied.

    Args:
        over: "T", "B", "N" (of a layer, forward and backward) or "density" (of the input of a whole step).
        at: its value.
        size: the rest.
        ms: of each contender.
        ratio: how many times as long the naive loop takes, for each other contender.
    """

    over: str
    at: float
    size: str
    ms: dict[str, float]
    ratio: dict[str, float]


def points(quick: bool) -> list[tuple[str, float, Callable[[Settings], Point]]]:
    """What to measure, by what is varied and its value; reduced to two lengths and two densities where it is quick."""
    found: list[tuple[str, float, Callable[[Settings], Point]]] = []
    base = BASE if not quick else {"T": 50, "B": 16, "N": 64}
    axes = AXES if not quick else {"T": (50, 100)}
    for over, values in axes.items():
        found += [(over, at, _layer(over, at, base | {over: at})) for at in values]
    step = (200, 32, 200) if not quick else (50, 8, 100)
    return found + [("density", at, _step(at, step)) for at in (DENSITIES if not quick else (0.02, 0.2))]


def _layer(over: str, at: int, size: dict[str, int]) -> Callable[[Settings], Point]:
    def measure(settings: Settings) -> Point:
        problem = LayerProblem.make(size["T"], size["B"], size["N"], settings.device)
        baseline, ours = naive_layer(problem), our_layer(problem)
        agree(ours.name, ours.outcome(), baseline.outcome())
        rest = " ".join(f"{name}{value}" for name, value in size.items() if name != over)
        return _point(over, at, rest, baseline, [ours], settings)

    return measure


def _step(density: float, shape: tuple[int, int, int]) -> Callable[[Settings], Point]:
    def measure(settings: Settings) -> Point:
        exact, sparse = (StepProblem.make(*shape, settings.device, density=density, sparse=s) for s in (False, True))
        baseline, cut = naive_step(exact), naive_step(sparse, within=sparse.within)
        contenders = [event_step(exact, "exact"), event_step(sparse, "sparse")]
        for contender, wanted in zip(contenders, (baseline, cut), strict=True):
            agree(contender.name, contender.outcome(), wanted.outcome())
        return _point("density", density, sized(shape), baseline, contenders, settings)

    return measure


def _point(over: str, at: float, size: str, baseline: Contender, others: list[Contender], settings: Settings) -> Point:
    seconds = timed(baseline, others, settings)
    ms = milliseconds(seconds)
    return Point(over, at, size, ms, {c.name: ratio(seconds[baseline.name], seconds[c.name]).median for c in others})
