"""The rows of the table: a metric at a size, how it is measured, and the goal for it.

A measurement may fill several rows. What cannot be measured here says why in the row's note; so does a contender that
disagrees with the baseline, which is refused and not timed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from snnlearn import kernels
from snnlearn.bench import memory
from snnlearn.bench.contenders import (
    Contender,
    Disagreement,
    LayerProblem,
    StepProblem,
    agree,
    event_step,
    fused_step,
    naive_layer,
    naive_step,
    our_layer,
    our_recurrent,
)
from snnlearn.bench.peers import Peer
from snnlearn.bench.scan import scan_shares
from snnlearn.bench.timing import Spread, clock, in_turn, ratio, repeats
from snnlearn.kernels import cuda

Shape = tuple[int, int, int]
"""T, B, N."""


def sized(shape: Shape) -> str:
    """As it is shown."""
    return "T{} B{} N{}".format(*shape)


SHORT = 5e-3
"""Seconds that a turn takes at least."""


class NotMeasured(Exception):
    """What cannot be measured here, and why."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        metric, size: what is measured, and at which size.
        unit: "x" for so many times as fast, "%" or "MB".
        goal: at least this, in MB at most; None where the size is not a goal's.
        value: the median; None where it was not measured.
        spread: its quartiles, or None for a single measurement.
        ms: milliseconds of each contender, medians.
        note: what else there is to say.
    """

    metric: str
    size: str
    unit: str
    goal: float | None = None
    value: float | None = None
    spread: tuple[float, float] | None = None
    ms: dict[str, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value <= self.goal if self.unit == "MB" else self.value >= self.goal

    def filled(self, found: Found | str) -> Row:
        """With what was found, or the reason why nothing was."""
        if isinstance(found, str):
            return replace(self, note=found)
        value = found.value
        spread = (value.low, value.high) if isinstance(value, Spread) else None
        median = value.median if isinstance(value, Spread) else value
        return replace(self, value=median, spread=spread, ms=found.ms, note=found.note)


@dataclass(frozen=True)
class Found:
    """What a measurement found for one row."""

    value: Spread | float
    ms: dict[str, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    device: torch.device
    rounds: int
    against: tuple[Peer, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Rows that are filled together, in their order."""

    rows: tuple[Row, ...]
    take: Callable[[Settings], Sequence[Found | str]]

    def filled(self, settings: Settings) -> list[Row]:
        """The rows, measured; or each with the reason why not."""
        try:
            found = self.take(settings)
        except NotMeasured as reason:
            found = [f"not measured: {reason}"] * len(self.rows)
        except Disagreement as reason:
            found = [f"refused: {reason}"] * len(self.rows)
        except (RuntimeError, MemoryError, ImportError) as error:
            first = str(error).partition("\n")[0] or type(error).__name__
            found = [f"not measured: {first}"] * len(self.rows)
        return [row.filled(f) for row, f in zip(self.rows, found, strict=True)]


def need_kernels(device: torch.device) -> None:
    """Refuse to take the reference path for the kernels.

    Raises:
        NotMeasured: says what is missing.
    """
    if device.type == "cuda":
        if not cuda.ready(device, kernels.WORTH):
            raise NotMeasured(f"cuda kernels {kernels.status()['cuda kernels']}")
        return
    if not kernels.ready(kernels.WORTH):
        status = kernels.status()["cpu kernels"]
        raise NotMeasured(f"the kernels are {'off' if status.startswith('built') else status}")


def timed(baseline: Contender, others: Sequence[Contender], settings: Settings) -> dict[str, list[float]]:
    """Seconds of the baseline and the others in turn; more rounds, and more steps a turn, where steps are short."""
    now, steps = clock(settings.device), {c.name: c.step for c in (baseline, *others)}
    often = max(repeats(step, now, SHORT) for step in steps.values())
    rounds = settings.rounds if often == 1 else 3 * settings.rounds
    return in_turn(steps, rounds, now, often)


