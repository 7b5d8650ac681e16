"""Contenders in turn: A B A B, so that what else the machine does falls on all of them alike.

On a CPU the clock is the processor time of this process, all its threads added up: other processes do not count. On a
GPU it is the time on the wall until the device has nothing left to do.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Clock = Callable[[], float]
"""Seconds since some moment."""


def clock(device: torch.device) -> Clock:
    """The clock for work on a device."""
    if device.type == "cpu":
        return time.process_time

    def after_all() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return after_all


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        """Of at least one number."""
        if len(sample) == 1:
            return cls(sample[0], sample[0], sample[0])
        low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
        return cls(median, low, high)


def in_turn(
    steps: Mapping[str, Callable[[], object]], rounds: int, now: Clock = time.process_time, repeats: int = 1
) -> dict[str, list[float]]:
    """Seconds of each step in each round; within a round each has its turn, in the order given.

    Args:
        steps: what to time, by name. What a step returns is let go before the clock is read again.
        rounds: at least 1.
        now: the clock.
        repeats: how often a step runs in its turn, for steps that are short beside the clock.
    """
    found: dict[str, list[float]] = {name: [] for name in steps}
    with no_collector():
        for _ in range(rounds):
            for name, step in steps.items():
                start = now()
                for _ in range(repeats):
                    step()
                found[name].append((now() - start) / repeats)
    return found


def repeats(step: Callable[[], object], now: Clock, least: float = 0.02) -> int:
    """How often a step has to run in a turn for the turn to take ``least`` seconds."""
    start = now()
    step()
    return max(1, min(1000, round(least / max(now() - start, 1e-6))))


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times as long the one takes as the other, round by round."""
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])


@contextmanager
def no_collector() -> Iterator[None]:
    """Inside, Python's garbage collector does not run; what was garbage is collected before."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
