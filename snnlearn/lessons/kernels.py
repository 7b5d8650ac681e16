"""Tutorial 14, from loop to kernel: the pictures and the panels.

The numbers come from `kernels_numbers` and, where they are times, from the record of `kernels_measured`: no picture
times anything. A ``draw_...`` function is what a `LivePanel` calls: at its first call it makes the artists, later it
moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import kernels_numbers as numbers
from snnlearn.lessons.common import heading, keys
from snnlearn.lessons.kernels_exercises import least_exercise as least_exercise
from snnlearn.lessons.kernels_exercises import reverse_exercise as reverse_exercise
from snnlearn.lessons.kernels_exercises import unpack_exercise as unpack_exercise
from snnlearn.lessons.kernels_exercises import whole_exercise as whole_exercise
from snnlearn.lessons.kernels_measured import DENSITIES, LAYER, LAYER_SIZES, LAYER_WAYS, STEP, STEP_SIZES, STEP_WAYS
from snnlearn.lessons.kernels_measured import load as load
from snnlearn.lessons.kernels_numbers import Counted as Counted
from snnlearn.lessons.kernels_numbers import Traffic as Traffic
from snnlearn.lessons.kernels_numbers import bench_text as bench_text
from snnlearn.lessons.kernels_numbers import spikes as spikes
from snnlearn.plots import COLORS, label
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel

ROLES = {"loop": "threshold", "scan": "loss", "fused": "membrane", "events": "current", "sparse": "surrogate"}
MARKS = {"loop": "o", "scan": "s", "fused": "^", "events": "D", "sparse": "v"}
WORDS = {
    "loop": "loop, autograd",
    "scan": "one recursion, by torch operations",
    "fused": "fused",
    "events": "events, exact",
    "sparse": "events, sparse gradient",
}


def _keys(ax: Axes, ways: Sequence[str], x: float, y: float, step: float = 0.065) -> None:
    """A mark and a word for each way, below each other."""
    for i, way in enumerate(ways):
        ax.plot([x], [y - step * i], MARKS[way], color=COLORS[ROLES[way]], markersize=6, transform=ax.transAxes)
        keys(ax, (x + 0.03, WORDS[way], ROLES[way]), y=y - step * i)


def _log_axis(ax: Axes, which: str, ticks: Sequence[float], texts: Sequence[str] | None = None) -> None:
    """A logarithmic axis with these ticks and no others."""
    axis = getattr(ax, f"{which}axis")
    getattr(ax, f"set_{which}scale")("log")
    axis.set_ticks(list(ticks), [f"{t:g}" for t in ticks] if texts is None else list(texts))
    axis.set_ticks([], minor=True)


# A still picture: where the bytes go.


def draw_bytes(ax: Axes, rows: dict[str, tuple[float, float]]) -> None:
    """Bytes read and written for each neuron and step, (read, written) by name, a bar each."""
    for i, (read, written) in enumerate(rows.values()):
        ax.barh(-i, read, height=0.6, color=COLORS["membrane"], label="read" if i == 0 else None)
        ax.barh(-i, written, left=read, height=0.6, color=COLORS["loss"], label="written" if i == 0 else None)
        ax.annotate(f"{read + written:.0f}", (read + written, -i), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks([-i for i in range(len(rows))], list(rows))
    ax.set_xlim(0, 1.15 * max(read + written for read, written in rows.values()))
    label(ax, "bytes for each neuron and step", "")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


# Panel A: the roofline.

INTENSITIES = np.logspace(-2, 3, 101)
PRODUCT = 2 * 1024**3 / (4 * 3 * 1024**2)
"""Operations a byte of the product that gave the flat roof."""


def _new_roofline(axes: Sequence[Axes]) -> dict[str, Any]:
    picture, sizes = axes
    bandwidth, peak = numbers.roofs()
    label(picture, "arithmetic intensity (operations / byte)", "speed (GFLOP/s)")
    picture.plot(INTENSITIES, numbers.roof(INTENSITIES), color=COLORS["spike"], linewidth=1.5)
    picture.set(xlim=(0.01, 1000), ylim=(0.02, 3 * peak))
    _log_axis(picture, "x", [0.01, 0.1, 1, 10, 100, 1000])
    _log_axis(picture, "y", [0.1, 1, 10, 100])
    picture.text(0.03, 0.03 * bandwidth * 2.1, f"a copy: {bandwidth:.0f} GB/s", fontsize="small", rotation=38)
    picture.text(0.9, 1.25 * peak, f"a matrix product: {peak:.0f} GFLOP/s", fontsize="small")
    picture.plot([PRODUCT], [peak], "*", color=COLORS["spike"], markersize=11)
    points = {}
    for way in LAYER_WAYS:
        x = numbers.WORK / numbers.moved()[way]
        top = float(numbers.roof(x))
        picture.plot([x, x], [0.02, top], ":", color=COLORS[ROLES[way]], linewidth=1)
        points[way] = picture.plot(
            [x], [1], MARKS[way], color=COLORS[ROLES[way]], markersize=8, markeredgecolor="white"
        )[0]
    label(sizes, f"neurons N (T = {LAYER[0]}, B = {LAYER[1]})", "time (ns per neuron and step)")
    for way in LAYER_WAYS:
        low, y, high = np.array([p.ns(way) for p in numbers.layers()]).T
        sizes.plot(LAYER_SIZES, y, f"{MARKS[way]}-", color=COLORS[ROLES[way]], markersize=4)
        sizes.fill_between(LAYER_SIZES, low, high, color=COLORS[ROLES[way]], alpha=0.25, linewidth=0)
    sizes.axhline(numbers.bound(), color=COLORS["spike"], linestyle="--", linewidth=1)
    sizes.text(LAYER_SIZES[0], 0.9 * numbers.bound(), "24 bytes at the speed of a copy", fontsize="small", va="top")
    _log_axis(sizes, "x", LAYER_SIZES)
    _log_axis(sizes, "y", [1, 10, 100, 1000])
    sizes.set(xlim=(3, 5500), ylim=(0.4 * numbers.bound(), 8 * numbers.layers()[0].ns("loop")[2]))
    _keys(sizes, LAYER_WAYS, 0.3, 0.96)
    cursor = sizes.axvline(1, ymax=0.8, color=COLORS["muted"], linewidth=1)
    return {"points": list(points.values()), "cursor": cursor, "heads": [heading(ax) for ax in axes]}


def share_of_roof(N: int, way: str) -> float:
    """Speed over the roof above it."""
    return numbers.layer(N).speed(way) / float(numbers.roof(numbers.WORK / numbers.moved()[way]))


def draw_roofline(axes: Sequence[Axes], artists: Artists | None, *, N: int) -> Artists:
    """Three ways of one layer under the roofs, and their time a neuron and step over N.

    Args:
        axes, artists: see `LivePanel`.
        N: neurons.
    """
    made: Any = _new_roofline(axes) if artists is None else artists
    point = numbers.layer(N)
    for way, mark in zip(LAYER_WAYS, made["points"], strict=True):
        mark.set_ydata([point.speed(way)])
    made["cursor"].set_xdata([N, N])
    made["heads"][0].set_text(
        f"N = {N}: {share_of_roof(N, 'loop'):.0%} and {share_of_roof(N, 'fused'):.0%} of the roof"
    )
    times = ", ".join(f"{point.ns(way)[1]:.3g}" for way in LAYER_WAYS)
    made["heads"][1].set_text(f"{times} ns; fused {point.times_as_fast('fused'):.1f} times as fast as the loop")
    return made


def describe_roofline(*, N: int) -> str:
    """The text alternative of panel A."""
    bandwidth, peak = numbers.roofs()
    point = numbers.layer(N)
    ways = "; ".join(
        f"{WORDS[way]}: {numbers.WORK / numbers.moved()[way]:.2g} operations a byte, {point.speed(way):.2g} GFLOP/s, "
        f"{share_of_roof(N, way):.0%} of the roof, {point.ns(way)[1]:.3g} ns for each neuron and step"
        for way in LAYER_WAYS
    )
    return (
        f"Left, a roofline: it rises by {bandwidth:.0f} GB/s to {peak:.0f} GFLOP/s. N = {N}: {ways}. Right, the times "
        f"over N, which fall for the loop and the recursion until about N = 256 and then stay; a dashed line at "
        f"{numbers.bound():.2g} ns."
    )


def roofline_panel() -> LivePanel:
    """Panel A."""
    controls = {"N": ipywidgets.SelectionSlider(options=LAYER_SIZES, value=64, description="neurons N")}
    return LivePanel(draw_roofline, controls, columns=2, figsize=(10, 4.2), alt=describe_roofline, play="N")


# Panel B: density and N.


def _percent(x: float) -> str:
    return f"{100 * x:.2g} %"


def _new_step(axes: Sequence[Axes]) -> dict[str, Any]:
    times, ratios = axes
    all_ms = [p.ms[way] for p in numbers.steps() for way in STEP_WAYS]
    label(times, "density of the input (%)", "time of a whole step (ms)")
    _log_axis(times, "x", [100 * d for d in DENSITIES])
    _log_axis(times, "y", [1, 10, 100, 1000])
    times.set(xlim=(0.4, 50), ylim=(0.7 * min(m[0] for m in all_ms), 1.4 * max(m[2] for m in all_ms)))
    label(ratios, f"neurons N in each hidden layer (T = {STEP[0]}, B = {STEP[1]})", "times as fast as the loop")
    _log_axis(ratios, "x", STEP_SIZES)
    _log_axis(ratios, "y", [1, 2, 5, 10, 20])
    ratios.set(xlim=(42, 1200), ylim=(0.8, 4 * max(p.times_as_fast(way) for p in numbers.steps() for way in STEP_WAYS)))
    ratios.axhline(1, color=COLORS[ROLES["loop"]], linewidth=1)
    _keys(ratios, STEP_WAYS, 0.05, 0.96)
    made: dict[str, Any] = {"lines": [], "bands": [], "ratios": []}
    for way in STEP_WAYS:
        color = COLORS[ROLES[way]]
        made["lines"].append(times.plot([], [], f"{MARKS[way]}-", color=color, markersize=5)[0])
        made["bands"].append(times.plot([], [], "-", color=color, linewidth=5, alpha=0.25)[0])
        made["ratios"].append(ratios.plot([], [], f"{MARKS[way]}-", color=color, markersize=5)[0])
    made["even"] = times.axvline(1, color=COLORS["muted"], linestyle=":", linewidth=1.5)
    made["cursors"] = [
        ax.axvline(1, ymax=y, color=COLORS["muted"], linewidth=1) for ax, y in zip(axes, (1, 0.72), strict=True)
    ]
    made["heads"] = [heading(ax) for ax in axes]
    return made


def _quartiles(points: Sequence[numbers.StepPoint], way: str) -> tuple[list[float], list[float]]:
    """A line that goes up and down once at each density, from the lower to the upper quartile."""
    x, y = [], []
    for p in points:
        x += [100 * p.density] * 2 + [np.nan]
        y += [p.ms[way][0], p.ms[way][2], np.nan]
    return x, y


def draw_step(axes: Sequence[Axes], artists: Artists | None, *, density: float, N: int) -> Artists:
    """Times of a step over density at this N, and how many times as fast as the loop over N at this density.

    Args:
        axes, artists: see `LivePanel`.
        density: of the input.
        N: neurons in each hidden layer.
    """
    made: Any = _new_step(axes) if artists is None else artists
    over = [p for p in numbers.steps() if p.N == N]
    across = [p for p in numbers.steps() if p.density == density]
    for i, way in enumerate(STEP_WAYS):
        made["lines"][i].set_data([100 * p.density for p in over], [p.ms[way][1] for p in over])
        made["bands"][i].set_data(*_quartiles(over, way))
        made["ratios"][i].set_data([p.N for p in across], [p.times_as_fast(way) for p in across])
    even = numbers.break_even(N)
    made["even"].set_xdata([100 * min(max(even, 1e-3), 1)] * 2)
    made["cursors"][0].set_xdata([100 * density] * 2)
    made["cursors"][1].set_xdata([N, N])
    made["heads"][0].set_text(f"N = {N}: {_even_words(N)}")
    here = numbers.step(N, density)
    found = ", ".join(f"{way} {here.times_as_fast(way):.1f}" for way in STEP_WAYS[1:])
    made["heads"][1].set_text(f"{_percent(density)}: {found}")
    return made


def _even_words(N: int) -> str:
    even = numbers.break_even(N)
    if not 0 < even < np.inf:
        return "events faster at all of these" if even else "events slower at all of these"
    return f"exact events are faster up to {_percent(even)}"


def describe_step(*, density: float, N: int) -> str:
    """The text alternative of panel B."""
    here = numbers.step(N, density)
    ways = "; ".join(
        f"{WORDS[way]} {here.ms[way][1]:.3g} ms, {here.times_as_fast(way):.1f} times as fast as the loop"
        for way in STEP_WAYS
    )
    return (
        f"A whole step of learning, {_percent(density)} of 700 inputs, N = {N}: {ways}. Left, the times over the "
        f"density: level for the loop and for fused neurons, rising for events; {_even_words(N)}. Right, the factors "
        f"over N."
    )


def step_panel() -> LivePanel:
    """Panel B."""
    controls = {
        "density": ipywidgets.SelectionSlider(
            options=[(_percent(d), d) for d in DENSITIES], value=0.02, description="density of the input"
        ),
        "N": ipywidgets.SelectionSlider(options=STEP_SIZES, value=200, description="neurons N"),
    }
    return LivePanel(draw_step, controls, columns=2, figsize=(10, 4.4), alt=describe_step, play="density")
