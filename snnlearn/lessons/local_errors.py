"""Tutorial 11, local errors and DECOLLE: the watched synapse, and what the notebook takes from here.

The numbers come from `local_errors_numbers`, `local_errors_training` and `local_errors_stream`; the panels of the last
two from `local_errors_learning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import local_errors_numbers as numbers
from snnlearn.lessons.common import heading, slider
from snnlearn.lessons.local_errors_exercises import error_exercise as error_exercise
from snnlearn.lessons.local_errors_exercises import reached_exercise as reached_exercise
from snnlearn.lessons.local_errors_exercises import trace_exercise as trace_exercise
from snnlearn.lessons.local_errors_learning import critics_panel as critics_panel
from snnlearn.lessons.local_errors_learning import draw_accuracies as draw_accuracies
from snnlearn.lessons.local_errors_learning import draw_over_time as draw_over_time
from snnlearn.lessons.local_errors_learning import stream_panel as stream_panel
from snnlearn.lessons.local_errors_numbers import by_hand as by_hand
from snnlearn.lessons.local_errors_stream import critics as critics
from snnlearn.lessons.local_errors_stream import learner as learner
from snnlearn.lessons.local_errors_stream import live as live
from snnlearn.lessons.local_errors_stream import remembered as remembered
from snnlearn.lessons.local_errors_stream import running as running
from snnlearn.lessons.local_errors_stream import shown as shown
from snnlearn.lessons.local_errors_training import fit as fit
from snnlearn.lessons.local_errors_training import fit_backprop as fit_backprop
from snnlearn.lessons.local_errors_training import fit_readouts as fit_readouts
from snnlearn.lessons.local_errors_training import over_time as over_time
from snnlearn.lessons.superspike_drawing import key, set_ticks, ticks, whole
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel


def _new_synapse(axes: Sequence[Axes]) -> dict[str, Any]:
    pre, membrane, told, product = axes
    label(pre, "", "traces of the input")
    label(membrane, "", "membrane")
    label(told, "", "error, slope")
    label(product, "time (ms)", "error · f · P")
    key(pre, (0.0, "input spikes", "spike"), (0.13, "Q", "current"), (0.16, "P, the eligibility", "membrane"))
    key(membrane, (0.0, "U", "membrane"), (0.03, "its part R", "muted"), (0.13, "output spikes", "spike"))
    key(told, (0.0, "local error Gᵀ ∂L/∂r", "loss"), (0.2, "slope f", "surrogate"))
    for ax in axes:
        ax.set_xlim(-1, numbers.SPAN)
        ax.axvline(numbers.CHANGE - 0.5, color=COLORS["reference"], linewidth=4, alpha=0.5)
        if ax is not product:
            ax.tick_params(labelbottom=False)
    for ax in (told, product):
        ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
    pre.set_ylim(-0.005, 0.4)
    told.set_ylim(-3.1, 3.1)  # both hold for all settings, so that nothing flickers
    threshold_line(membrane, 0.0)
    return {
        "x": ticks(pre, "spike"),
        "Q": pre.plot([], color=COLORS["current"], linewidth=1)[0],
        "P": pre.plot([], color=COLORS["membrane"], linewidth=1.8)[0],
        "R": membrane.plot([], color=COLORS["muted"], linewidth=1)[0],
        "U": membrane.plot([], color=COLORS["membrane"], linewidth=1.5)[0],
        "s": ticks(membrane, "spike"),
        "e": told.plot([], color=COLORS["loss"], linewidth=1.5)[0],
        "f": told.plot([], color=COLORS["surrogate"])[0],
        "product": product.plot([], color=COLORS["spike"], linewidth=1.5)[0],
        "cursor": [ax.axvline(0, color=COLORS["muted"], linewidth=1) for ax in axes],
        "headings": [heading(product)],
        "count": membrane.text(1, 1.02, "", transform=membrane.transAxes, va="bottom", ha="right"),
        "label": pre.text(1, 1.02, "", transform=pre.transAxes, va="bottom", ha="right"),
    }


def draw_synapse(axes: Sequence[Axes], artists: Artists | None, *, step: int, **settings: Any) -> Artists:
    """One synapse up to a step: traces, membrane, what the critic says, and their product.

    Args:
        axes, artists: see `LivePanel`.
        step: ms, the last step that has happened.
        settings: see `numbers.synapse`.
    """
    made: Any = _new_synapse(axes) if artists is None else artists
    case, t = numbers.synapse(**settings), np.arange(step + 1)
    for name in ("Q", "P", "R", "U", "e", "f", "product"):
        made[name].set_data(t, getattr(case, name)[t])
    set_ticks(made["x"], case.x[t], 0.9)
    set_ticks(made["s"], case.s[t], 0.93)
    for line in made["cursor"]:
        line.set_xdata([step, step])
    size = next(limit for limit in (1.0, 3.0, 8.0) if limit >= max(0.0, *np.abs(case.U), *-case.R))
    axes[1].set_ylim(-size, 1.4 * size)
    size = 0.2 if np.abs(case.product).max() < 0.2 else 0.6
    axes[3].set_ylim(-size, size)
    made["label"].set_text(f"wanted at {step} ms: class {int(step >= numbers.CHANGE)}")
    before, after = case.s[: numbers.CHANGE].sum(), case.s[numbers.CHANGE :].sum()
    made["count"].set_text(f"{before:.0f} spikes in the first half, {after:.0f} in the second")
    start = case.w[0] + settings["rate"] * case.product[0]
    change = f"weight {start:.2f} → {case.w[step]:.2f}" if settings["rate"] else "the weight is held"
    made["headings"][0].set_text(
        f"at {step} ms: {case.e[step]:.2f} · {case.f[step]:.2f} · {case.P[step]:.3f} = {case.product[step]:.4f};  "
        f"{change}"
    )
    return made


def describe_synapse(*, step: int, **settings: Any) -> str:
    """The text alternative of the panel."""
    case = numbers.synapse(**settings)
    return (
        f"Four pictures over {numbers.SPAN} ms, drawn up to {step} ms. {case.x.sum():.0f} input spikes; the trace P "
        f"reaches {case.P.max():.2f}. The membrane lies between {case.U.min():.2f} and {case.U.max():.2f}, its "
        f"refractory part above {case.R.min():.2f}; {case.s[: numbers.CHANGE].sum():.0f} spikes before the label "
        f"changes at {numbers.CHANGE} ms, {case.s[numbers.CHANGE :].sum():.0f} after. The local error is "
        f"{case.e[: numbers.CHANGE].mean():.2f} in the mean before and {case.e[numbers.CHANGE :].mean():.2f} after. "
        f"The weight ends at {case.w[-1]:.2f}."
    )


def synapse_panel() -> LivePanel:
    """One synapse of a DECOLLE layer in time."""
    controls = {
        "size": slider("size of the weights", 20, 0, 40, 1, ".0f"),
        "weight_ref": slider("refractory weight w_R", 1, 0, 4, 0.1, ".1f"),
        "steep": slider("steepness k of f", 3, 0, 20, 0.5, ".1f"),
        "tau_mem": slider("τ_mem of P (ms)", 20, 2, 60, 1, ".0f"),
        "rate": slider("learning rate", 0, 0, 5, 0.1, ".1f"),
        "step": whole("time (ms)", numbers.SPAN - 1, 0, numbers.SPAN - 1),
    }
    return LivePanel(draw_synapse, controls, rows=4, figsize=(9, 6.8), alt=describe_synapse, play="step")