def milliseconds(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians."""
    return {name: 1e3 * statistics.median(found) for name, found in seconds.items()}


def layer_rows(shape: Shape, settings: Settings) -> list[Found | str]:
    """Our layer against the naive loop, and against the fastest of the peers."""
    need_kernels(settings.device)
    problem = LayerProblem.make(*shape, settings.device)
    baseline, ours = naive_layer(problem), our_layer(problem)
    agree(ours.name, ours.outcome(), baseline.outcome())
    peers, refused = [], list(settings.missing)
    for peer in settings.against:
        try:
            peer.check(settings.device)
            peers.append(peer.contender(problem))
        except (Disagreement, RuntimeError, TypeError, AttributeError) as error:  # another version of it
            refused.append(f"{peer.name} refused: {str(error).partition(chr(10))[0]}")
    seconds = timed(baseline, [ours, *peers], settings)
    ms = milliseconds(seconds)
    mine = {name: ms[name] for name in (baseline.name, ours.name)}
    note = floor(problem, ms[baseline.name], settings)
    found: list[Found | str] = [Found(ratio(seconds[baseline.name], seconds[ours.name]), mine, note)]
    if not peers:
        return [*found, "; ".join(["not measured: no other library to compare with", *refused])]
    best = min(peers, key=lambda peer: ms[peer.name])
    others = [f"{peer.name} takes {ms[peer.name] / ms[baseline.name]:.2f} of naive's time" for peer in peers]
    note = "; ".join([f"the best is {best.name}, {best.note()}", *others, *refused])
    return [*found, Found(ratio(seconds[best.name], seconds[ours.name]), ms, note)]


def recurrent_rows(shape: Shape, settings: Settings) -> list[Found | str]:
    """Our recurrent layer against the naive loop; `LIF` with a recurrent module beside it."""
    need_kernels(settings.device)
    problem = LayerProblem.make(*shape, settings.device, recurrent=True)
    baseline, others = naive_layer(problem), [our_recurrent(problem), our_layer(problem)]
    wanted = baseline.outcome()
    for contender in others:
        agree(contender.name, contender.outcome(), wanted)
    seconds = timed(baseline, others, settings)
    return [Found(ratio(seconds[baseline.name], seconds["ours"]), milliseconds(seconds))]


def floor(problem: LayerProblem, naive: float, settings: Settings) -> str:
    """What the memory alone allows: a and e are read, s, U and dL/da written, U read; ``naive`` in milliseconds."""
    if settings.device.type != "cpu":
        return ""
    a, copy = problem.a.detach(), torch.ops.snnlearn.stream_copy
    best = 3e3 * statistics.median(in_turn({"copy": lambda: copy(a)}, 3 * settings.rounds)["copy"])  # 24 bytes, not 8
    if naive > 20 * best:  # at small sizes it is not the memory that decides
        return ""
    return f"24 bytes a neuron and step take {best:.3g} ms at the speed of our copy, so {naive / best:.1f} x at most"


def step_rows(shape: Shape, sparse: bool, settings: Settings) -> list[Found | str]:
    """A whole step by events against the naive loop; exact, also the fused neurons behind dense products."""
    need_kernels(settings.device)
    problem = StepProblem.make(*shape, settings.device, sparse=sparse)
    baseline = naive_step(problem)
    wanted = baseline.outcome()
    events = event_step(problem)
    notes = []
    if sparse:
        whole = wanted
        wanted = naive_step(problem, within=problem.within).outcome()
        cosine = torch.nn.functional.cosine_similarity(
            wanted.gradients[0].flatten(), whole.gradients[0].flatten(), dim=0
        )
        notes.append(f"B_th = {problem.within}; the lowest gradient's cosine to the whole one is {cosine:.3f}")
    agree(events.name, events.outcome(), wanted)
    others = [events]
    if not sparse:
        fused = fused_step(problem)
        agree(fused.name, fused.outcome(), wanted)
        others.append(fused)
    del wanted
    seconds = timed(baseline, others, settings)
    ms = milliseconds(seconds)
    notes.append(events.note())
    found: list[Found | str] = [Found(ratio(seconds[baseline.name], seconds[c.name]), ms) for c in others]
    found[0] = Found(ratio(seconds[baseline.name], seconds[events.name]), ms, "; ".join(notes))
    return found


def scan_rows(shape: Shape, settings: Settings) -> list[Found | str]:
    """Bytes a second of the kernels beside those of a copy."""
    need_kernels(settings.device)
    shares, ms, note = scan_shares(shape, settings.rounds)
    return [Found(share, ms, note) for share in shares]


def memory_rows(shape: Shape, settings: Settings) -> list[Found | str]:
    """Peak memory of a whole step, exact and sparse, beside the naive loop's."""
    need_kernels(settings.device)
    T, B, N = shape
    job: dict[str, Any] = {"what": "step", "T": T, "B": B, "N": N}
    naive = memory.in_child(job | {"contender": "naive"})
    found: list[Found | str] = []
    for name in ("exact", "sparse"):
        ours = memory.in_child(job | {"contender": name})
        found.append(Found(100 * (1 - ours / naive), note=f"{ours / 1e6:.0f} of {naive / 1e6:.0f} MB"))
    return found


def forward_rows(lengths: tuple[int, int], settings: Settings) -> list[Found | str]:
    """By how much the memory of a rule forward in time grows with T; BPTT's beside it."""
    short, long = (
        {name: memory.in_child({"what": "rule", "name": name, "T": T}) / 1e6 for name in ("eligibility", "bptt")}
        for T in lengths
    )
    note = f"BPTT goes from {short['bptt']:.0f} to {long['bptt']:.0f} MB"
    return [Found(max(0.0, long["eligibility"] - short["eligibility"]), note=note)]


def gpu_rows(shape: Shape, settings: Settings) -> list[Found | str]:
    """Our layer on a GPU: against the naive loop, against the best peer, and its bytes a second beside a copy's."""
    need_gpu(settings)
    found = layer_rows(shape, settings)
    now, source = clock(settings.device), torch.empty(2**28, device=settings.device)  # 1 GiB, more than any cache
    target = torch.empty_like(source)
    copies = in_turn({"copy": lambda: target.copy_(source)}, 3 * settings.rounds, now)["copy"]
    best = 2 * source.numel() * source.element_size() / statistics.median(copies)
    ours = 24 * math.prod(shape) / found[0].ms["ours"] * 1e3  # type: ignore[union-attr,index]
    note = f"copy {best / 1e9:.0f} GB/s; a and e read, s, U and dL/da written, U read, by the time of the public module"
    return [*found, Found(100 * ours / best, note=note)]


def need_gpu(settings: Settings) -> None:
    """Refuse to measure a row of the GPU on anything else.

    Raises:
        NotMeasured: says why.
    """
    if settings.device.type != "cuda":
        raise NotMeasured("ask for it by --device cuda" if torch.cuda.is_available() else "no GPU")


def gpu_step_rows(shape: Shape, sparse: bool, settings: Settings) -> list[Found | str]:
    """`step_rows` on a GPU."""
    need_gpu(settings)
    return step_rows(shape, sparse, settings)
