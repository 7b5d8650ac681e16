"""The fused kernel alone, beside a copy made with the same stores into memory of the same pool."""

from __future__ import annotations

import statistics
import time

import torch

from snnlearn.bench.contenders import BETA, STEEPNESS, Contender, LayerProblem, Outcome, agree, naive_layer
from snnlearn.bench.timing import Spread, in_turn, repeats
from snnlearn.kernels.codes import Bound, Fire, Reset, Seen, Slope
from snnlearn.surrogate import FastSigmoid

FORWARD = 12
"""Bytes a neuron and step: a is read, U and s are written, in single precision."""
BACKWARD = 12
"""e and U are read, dL/da is written."""
COPY = 8
"""One is read, one written."""


def scan_shares(shape: tuple[int, int, int], rounds: int) -> tuple[tuple[Spread, Spread], dict[str, float], str]:
    """Bytes a second of the forward and of the backward kernel, in percent of the copy's; milliseconds; a note.

    Raises:
        Disagreement: the kernels compute something else than the naive loop.
    """
    ops = torch.ops.snnlearn
    problem = LayerProblem.make(*shape, torch.device("cpu"))
    a, rest = problem.a.detach(), torch.zeros_like(problem.e[0])
    numbers, kinds = [0.0, BETA, 1.0, 0.0, 1.0], [Reset.SUBTRACT, Bound.NONE, Fire.REACH, 0]
    shape_of = FastSigmoid.from_steepness(STEEPNESS)
    slope, seen = [1 / shape_of.width, 1.0, float("inf")], [Seen.KEPT, Slope.FAST_SIGMOID, 0, 0]

    def forward() -> tuple:
        return ops.scan_forward(a, rest, rest, rest, [], numbers, kinds)

    _, U, s = forward()

    def backward() -> list:
        none = (None,) * 4
        return ops.scan_reverse(
            None, None, problem.e, None, U, rest, rest, rest, *none, [], numbers, kinds, slope, [], seen, False
        )

    def copy() -> torch.Tensor:
        return ops.stream_copy(a)

    if not torch.equal(copy(), a):
        raise RuntimeError("the copy is none")
    kernel = Contender("kernel", lambda: ((s,), (backward()[0],)))
    agree(kernel.name, Outcome(*kernel.step()), naive_layer(problem).outcome())
    steps = {"forward": forward, "backward": backward, "copy": copy}
    for step in steps.values():
        step()
    seconds = in_turn(steps, 3 * rounds, repeats=repeats(copy, time.process_time))
    shares = [
        Spread.of([100 * bytes_ / COPY * c / t for t, c in zip(seconds[name], seconds["copy"], strict=True)])
        for name, bytes_ in (("forward", FORWARD), ("backward", BACKWARD))
    ]
    ms = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
    speed = COPY * a.numel() / statistics.median(seconds["copy"]) / 1e9
    return (shares[0], shares[1]), ms, f"the copy makes {speed:.1f} GB/s, read and written"
