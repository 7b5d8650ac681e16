"""``snnlearn bench``: how fast and how small the kernels are here, beside a naive loop and beside other libraries.

Every result is compared with the baseline's before it is timed, contenders take turns, the clock is the processor time
of one thread, and what is shown are medians with quartiles. A goal that is missed is a measurement, not an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from snnlearn import kernels
from snnlearn.bench import growth, peers, plan
from snnlearn.bench.contenders import Disagreement
from snnlearn.bench.machine import describe
from snnlearn.bench.rows import NotMeasured, Row, Settings, need_kernels
from snnlearn.bench.timing import one_thread

ROUNDS, QUICK_ROUNDS = 9, 3


@dataclass(frozen=True)
class Results:
    """What was measured, and on what."""

    machine: dict[str, str]
    rows: list[Row]
    growth: list[growth.Point]
    growth_note: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON takes it; every row with ``metric, size, value, goal, met`` and more."""
        return {
            "machine": self.machine,
            "rows": [asdict(row) | {"met": row.met} for row in self.rows],
            "growth": [asdict(point) for point in self.growth],
            "growth_note": self.growth_note,
        }

    def __str__(self) -> str:
        return "\n".join([*_machine(self.machine), "", *_table(self.rows), "", *_growth(self)])


def run(
    *,
    quick: bool = False,
    against: Sequence[str] | None = None,
    device: str = "cpu",
    only: Sequence[str] = (),
    progress: bool = True,
) -> Results:
    """Measure.

    Args:
        quick: small sizes, few rounds, seconds instead of minutes; no size is a goal's.
        against: names of other libraries; by default those that are installed.
        device: "cpu" or "cuda". Rows of the CPU are measured on it in any case, layers and steps on the device.
        only: words; a row is measured if one of them is in its metric or size.
        progress: whether to show progress on stderr.

    Raises:
        ValueError: a library is unknown, there is no such device, or no row has one of the words.
    """
    where = _device(device)
    names = [name for name in peers.PEERS if peers.installed(name)] if against is None else list(against)
    chosen, missing = peers.chosen(names)
    wanted = [
        m for m in plan.measurements(quick, where.type) if _wanted(only, *(f"{r.metric} {r.size}" for r in m.rows))
    ]
    points = growth.points(quick) if _wanted(only, "growth of cost") else []
    if not wanted and not points:
        metrics = dict.fromkeys(row.metric for m in plan.measurements(quick, where.type) for row in m.rows)
        raise ValueError(
            f"no row has one of the words {', '.join(only)}; there are: {'; '.join(metrics)}; growth of cost"
        )
    settings = Settings(where, QUICK_ROUNDS if quick else ROUNDS, tuple(chosen), tuple(missing))
    kernels.ready(kernels.WORTH)  # compiled before the clock runs
    rows: list[Row] = []
    found: list[growth.Point] = []
    note = ""
    with one_thread(), tqdm(total=len(wanted) + len(points), disable=not progress, file=sys.stderr) as bar:
        machine = describe(where) | {f"peer {peer.name}": peers.version(peer.name) for peer in chosen}
        for measurement in wanted:
            bar.set_description(f"{measurement.rows[0].metric.partition(',')[0]} {measurement.rows[0].size}")
            rows += measurement.filled(settings)
            bar.update()
        for over, at, measure in points:
            bar.set_description(f"growth with {over}, {at}")
            try:
                need_kernels(where)
                found.append(measure(settings))
            except (NotMeasured, Disagreement, RuntimeError, ImportError) as reason:
                note = f"not measured at {over} {at}: {reason}"
            bar.update()
    return Results(machine, rows, found, note)


def _device(name: str) -> torch.device:
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here; `snnlearn info` says why. Use --device cpu")
    return torch.device(name)


def _wanted(words: Sequence[str], *texts: str) -> bool:
    return not words or any(word.lower() in text.lower() for word in words for text in texts)


def _machine(machine: dict[str, str]) -> Iterator[str]:
    width = max(map(len, machine))
    for name, value in machine.items():
        yield f"{name:{width}}  {value}"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """A line a row, its note below."""
    if not rows:
        return
    width = max(len(row.metric) for row in rows)
    yield f"{'metric':{width}}  {'size':18}{'value':>8}  {'quartiles':>15}  {'goal':>7}  met"
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.1f} {row.unit}"
        spread = "" if row.spread is None else f"{row.spread[0]:.1f} to {row.spread[1]:.1f}"
        goal = "" if row.goal is None else f"{row.goal:g} {row.unit}"
        met = {None: "", True: "yes", False: "no"}[row.met]
        yield f"{row.metric:{width}}  {row.size:18}{value:>8}  {spread:>15}  {goal:>7}  {met}".rstrip()
        if row.ms:
            yield "    " + ", ".join(f"{name} {ms:.4g} ms" for name, ms in row.ms.items())
        if row.note:
            yield f"    {row.note}"


def _growth(results: Results) -> Iterator[str]:
    """How cost grows, a line a point."""
    if results.growth:
        yield "how cost grows: a layer over T, B, N; a whole step over the density of its input"
    for point in results.growth:
        at = f"{point.at:.1%}" if point.over == "density" else f"{point.at}"
        times = ", ".join(f"{name} {ms:.4g} ms" for name, ms in point.ms.items())
        times_as_fast = ", ".join(f"{name} {r:.1f} x" for name, r in point.ratio.items())
        yield f"  {point.over:8}{at:>6}  ({point.size})  {times}  {times_as_fast}"
    if results.growth_note:
        yield f"  {results.growth_note}"
