"""Tutorial 04, what a gradient costs and what it may leave out: panels C and D and the last figure.

The numbers come from `snnlearn.lessons.forwards_numbers`; the first two panels are in `forwards`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import forwards_numbers as numbers
from snnlearn.lessons.common import heading
from snnlearn.lessons.forwards_numbers import METHODS, kept
from snnlearn.plots import COLORS, label
from snnlearn.widgets import Artists, LivePanel

LOOKS = dict(zip(METHODS, (("membrane", "-", "o"), ("threshold", "--", "s"), ("current", ":", "^")), strict=True))


# Panel C: the memory meter.

SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
BYTES = 8  # a number in double precision
Measured = Mapping[tuple[str, int, int], float]  # (method, N, T) -> bytes


def _new_meter(axes: Sequence[Axes]) -> dict[str, Any]:
    over_time, over_size = axes
    label(over_time, "steps T", "memory kept (kB)")
    label(over_size, "neurons N (and inputs)", "")
    made: dict[str, Any] = {"lines": [], "points": [], "here": [], "headings": [heading(ax) for ax in axes]}
    for ax, x in zip(axes, (LENGTHS, SIZES), strict=True):
        ax.set(xscale="log", yscale="log", xlim=(x[0] * 0.8, x[-1] * 1.25), ylim=(0.05, 2e8))
        for method, (role, line, marker) in LOOKS.items():
            made["lines"].append(ax.plot(x, x, line, color=COLORS[role], linewidth=2, label=method)[0])
            made["points"].append(ax.plot([], marker, color=COLORS[role], markersize=7, fillstyle="none")[0])
        made["here"].append(ax.axvline(1, color=COLORS["spike"], linewidth=1))
    over_time.plot([], "o", color=COLORS["muted"], fillstyle="none", label="measured")
    made["legend"] = over_time.legend(loc="upper left", framealpha=1, edgecolor="white", fontsize="small")
    made["numbers"] = over_size.text(0.98, 0.03, "", transform=over_size.transAxes, ha="right", linespacing=1.4)
    return made


def draw_meter(
    axes: Sequence[Axes], artists: Artists | None, *, neurons: int, steps: int, recurrent: bool, measured: Measured
) -> Artists:
    """What three ways to the gradient have to keep, against T and against N; circles where it was measured.

    Args:
        axes, artists: see `LivePanel`.
        neurons, steps, recurrent: see `forwards_numbers.kept`.
        measured: of the recurrent layer, bytes.
    """
    made: Any = _new_meter(axes) if artists is None else artists
    for i, method in enumerate(METHODS):
        for j, values in enumerate((LENGTHS, SIZES)):
            made["lines"][3 * j + i].set_ydata([_kilobytes(method, v, (neurons, steps), j, recurrent) for v in values])
            points = [
                (key[2 - j], v / 1e3)
                for key, v in measured.items()
                if recurrent and key[0] == method and key[1 + j] == (neurons, steps)[j]
            ]
            made["points"][3 * j + i].set_data(*np.array(points).reshape(-1, 2).T)
    for line, x in zip(made["here"], (steps, neurons), strict=True):
        line.set_xdata([x, x])
    made["headings"][0].set_text(f"N = {neurons} neurons")
    made["headings"][1].set_text(f"T = {steps} steps")
    rows = [f"{method}: {_size(BYTES * kept(method, neurons, steps, recurrent))}" for method in METHODS]
    made["numbers"].set_text("\n".join(rows))
    return made


def _kilobytes(method: str, value: int, fixed: tuple[int, int], axis: int, recurrent: bool) -> float:
    N, T = (fixed[0], value) if axis == 0 else (value, fixed[1])
    return BYTES * kept(method, N, T, recurrent) / 1e3


def _size(count: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"


def describe_meter(*, neurons: int, steps: int, recurrent: bool) -> str:
    """The text alternative of panel C."""
    found = [f"{method} {_size(BYTES * kept(method, neurons, steps, recurrent))}" for method in METHODS]
    return (
        f"Two pictures with logarithmic axes, memory against T at N = {neurons} and against N at T = {steps}. For both "
        f"as chosen, kept: {', '.join(found)}. Against T only BPTT rises; against N RTRL is the steepest."
    )


def meter_panel(measured: Measured) -> LivePanel:
    """Panel C, for what was measured of a recurrent layer: bytes by (method, N, T)."""
    controls = {
        "neurons": ipywidgets.SelectionSlider(options=SIZES, value=8, description="neurons N"),
        "steps": ipywidgets.SelectionSlider(options=LENGTHS, value=100, description="steps T"),
        "recurrent": ipywidgets.ToggleButtons(
            options=[("recurrent", True), ("feed-forward", False)], value=True, description="layer"
        ),
    }

    def draw(axes: Sequence[Axes], artists: Artists | None, **values: Any) -> Artists:
        return draw_meter(axes, artists, measured=measured, **values)

    return LivePanel(draw, controls, columns=2, figsize=(9, 4.2), alt=describe_meter)


# Panel D: truncated BPTT.


def _new_window(axes: Sequence[Axes]) -> dict[str, Any]:
    triangle, likeness = axes
    label(triangle, "cause: step m", "effect: step n")
    label(likeness, "window k (steps)", "truncated against full gradient")
    T = numbers.LENGTH
    made: dict[str, Any] = {
        "image": triangle.imshow(np.ones((T, T, 4)), interpolation="nearest", aspect="auto", zorder=3),
        "lag": triangle.plot([], color=COLORS["threshold"], linewidth=2, zorder=4)[0],
        "cosine": likeness.plot([], "o-", color=COLORS["membrane"], label="cosine")[0],
        "ratio": likeness.plot([], "s--", color=COLORS["threshold"], label="ratio of lengths")[0],
        "share": likeness.plot([], ":", color=COLORS["spike"], label="pairs d apart not cut: 1 − d/k, or 0")[0],
        "here": likeness.axvline(1, color=COLORS["spike"], linewidth=1),
        "headings": [heading(ax) for ax in axes],
    }
    place: dict[str, Any] = {"transform": triangle.transAxes, "ha": "right", "va": "top", "zorder": 4}
    for y, text, role in ((0.95, "orange: cue and question", "threshold"), (0.88, "blue: pairs not cut", "membrane")):
        triangle.text(0.97, y, text, color=COLORS[role], fontsize="small", **place)
    likeness.axhline(0, color=COLORS["muted"], linewidth=0.6)
    likeness.set(xlim=(0, T + 3), ylim=(-0.35, 1.4))
    made["legend"] = likeness.legend(loc="upper left", framealpha=1, edgecolor="white", fontsize="small")
    return made


def blocks(window: int, steps: int = numbers.LENGTH) -> np.ndarray:
    """Which pairs (effect n, cause m) the gradient still sees when it is cut every `window` steps."""
    n, m = np.indices((steps, steps))
    return (m <= n) & (m // window == n // window)


def draw_window(
    axes: Sequence[Axes], artists: Artists | None, *, lag: int, window: int, table: numbers.Truncated
) -> Artists:
    """The triangle cut into blocks, and what is left of the gradient.

    Args:
        axes, artists: see `LivePanel`.
        lag, window: steps, of those in the table.
        table: what was measured.
    """
    made: Any = _new_window(axes) if artists is None else artists
    T, row, column = numbers.LENGTH, table.lags.index(lag), table.windows.index(window)
    n, m = np.indices((T, T))
    colors = np.ones((T, T, 4))
    colors[m <= n] = (0.91, 0.91, 0.91, 1)
    colors[blocks(window)] = (0.72, 0.84, 0.93, 1)
    made["image"].set_data(colors)
    made["lag"].set_data([2, T - 1 - lag], [2 + lag, T - 1])
    made["cosine"].set_data(table.windows, table.cosine[row])
    made["ratio"].set_data(table.windows, table.ratio[row])
    made["share"].set_data(range(1, T), [numbers.surviving(lag, k) for k in range(1, T)])
    made["here"].set_xdata([window, window])
    made["headings"][0].set_text(f"cut every {window} steps; the question comes {lag} steps after the cue")
    made["headings"][1].set_text(f"cosine {table.cosine[row, column]:.2f}, length {table.ratio[row, column]:.2f}")
    return made


def window_panel(table: numbers.Truncated) -> LivePanel:
    """Panel D, for a table of `forwards_numbers.truncation`."""
    controls = {
        "window": ipywidgets.SelectionSlider(options=table.windows, value=table.windows[2], description="window k"),
        "lag": ipywidgets.SelectionSlider(options=table.lags, value=table.lags[-2], description="lag d"),
    }

    def draw(axes: Sequence[Axes], artists: Artists | None, *, lag: int, window: int) -> Artists:
        return draw_window(axes, artists, lag=lag, window=window, table=table)

    def describe(*, lag: int, window: int) -> str:
        row, column = table.lags.index(lag), table.windows.index(window)
        found = ", ".join(f"{c:.2f} at {k}" for k, c in zip(table.windows, table.cosine[row], strict=True))
        return (
            f"Left, the triangle of {numbers.LENGTH} steps cut into blocks of {window}; the line of pairs {lag} "
            f"steps apart runs {'partly inside' if window > lag else 'outside'} the blocks. Right, the cosine of the "
            f"truncated to the full gradient by window: {found}. Chosen: cosine {table.cosine[row, column]:.2f}, ratio "
            f"of lengths {table.ratio[row, column]:.2f}."
        )

    return LivePanel(draw, controls, columns=2, figsize=(9, 4.2), alt=describe, play="window")


# What eligibility traces leave out.


def draw_leftover(ax: Axes, found: Sequence[numbers.Leftover]) -> None:
    """Cosine of eligibility traces to two exact gradients, against the strength of the recurrent weights."""
    x = [v.strength for v in found]
    ax.plot(x, [v.ignored for v in found], "s--", color=COLORS["threshold"], label="to the gradient without the reset")
    ax.plot(x, [v.kept for v in found], "o-", color=COLORS["membrane"], label="to the exact gradient (BPTT)")
    ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
    ax.set_ylim(-0.5, 1.1)
    ax.legend(loc="lower left", frameon=False)
    label(ax, "recurrent strength (standard deviation of V times √N)", "cosine of eligibility traces")
