"""Tutorial 07, TSSL-BP: the pictures and the panels.

The numbers come from `snnlearn.lessons.tsslbp_numbers`. A ``draw_...`` function is what a `LivePanel` calls: at its
first call it makes the artists, later it moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import tsslbp_numbers as numbers
from snnlearn.lessons.common import heading, keys, slider
from snnlearn.lessons.tsslbp_exercises import carry_exercise as carry_exercise
from snnlearn.lessons.tsslbp_exercises import silent_exercise as silent_exercise
from snnlearn.lessons.tsslbp_exercises import slope_exercise as slope_exercise
from snnlearn.lessons.tsslbp_numbers import Heuristics
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel, coarse_limits

# Panel A: a spike moves.


def _new_shift(axes: Sequence[Axes]) -> dict[str, Any]:
    top, psc, change = axes
    label(top, "", "membrane U")
    label(psc, "", "current a")
    label(change, "time (steps)", "change of a per\nunit of U")
    made: dict[str, Any] = {
        "theta": threshold_line(top),
        "raised": top.plot([], color=COLORS["reference"], linestyle="--", linewidth=1.4)[0],
        "U": top.plot([], "o-", color=COLORS["membrane"], markersize=4, linewidth=1.2)[0],
        "cross": top.plot([], "D", color=COLORS["spike"], markersize=6)[0],
        "nudged_cross": top.plot([], "D", color=COLORS["reference"], markersize=6)[0],
        "step": [ax.axvline(-9, color=COLORS["muted"], linewidth=1) for ax in (top, psc)],
        "nudged": psc.plot([], color=COLORS["reference"], linestyle="--", linewidth=1.8)[0],
        "a": psc.plot([], color=COLORS["current"], linewidth=1.8)[0],
        "exact": change.bar(np.arange(numbers.STEPS), 0.0, 0.8, color=COLORS["reference"]).patches,
        "printed": change.plot([], "s", color=COLORS["threshold"], markersize=5, markerfacecolor="none")[0],
        "code": change.plot([], "^", color=COLORS["surrogate"], markersize=5)[0],
        "headings": [heading(ax) for ax in axes],
    }
    change.axhline(0, color=COLORS["muted"], linewidth=0.8)
    change.yaxis.set_major_formatter("{x:.1f}")  # one width, since the layout is made once
    for ax in axes:
        ax.set_xlim(1, numbers.STEPS - 0.5)
        if ax is not change:
            ax.tick_params(labelbottom=False)
    keys(top, (0.62, "◆ crosses θ", "spike"), (0.76, "- - raised by δ", "reference"), (0.92, "θ", "threshold"))
    keys(psc, (0.62, "— a", "current"), (0.68, "- - after the nudge", "reference"))
    keys(psc, (0.86, "| step that fires", "muted"))
    keys(change, (0.42, "■ what happens", "reference"), (0.58, "□ Eqs. 11-12 as printed", "threshold"))
    keys(change, (0.83, "▲ the code", "surrogate"))
    return made


def draw_shift(axes: Sequence[Axes], artists: Artists | None, *, w: float, nudge: float, tau_s: float) -> Artists:
    """Above the membrane and its crossing, in the middle the current it causes, below the change of the current."""
    made: Any = _new_shift(axes) if artists is None else artists
    found, t = numbers.shift(w, nudge, tau_s), np.arange(numbers.STEPS)
    fine = np.linspace(0, numbers.STEPS, 481)
    made["U"].set_data(t, found.U)
    made["raised"].set_data(t, found.U + nudge)
    for name, when in zip(("cross", "nudged_cross"), found.times, strict=True):
        fires = math.isfinite(when)
        made[name].set_data([when] if fires else [], [1.0] if fires else [])
    for name, when in zip(("a", "nudged"), found.times, strict=True):
        made[name].set_data(fine, numbers.waveform(fine, when, tau_s) if math.isfinite(when) else 0 * fine)
    for line in made["step"]:
        line.set_xdata([-9 if found.step is None else found.step] * 2)
    for bar, height in zip(made["exact"], found.exact, strict=True):
        bar.set_height(height)
    after = t[found.step :] if found.step is not None else t[:0]
    made["printed"].set_data(after, found.printed[after])
    made["code"].set_data(after, found.code[after])
    axes[0].set_ylim(-0.1, coarse_limits(0, max(1.2, (found.U + nudge).max()), 0.5)[1])
    axes[1].set_ylim(0, 1.25 / tau_s)
    values = np.concatenate([found.exact, found.code, found.printed])
    low, high = coarse_limits(min(-0.5, values.min()), max(0.5, values.max()), 1.0)
    axes[2].set_ylim(1.1 * low, 1.4 * high)
    for head, text in zip(made["headings"], _shift_texts(found, nudge), strict=True):
        head.set_text(text)
    return made


def _shift_texts(found: numbers.Shift, nudge: float) -> tuple[str, str, str]:
    time, moved = found.times
    if found.step is None:
        woken = " (the nudge makes it)" if math.isfinite(moved) else ""
        return f"no crossing{woken}: no firing time, no derivative", "", ""
    by_rule, sums = 1 / found.rise, [v.sum() + 0.0 for v in (found.exact, found.printed, found.code)]
    top = (
        f"crosses at {time:.2f}, fires at step {found.step};  u′ = {found.rise:.3f} a step,  1/u′ = {by_rule:.1f} steps"
    )
    moves = f"raised by δ = {nudge:.2f} it crosses {time - moved:.2f} steps earlier; δ/u′ = {nudge * by_rule:.2f}"
    return (
        top,
        moves,
        f"sums: what happens {sums[0]:+.2f},  printed {sums[1]:+.2f},  code {sums[2]:+.2f}",
    )


def describe_shift(*, w: float, nudge: float, tau_s: float) -> str:
    """The text alternative of panel A."""
    found = numbers.shift(w, nudge, tau_s)
    if found.step is None:
        return f"The membrane reaches {found.U.max():.2f}, below the threshold 1: there is no spike and no current."
    time, moved = found.times
    return (
        f"Three pictures over {numbers.STEPS} steps. The membrane crosses the threshold at {time:.2f}, rising by "
        f"{found.rise:.3f} a step; raised by {nudge:.2f} it crosses at {moved:.2f}. The current begins at the "
        f"crossing and moves with it. What changes is positive at the front ({found.exact.max():.2f}) and negative "
        f"behind it ({found.exact.min():.2f}); the equations as printed are negative throughout, the code positive."
    )


def shift_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "w": slider("weight w (θ)", 2.4, 1.4, 6, 0.05, ".2f"),
        "nudge": slider("nudge δ (θ)", 0.06, 0.01, 0.2, 0.01, ".2f"),
        "tau_s": slider("τ_s (steps)", 4, 2, 8, 0.5, ".1f"),
    }
    return LivePanel(draw_shift, controls, rows=3, figsize=(9, 6), alt=describe_shift, play="w")


# Panel B: the heuristics.


def which(largest: float, fallback: bool, intra: bool, leak: bool) -> Heuristics:
    """The switches of panel B as the numbers take them."""
    return Heuristics(largest, fallback, intra, leak)


def _new_trial(axes: Sequence[Axes]) -> dict[str, Any]:
    top, psc, given = axes
    label(top, "", "membrane U")
    label(psc, "", "current a")
    label(given, "time (steps)", "credit ∂L/∂I")
    t, transform = np.arange(numbers.LENGTH), top.get_xaxis_transform()
    ticks: dict[str, Any] = {"transform": transform, "linestyle": "", "marker": "|", "markeredgewidth": 1.8}
    made: dict[str, Any] = {
        "U": top.plot([], "o-", color=COLORS["membrane"], markersize=3, linewidth=1.2)[0],
        "theta": threshold_line(top),
        "s": top.plot([], color=COLORS["spike"], markersize=9, **ticks)[0],
        "wanted": psc.plot([], drawstyle="steps-mid", color=COLORS["loss"], linewidth=1.6)[0],
        "a": psc.plot([], drawstyle="steps-mid", color=COLORS["current"], linewidth=1.6)[0],
        "bptt": given.plot([], color=COLORS["reference"], linewidth=1.2, linestyle="--")[0],
        "code": given.plot([], color=COLORS["muted"], linewidth=1.2)[0],
        "chosen": given.bar(t, 0.0, 0.7, color=COLORS["surrogate"]).patches,
        "headings": [heading(ax) for ax in axes],
    }
    given.axhline(0, color=COLORS["muted"], linewidth=0.6)
    given.yaxis.set_major_formatter("{x:.2f}")  # one width, since the layout is made once
    for ax in axes:
        ax.set_xlim(-1, numbers.LENGTH)
        if ax is not given:
            ax.tick_params(labelbottom=False)
    keys(top, (0.68, "| spikes", "spike"), (0.78, "threshold", "threshold"), y=1.07)
    keys(psc, (0.6, "current", "current"), (0.7, "wanted, of 0 1 0 0 0 1 0 0 …", "loss"), y=1.07)
    keys(given, (0.6, "■ chosen", "surrogate"), (0.71, "— all of the code", "muted"), y=0.93)
    keys(given, (0.89, "- - BPTT", "reference"), y=0.93)
    return made


def draw_trial(
    axes: Sequence[Axes], artists: Artists | None, *, drive: float, tau_s: float, **switches: Any
) -> Artists:
    """Membrane and spikes, the current and the one wanted, and what each step is given by three rules."""
    made: Any = _new_trial(axes) if artists is None else artists
    found, t = numbers.trial(drive, tau_s, which(**switches)), np.arange(numbers.LENGTH)
    made["U"].set_data(t, found.run.U)
    fired = np.flatnonzero(found.run.s)
    made["s"].set_data(fired, np.full(len(fired), 0.93))
    made["a"].set_data(t, found.a)
    made["wanted"].set_data(t, found.wanted)
    made["bptt"].set_data(t, found.bptt)
    made["code"].set_data(t, found.code)
    for bar, height in zip(made["chosen"], found.chosen, strict=True):
        bar.set_height(height)
    low, high = coarse_limits(min(0, found.run.U.min()), max(1.2, found.run.U.max()), 1.0)
    axes[0].set_ylim(low - 0.1, high + 0.35)
    axes[1].set_ylim(0, coarse_limits(0, 1.02 * max(found.a.max(), found.wanted.max()), 0.5)[1])
    values = np.concatenate([found.chosen, found.code, found.bptt])
    low, high = coarse_limits(min(-0.2, values.min()), max(0.2, values.max()), 0.5 if np.ptp(values) < 2 else 2.0)
    axes[2].set_ylim(low, high + 0.2 * (high - low))
    for head, text in zip(made["headings"], _trial_texts(found), strict=True):
        head.set_text(text)
    return made


def _trial_texts(found: numbers.Trial) -> tuple[str, str, str]:
    (to_code, length), (to_bptt, _) = (numbers.likeness(found.chosen, other) for other in (found.code, found.bptt))
    nothing = "no credit at all" if not found.chosen.any() else ""
    likeness = f"cosine to the code {to_code:.2f} (length × {length:.2f}), to BPTT {to_bptt:.2f}"
    return f"{found.run.s.sum():.0f} spikes", "", nothing or likeness


def describe_trial(*, drive: float, tau_s: float, **switches: Any) -> str:
    """The text alternative of panel B."""
    found = numbers.trial(drive, tau_s, which(**switches))
    length = f"a length of {np.linalg.norm(found.chosen):.2f}, the code's {np.linalg.norm(found.code):.2f}"
    return (
        f"Three pictures over {numbers.LENGTH} steps. The neuron fires {found.run.s.sum():.0f} times, the target 10 "
        f"times. The credit with the chosen switches is not zero at {np.count_nonzero(found.chosen)} steps and has "
        f"{length}. {_trial_texts(found)[2]}."
    )


def trial_panel() -> LivePanel:
    """Panel B."""
    options = [("1", 1.0), ("2", 2.0), ("4", 4.0), ("8", 8.0), ("16", 16.0), ("none", math.inf)]
    controls = {
        "drive": slider("mean input (θ a step)", 0.28, 0.02, 0.8, 0.02, ".2f"),
        "tau_s": slider("τ_s (steps)", 3, 1, 8, 0.5, ".1f"),
        "largest": ipywidgets.SelectionSlider(options=options, value=8.0, description="limit of 1/u′"),
        "fallback": ipywidgets.Checkbox(True, description="fallback"),
        "intra": ipywidgets.Checkbox(True, description="intra-neuron term"),
        "leak": ipywidgets.Checkbox(True, description="leak"),
    }
    return LivePanel(draw_trial, controls, rows=3, figsize=(9, 6), alt=describe_trial, play="drive")


# Still pictures.


def draw_pushes(ax: Axes, tau_s: float, rise: float) -> None:
    """dL/du of one spike over how late it is, by the three readings of Eqs. 11-12."""
    late = np.linspace(-6, 6, 241)
    late = late[np.abs(late) > 1e-9]
    exact, printed, code = np.array([numbers.pushes(x, tau_s, rise) for x in late]).T
    ax.axhline(0, color=COLORS["muted"], linewidth=0.8)
    ax.axvline(0, color=COLORS["muted"], linewidth=0.8)
    for side in (late < 0, late > 0):  # it jumps at 0
        ax.plot(late[side], exact[side], color=COLORS["reference"], linewidth=3)
    ax.plot(late, printed, color=COLORS["threshold"], linestyle="--")
    ax.plot(late, code, color=COLORS["surrogate"], linewidth=1.8)
    ax.text(0.4, 1.15 * exact[121], "what happens", color=COLORS["reference"], va="top")
    ax.text(-5.9, 1.15 * printed[0], "as printed", color=COLORS["threshold"], va="top")
    ax.set_ylim(1.8 * exact[121], None)
    ax.text(3.2, code[-70] - 0.1, "the code", color=COLORS["surrogate"], va="top", ha="left")
    label(ax, "spike too early  ←   steps   →  too late", "∂L/∂u  (> 0: U goes down,\nthe spike moves later)")


def draw_next_spike(ax: Axes, top: float, tau_m: float, earlier: float) -> None:
    """A constant drive in continuous time, and the same from a first spike that came earlier."""
    between = numbers.period(top, tau_m)
    for by, color, style in ((0.0, "membrane", "-"), (earlier, "reference", "--")):
        for k in range(3):
            t = np.linspace(0, between, 100)
            ax.plot(t + k * between - by, numbers.charged(t, top, tau_m), style, color=COLORS[color], linewidth=1.8)
            ax.plot([(k + 1) * between - by] * 2, [1.0, 1.25], color=COLORS[color], linewidth=2)
    threshold_line(ax)
    ax.set_xlim(0, 3 * between + 1)
    label(ax, "time (steps)", "membrane u")
