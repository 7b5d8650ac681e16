"""Tutorial 05, SuperSpike: the pictures and the panels.

The numbers come from `superspike_numbers` and `superspike_training`. A ``draw_...`` function is what a `LivePanel`
calls: at its first call it makes the artists, later it moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import superspike_numbers as numbers
from snnlearn.lessons.common import heading, slider
from snnlearn.lessons.superspike_drawing import SMALL, key, set_ticks, ticks, whole
from snnlearn.lessons.superspike_exercises import eligibility_exercise as eligibility_exercise
from snnlearn.lessons.superspike_exercises import rmaxprop_exercise as rmaxprop_exercise
from snnlearn.lessons.superspike_exercises import trace_exercise as trace_exercise
from snnlearn.lessons.superspike_learning import draw_rates as draw_rates
from snnlearn.lessons.superspike_learning import layer_panel as layer_panel
from snnlearn.lessons.superspike_learning import neuron_panel as neuron_panel
from snnlearn.lessons.superspike_learning import width_panel as width_panel
from snnlearn.lessons.superspike_training import Fit as Fit
from snnlearn.lessons.superspike_training import Sweep as Sweep
from snnlearn.lessons.superspike_training import by_rate as by_rate
from snnlearn.lessons.superspike_training import by_width as by_width
from snnlearn.lessons.superspike_training import fit as fit
from snnlearn.lessons.superspike_training import fit_hidden as fit_hidden
from snnlearn.lessons.superspike_training import five_spikes as five_spikes
from snnlearn.lessons.superspike_training import frozen_noise as frozen_noise
from snnlearn.lessons.superspike_training import weights as weights
from snnlearn.lessons.superspike_training import written as written
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel, coarse_limits

# Panel A: how far apart are two spike trains?


def _new_distance(axes: Sequence[Axes]) -> dict[str, Any]:
    top, error, curve = axes
    label(top, "", "filtered spikes")
    label(error, "time (ms)", "error e")
    label(curve, "shift of the third spike (ms)", "distance")
    key(top, (0.6, "output", "membrane"), (0.72, "target", "reference"))
    for ax in (top, error):
        ax.set_xlim(0, numbers.SPAN)
    error.axhline(0, color=COLORS["muted"], linewidth=0.6)
    curve.set_xlim(-numbers.REACH - 2, numbers.REACH + 2)
    return {
        "target": top.plot([], color=COLORS["reference"], linewidth=4)[0],
        "out": top.plot([], color=COLORS["membrane"])[0],
        "ticks": [ticks(top, "reference", markeredgewidth=4), ticks(top, "spike")],
        "e": error.plot([], color=COLORS["loss"])[0],
        "curve": curve.plot([], color=COLORS["loss"])[0],
        "gone": curve.axhline(0, color=COLORS["muted"], linestyle="--", linewidth=1),
        "here": curve.plot([], "o", color=COLORS["spike"], markersize=8)[0],
        "headings": [heading(top), heading(error), heading(curve)],
        "name": curve.text(
            numbers.REACH, 0, "without the spike", ha="right", va="bottom", color=COLORS["muted"], **SMALL
        ),
    }


def draw_distance(
    axes: Sequence[Axes], artists: Artists | None, *, shift: int, jitter: int, tau_decay: float, missing: bool
) -> Artists:
    """Filtered trains, their difference, and the distance against the shift. Arguments: `numbers.distance`."""
    made: Any = _new_distance(axes) if artists is None else artists
    found = numbers.distance(shift, jitter, tau_decay, missing)
    alone, t = numbers.silence(jitter, tau_decay), np.arange(numbers.SPAN)
    made["target"].set_data(t, found.filtered_target)
    made["out"].set_data(t, found.filtered)
    for line, train, height in zip(made["ticks"], (found.target, found.s), (0.93, 0.93), strict=True):
        set_ticks(line, train, height)
    made["e"].set_data(t, found.e)
    made["curve"].set_data(found.shifts, found.losses)
    made["gone"].set_ydata([alone] * 2)
    made["name"].set_y(alone)
    made["here"].set_data([0 if missing else shift], [found.loss])
    made["here"].set_markerfacecolor("white" if missing else COLORS["spike"])
    axes[0].set_ylim(0, coarse_limits(0, max(found.filtered.max(), found.filtered_target.max()), 0.5)[1] + 0.5)
    high = coarse_limits(0, max(1.0, np.abs(found.e).max()), 0.5)[1]
    axes[1].set_ylim(-high - 0.1, high + 0.1)
    axes[2].set_ylim(0, coarse_limits(0, 1.1 * max(found.losses.max(), alone), 5)[1])
    late = f"is {abs(shift)} ms {'late' if shift > 0 else 'early'}" if shift else "is in place"
    what = "is missing" if missing else late
    made["headings"][0].set_text(f"the third spike {what}")
    made["headings"][1].set_text("positive: fires too much; negative: too little")
    made["headings"][2].set_text(f"distance ½ Σ e² = {found.loss:.2f}")
    return made


def describe_distance(*, shift: int, jitter: int, tau_decay: float, missing: bool) -> str:
    """The text alternative of panel A."""
    found = numbers.distance(shift, jitter, tau_decay, missing)
    return (
        f"Three pictures. Five target spikes and the output's, filtered; their difference, between {found.e.min():.2f} "
        f"and {found.e.max():.2f}; the distance against the shift of the third spike: {found.losses.min():.1f} at its "
        f"lowest, {found.losses[-1]:.1f} at {numbers.REACH} ms, {numbers.silence(jitter, tau_decay):.1f} without the "
        f"spike. A dot shows the present distance, {found.loss:.2f}."
    )


def distance_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "shift": whole("third spike moved by (ms)", 6, -numbers.REACH, numbers.REACH),
        "missing": ipywidgets.Checkbox(False, description="third spike missing"),
        "jitter": whole("jitter of all (ms)", 0, 0, 12),
        "tau_decay": slider("τ_decay of ε (ms)", 10, 2, 40, 1, ".0f"),
    }
    return LivePanel(draw_distance, controls, rows=3, figsize=(9, 6), alt=describe_distance, play="shift")


# Panel B: six steps by hand.

_ROWS = (
    ("x", "input x", "current"),
    ("p", "p = ∂I/∂w", "current"),
    ("q", "q = ∂U/∂w", "membrane"),
    ("f", "slope f", "surrogate"),
    ("raw", "f q", "surrogate"),
    ("eligibility", "ε ∗ (f q)", "membrane"),
    ("e", "error e", "loss"),
    ("product", "product", "spike"),
)


def _how(case: numbers.Factors, n: int) -> str:
    """The arithmetic of one step, in words of the equations."""
    p0, q0 = (case.p[n - 1], case.q[n - 1]) if n else (0.0, 0.0)
    total = case.product[: n + 1].sum()
    return (
        f"step {n}:   p = 0.5·{p0:.4g} + {case.x[n]:.0f} = {case.p[n]:.4g}     "
        f"q = 0.5·{q0:.4g} + {case.p[n]:.4g} = {case.q[n]:.4g}     "
        f"f q = {case.f[n]:.4g}·{case.q[n]:.4g} = {case.raw[n]:.4g}     so far ∂L/∂w = {total:.4f}"
    )


def _new_hand(ax: Axes) -> dict[str, Any]:
    case, cells = numbers.by_hand(), []
    ax.set(xlim=(-1.25, 5.6), ylim=(len(_ROWS) - 0.4, -1.0))
    ax.set_axis_off()
    for row, (name, text, role) in enumerate(_ROWS):
        ax.text(-1.2, row, text, va="center", color=COLORS[role])
        ax.axhline(row + 0.5, color=COLORS["muted"], linewidth=0.4)
        for n, value in enumerate(getattr(case, name)):
            cells.append(ax.text(n, row, f"{value:.4g}".replace("-", "−"), ha="center", va="center"))
    for n in range(len(case.x)):
        fired = ", spike" if case.s[n] else ""
        ax.text(n, -0.75, f"n = {n}{fired}", ha="center", va="center", color=COLORS["muted"], **SMALL)
    band = ax.axvspan(-0.5, 0.5, color=COLORS["reference"], alpha=0.25, linewidth=0)
    arithmetic = heading(ax)
    arithmetic.set_in_layout(False)  # or the table would make room for its full length
    return {"cells": cells, "band": band, "heading": arithmetic}


def draw_hand(axes: Sequence[Axes], artists: Artists | None, *, step: int) -> Artists:
    """The table of the case by hand, filled up to a step."""
    made: Any = _new_hand(axes[0]) if artists is None else artists
    case = numbers.by_hand()
    for i, cell in enumerate(made["cells"]):
        n = i % len(case.x)
        cell.set_visible(n <= step)
        cell.set_fontweight("bold" if n == step else "normal")
    made["band"].set_x(step - 0.5)
    made["heading"].set_text(_how(case, step))
    return made


def describe_hand(*, step: int) -> str:
    """The text alternative of panel B."""
    case = numbers.by_hand()
    rows = (f"{text}: {', '.join(f'{v:.4g}' for v in getattr(case, name)[: step + 1])}" for name, text, _ in _ROWS)
    return f"A table of the six steps, filled up to step {step}. {'; '.join(rows)}."


def hand_panel() -> LivePanel:
    """Panel B."""
    controls = {"step": whole("step n", 5, 0, 5)}
    return LivePanel(draw_hand, controls, figsize=(9, 3.6), alt=describe_hand, play="step")


# Panel C: the three factors of one synapse.


def _new_factors(axes: Sequence[Axes]) -> dict[str, Any]:
    top, pre, eligible, factor = axes
    label(top, "", "membrane U")
    label(pre, "", "q, slope f")
    label(eligible, "", "ε ∗ (f q)")
    label(factor, "time (ms)", "error e")
    key(top, (0.34, "output spikes", "spike"), (0.51, "target spikes", "reference"), (0.68, "input spikes", "current"))
    key(pre, (0.0, "presynaptic trace q", "membrane"), (0.24, "slope f", "surrogate"))
    for ax in axes:
        ax.set_xlim(-1, numbers.STEPS)
        if ax is not factor:
            ax.tick_params(labelbottom=False)
    for ax in (eligible, factor):
        ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
    return {
        "U": top.plot([], color=COLORS["membrane"])[0],
        "theta": threshold_line(top),
        "ticks": [ticks(top, role) for role in ("spike", "reference", "current")],
        "q": pre.plot([], color=COLORS["membrane"])[0],
        "f": pre.plot([], color=COLORS["surrogate"])[0],
        "raw": eligible.plot([], color=COLORS["surrogate"], linewidth=1)[0],
        "E": eligible.plot([], color=COLORS["membrane"], linewidth=1.8)[0],
        "e": factor.plot([], color=COLORS["loss"], linewidth=1.8)[0],
        "cursor": [ax.axvline(0, color=COLORS["muted"], linewidth=1) for ax in axes],
        "headings": [heading(top), heading(eligible), heading(factor)],
    }


def draw_factors(axes: Sequence[Axes], artists: Artists | None, *, step: int, **settings: Any) -> Artists:
    """The traces of one synapse up to a step, and what its weight has been told.

    Args:
        axes, artists: see `LivePanel`.
        step: ms, the last step that has happened.
        settings: see `numbers.synapse`.
    """
    made: Any = _new_factors(axes) if artists is None else artists
    case = numbers.synapse(**settings)
    t = np.arange(step + 1)
    for name, values in (("U", case.U), ("q", case.q), ("f", case.f), ("E", case.eligibility), ("e", case.e)):
        made[name].set_data(t, values[t])
    made["raw"].set_data(t, case.raw[t])
    shown = ((case.s[t], 0.93), (case.target, 0.8), (case.x[t], 0.07))
    for line, (train, height) in zip(made["ticks"], shown, strict=True):
        set_ticks(line, train, height)
    for line in made["cursor"]:
        line.set_xdata([step, step])
    low, high = coarse_limits(min(0.0, case.U.min()), max(1.0, case.U.max()), 0.5)
    axes[0].set_ylim(low - 0.3, high + 0.4)
    axes[1].set_ylim(-0.05, coarse_limits(0, max(1.0, case.q.max()), 2)[1])
    top = coarse_limits(0, max(0.1, case.eligibility.max()), 2 if case.eligibility.max() < 20 else 20)[1]
    axes[2].set_ylim(-0.05 * top, top)
    size = coarse_limits(0, max(1.0, np.abs(case.e).max()), 1)[1]
    axes[3].set_ylim(-size - 0.1, size + 0.1)
    made["headings"][0].set_text(f"{case.s.sum():.0f} output spikes")
    made["headings"][1].set_text("the eligibility: thin f q, thick filtered by ε")
    now, sofar = case.product[step], case.product[: step + 1].sum()
    made["headings"][2].set_text(
        f"at {step} ms:  e × eligibility = {now:.2f},   ∂L/∂w so far {sofar:.1f}, in the end {case.product.sum():.1f}"
    )
    return made


def describe_factors(*, step: int, **settings: Any) -> str:
    """The text alternative of panel C."""
    case = numbers.synapse(**settings)
    return (
        f"Four pictures over {numbers.STEPS} ms, drawn up to {step} ms. The membrane fires {case.s.sum():.0f} times, "
        f"wanted are {len(numbers.WANTED)} spikes. The presynaptic trace reaches {case.q.max():.1f}, the slope "
        f"{case.f.max():.2f}, the eligibility {case.eligibility.max():.2f}. The error lies between {case.e.min():.2f} "
        f"and {case.e.max():.2f}. The products add up to {case.product.sum():.1f}."
    )


def factors_panel() -> LivePanel:
    """Panel C."""
    controls = {
        "w": slider("weight of all synapses", 0.04, 0, 0.2, 0.01, ".2f"),
        "width": slider("surrogate width", 0.1, 0.02, 2, 0.02, ".2f"),
        "tau_mem": slider("τ_mem (ms)", 10, 2, 40, 1, ".0f"),
        "tau_syn": slider("τ_syn (ms)", 5, 1, 20, 1, ".0f"),
        "tau_decay": slider("τ_decay of ε (ms)", 10, 2, 40, 1, ".0f"),
        "step": whole("time (ms)", numbers.STEPS - 1, 0, numbers.STEPS - 1),
    }
    return LivePanel(draw_factors, controls, rows=4, figsize=(9, 6.6), alt=describe_factors, play="step")
