"""Tutorial 01, one neuron and its network: the pictures, the panels and the exercises.

The numbers come from `snnlearn.lessons.one_neuron_theory`. A ``draw_...`` function is what a `LivePanel` calls: at its
first call it makes the artists, later it moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from snnlearn.lessons import one_neuron_theory as theory
from snnlearn.lessons.common import slider
from snnlearn.lessons.one_neuron_theory import peak_exercise as peak_exercise
from snnlearn.lessons.one_neuron_theory import rheobase_exercise as rheobase_exercise
from snnlearn.lessons.one_neuron_theory import spacing_exercise as spacing_exercise
from snnlearn.lessons.one_neuron_theory import step_exercise as step_exercise
from snnlearn.neurons import Decay, euler_decay, exp_decay
from snnlearn.plots import COLORS, label, raster, threshold_line
from snnlearn.resets import Update, subtract, subtract_decayed, to_zero
from snnlearn.widgets import Artists, LivePanel, coarse_limits

DECAYS: dict[str, Decay] = {"exponential": exp_decay, "Euler": euler_decay}


# Panel A: four inputs and one neuron over time, as in the paper's Fig. 1.


@lru_cache(maxsize=4)  # Play moves the cursor only
def _run(tau_mem: float, tau_syn: float, weight: float, theta: float, reset: str, decay: str) -> theory.Run:
    return theory.dynamics(
        theory.input_spikes(),
        weight=weight,
        tau_mem=tau_mem * 1e-3,
        tau_syn=tau_syn * 1e-3,
        theta=theta,
        reset=theory.RESETS[reset],
        decay=DECAYS[decay],
    )


def _new_dynamics(axes: Sequence[Axes]) -> dict[str, Any]:
    top, middle, bottom = axes
    label(top, "", "membrane U\n(thresh. units)")
    label(middle, "", "current I\n(per step)")
    label(bottom, "time (ms)", "input neuron")
    bottom.set_yticks(np.arange(4) + 0.4, ["1", "2", "3", "4"])
    artists: dict[str, Any] = {"theta": threshold_line(top), "inputs": raster(bottom, theory.input_spikes())}
    for name, ax, role in (("U", top, "membrane"), ("I", middle, "current")):
        artists[f"{name} to come"] = ax.plot([], color=COLORS[role], alpha=0.3, linewidth=1.2)[0]
        artists[name] = ax.plot([], color=COLORS[role], linewidth=1.6)[0]
    at_top: dict[str, Any] = {"transform": top.get_xaxis_transform(), "linestyle": "", "marker": "|", "markersize": 11}
    artists["S to come"] = top.plot([], color=COLORS["muted"], markeredgewidth=1, alpha=0.6, **at_top)[0]
    artists["S"] = top.plot([], color=COLORS["spike"], markeredgewidth=1.8, **at_top)[0]
    artists["cursor"] = [ax.axvline(0, color=COLORS["muted"], linewidth=1) for ax in axes]
    artists["numbers"] = top.text(0, 1.06, "", transform=top.transAxes)  # a title would be slower to place
    for ax in axes:
        ax.set_xlim(0, theory.DURATION_MS)
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    return artists


def draw_dynamics(
    axes: Sequence[Axes],
    artists: Artists | None,
    *,
    tau_mem: float,
    tau_syn: float,
    weight: float,
    theta: float,
    reset: str,
    decay: str,
    time: int,
) -> Artists:
    """Inputs, current and membrane; what lies after the cursor is faint. Time constants and time in ms."""
    made: Any = _new_dynamics(axes) if artists is None else artists
    run = _run(tau_mem, tau_syn, weight, theta, reset, decay)
    now = min(time, theory.DURATION_MS - 1)
    t = np.arange(theory.DURATION_MS)
    for name, values in (("U", run.U), ("I", run.I)):
        made[f"{name} to come"].set_data(t[now:], values[now:])
        made[name].set_data(t[: now + 1], values[: now + 1])
    fired = np.flatnonzero(run.S)
    past = fired[fired <= now]
    made["S to come"].set_data(fired, np.full(len(fired), 0.94))
    made["S"].set_data(past, np.full(len(past), 0.94))
    made["theta"].set_ydata([theta, theta])
    for line in made["cursor"]:
        line.set_xdata([now, now])
    low, _ = coarse_limits(min(-0.05, run.U.min()), 0, 0.25)
    axes[0].set_ylim(low, coarse_limits(0, 1.3 * max(theta, run.U.max()), 0.5)[1])
    axes[1].set_ylim(*coarse_limits(0, 1.05 * run.I.max(), 0.25))
    made["numbers"].set_text(
        f"t = {now} ms:  I = {run.I[now]:.3f},  U = {run.U[now]:.3f},  output spikes so far: {len(past)}"
    )
    return made


def describe_dynamics(**values: Any) -> str:
    """The text alternative of panel A."""
    run = _run(**{name: value for name, value in values.items() if name != "time"})
    fired = ", ".join(map(str, np.flatnonzero(run.S)[:8])) + (" ..." if run.S.sum() > 8 else "")
    return (
        "Three pictures over 800 ms: spikes of four input neurons, alone before 400 ms and close together after; "
        f"the synaptic current, at most {run.I.max():.2f}; the membrane, at most {run.U.max():.2f} with the "
        f"threshold at {values['theta']:g} and {run.S.sum():.0f} output spikes{f' at {fired} ms' if fired else ''}."
    )


def dynamics_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "tau_mem": slider("τ_mem (ms)", 20, 2, 60, 1, ".0f"),
        "tau_syn": slider("τ_syn (ms)", 5, 1, 30, 1, ".0f"),
        "weight": slider("weight W", 0.1, 0, 0.4, 0.01, ".2f"),
        "theta": slider("threshold θ", 1, 0.3, 2, 0.05, ".2f"),
        "reset": ipywidgets.Dropdown(options=list(theory.RESETS), description="reset"),
        "decay": ipywidgets.ToggleButtons(options=list(DECAYS), description="decay"),
        "time": ipywidgets.IntSlider(800, min=0, max=800, step=8, description="time (ms)"),
    }
    return LivePanel(draw_dynamics, controls, rows=3, figsize=(9, 5), alt=describe_dynamics, play="time")


# Panel B: the rate under a constant current, and the membrane that makes it.

CURRENTS = np.arange(1, 41) / 10  # threshold units
RATE_RESETS: dict[str, Update] = {
    "to zero": to_zero,
    "subtract θ (Eq. 8)": subtract,
    "subtract θ, then decay": subtract_decayed,
}
RATE_SECONDS, TRACE_MS = 0.5, 150


class Rates(NamedTuple):
    """What panel B shows."""

    continuous: np.ndarray  # spikes per second at CURRENTS
    measured: np.ndarray  # the same, and last at the chosen current
    t: np.ndarray  # of the trace, ms
    U: np.ndarray


@lru_cache(maxsize=4)
def rates(tau_mem: float, theta: float, dt: float, current: float, reset: str) -> Rates:
    """Rates at `CURRENTS` and at the chosen current, and the chosen one's membrane; tau_mem and dt in ms."""
    beta = math.exp(-dt / tau_mem)
    I = np.append(CURRENTS, current)
    drive = theory.constant_drive((1 - beta) * I, beta, theta, RATE_RESETS[reset], round(RATE_SECONDS * 1e3 / dt))
    shown = 1 + np.flatnonzero(np.arange(1, len(drive.U) + 1) * dt <= TRACE_MS)
    return Rates(
        theory.rate(CURRENTS, tau_mem * 1e-3, theta),
        theory.measured_rate(drive.S, dt * 1e-3),
        np.append(0, shown) * dt,
        np.append(0, drive.U[shown - 1, -1]),
    )


def continuous_trace(t: np.ndarray, I: float, tau_mem: float, theta: float) -> np.ndarray:
    """The membrane in continuous time, reset to zero at theta; times in the same unit."""
    if theta < I:
        t = t % (-tau_mem * math.log1p(-theta / I))
    return theory.charging(t, I, tau_mem)


def _new_rates(axes: Sequence[Axes]) -> dict[str, Any]:
    left, right = axes
    label(left, "constant current I (threshold units)", "rate (spikes per second)")
    label(right, "time (ms)", "membrane U (threshold units)")
    left.set_xlim(0, 4.1)
    right.set_xlim(0, TRACE_MS)
    ring: dict[str, Any] = {"marker": "o", "markersize": 11, "fillstyle": "none", "linestyle": ""}
    artists: dict[str, Any] = {
        "line": left.plot([], color=COLORS["reference"], linewidth=2.5, label="formula, continuous time")[0],
        "dots": left.plot([], ".", color=COLORS["membrane"], markersize=7, label="measured, steps of dt")[0],
        "here": left.plot([], label="chosen current", color=COLORS["threshold"], **ring)[0],
        "true": right.plot([], color=COLORS["reference"], linewidth=2.5)[0],
        "U": right.plot([], ".-", color=COLORS["membrane"], markersize=5, linewidth=0.8)[0],
        "theta": threshold_line(right),
        "numbers": right.text(0, 1.03, "", transform=right.transAxes),  # a title would be slower to place
    }
    left.legend(loc="upper left", frameon=False)
    return artists


def draw_rates(
    axes: Sequence[Axes],
    artists: Artists | None,
    *,
    tau_mem: float,
    theta: float,
    dt: float,
    current: float,
    reset: str,
) -> Artists:
    """Rate against current beside the membrane at one current; tau_mem and dt in ms."""
    made: Any = _new_rates(axes) if artists is None else artists
    found = rates(tau_mem, theta, dt, current, reset)
    I = np.linspace(0, CURRENTS[-1], 401)
    made["line"].set_data(I, theory.rate(I, tau_mem * 1e-3, theta))
    made["dots"].set_data(CURRENTS, found.measured[:-1])
    made["here"].set_data([current], [found.measured[-1]])
    t = np.linspace(0, TRACE_MS, 1201)
    made["true"].set_data(t, continuous_trace(t, current, tau_mem, theta))
    made["U"].set_data(found.t, found.U)
    made["theta"].set_ydata([theta, theta])
    axes[0].set_ylim(*coarse_limits(0, max(50, found.continuous.max(), found.measured.max()) * 1.02, 50))
    axes[1].set_ylim(*coarse_limits(min(0, found.U.min()), 1.15 * max(theta, found.U.max()), 0.25))
    here = float(theory.rate(current, tau_mem * 1e-3, theta))
    made["numbers"].set_text(f"I = {current:.2f}: formula {here:.1f}, measured {found.measured[-1]:.1f} spikes/s")
    return made


def describe_rates(**values: Any) -> str:
    """The text alternative of panel B."""
    found = rates(**values)
    formula = float(theory.rate(values["current"], values["tau_mem"] * 1e-3, values["theta"]))
    return (
        f"Left: spikes per second against a constant current from 0 to 4. No spikes up to {values['theta']:g}; at 4 "
        f"the formula for continuous time gives {found.continuous[-1]:.0f}, the neuron in steps of {values['dt']:g} ms "
        f"{found.measured[-2]:.0f}. Right: the membrane at the current {values['current']:g}, where the formula gives "
        f"{formula:.0f} and the measurement {found.measured[-1]:.0f} spikes per second."
    )


def rate_panel() -> LivePanel:
    """Panel B."""
    controls = {
        "tau_mem": slider("τ_mem (ms)", 20, 5, 50, 1, ".0f"),
        "theta": slider("threshold θ", 1, 0.5, 2, 0.05, ".2f"),
        "dt": slider("dt (ms)", 1, 0.5, 10, 0.5, ".1f"),
        "current": slider("current I", 2, 0, 4, 0.05, ".2f"),
        "reset": ipywidgets.ToggleButtons(options=list(RATE_RESETS), description="reset"),
    }
    return LivePanel(draw_rates, controls, columns=2, figsize=(9, 3.6), alt=describe_rates)


# The unrolled graph, as in the paper's Fig. 2.

GRAPH_STEPS = 5
HIGHLIGHTS: dict[str, frozenset[str]] = {
    "everything": frozenset({"W¹", "α", "1", "β", "Θ", "reset", "V¹", "W²"}),
    "memory: the decays α and β": frozenset({"α", "β"}),
    "what a spike causes: reset, V¹, W²": frozenset({"reset", "V¹", "W²"}),
}
CONE = "what the input spike at n = 0 can reach"
_NODE_COLORS = {"S⁰": "spike", "I¹": "current", "U¹": "membrane", "S¹": "spike", "I²": "current"}
_BEND = {"V¹": 0.1, "reset": -0.22}
# Where each kind of edge is named once: the step it starts from, the way along it, and the shift in points.
_NAMES = {
    "W¹": (0, 0.5, (9, -6)),
    "α": (0, 0.5, (0, 7)),
    "1": (0, 0.5, (-12, 7)),
    "β": (0, 0.25, (0, -8)),
    "Θ": (0, 0.5, (-8, 0)),
    "reset": (0, 0.5, (12, -4)),
    "V¹": (0, 0.3, (-24, -2)),
    "W²": (0, 0.5, (-8, 6)),
}


def _place(node: theory.Node) -> tuple[float, float]:
    return float(node.step), float(theory.ROWS.index(node.row))


def _new_graph(ax: Axes) -> dict[str, Any]:
    edges, nodes = theory.graph(GRAPH_STEPS)
    arrows, names = [], []
    for edge in edges:
        color = COLORS["threshold" if edge.kind in theory.CAUSED_BY_SPIKES else "muted"]
        dash = "--" if edge.kind in theory.CAUSED_BY_SPIKES else "-"
        ends = _place(edge.start), _place(edge.end)
        bend = f"arc3,rad={_BEND.get(edge.kind, 0)}"
        arrow = FancyArrowPatch(*ends, arrowstyle="-|>", connectionstyle=bend, shrinkA=14, shrinkB=14)
        arrow.set(mutation_scale=11, color=color, linestyle=dash)
        arrows.append(ax.add_patch(arrow))
        step, along, shift = _NAMES[edge.kind]
        if edge.start.step == step:
            (x0, y0), (x1, y1) = ends
            at = (1 - along) * x0 + along * x1, (1 - along) * y0 + along * y1
            names.append(
                ax.annotate(edge.kind, at, shift, textcoords="offset points", ha="center", va="center", color=color)
            )
    circles, texts = [], []
    for node in nodes:
        x, y = _place(node)
        circles += ax.plot(x, y, "o", markersize=24, color="white", markeredgecolor=COLORS[_NODE_COLORS[node.row]])
        texts.append(ax.text(x, y, node.row, ha="center", va="center", color=COLORS[_NODE_COLORS[node.row]]))
    ax.set(xlim=(-0.4, GRAPH_STEPS - 0.6), ylim=(-0.5, len(theory.ROWS) - 0.5), yticks=range(len(theory.ROWS)))
    ax.set_yticklabels(["input spikes", "current", "membrane", "spikes", "next layer's\ncurrent"])
    ax.set_xticks(range(GRAPH_STEPS), [f"n = {n}" for n in range(GRAPH_STEPS)])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return {"arrows": arrows, "circles": circles, "names": names, "texts": texts}


def draw_graph(axes: Sequence[Axes], artists: Artists | None, *, highlight: str) -> Artists:
    """Eqs. 7-8 unrolled: a node for each number, an arrow for each term; the rest of the graph is faint."""
    made: Any = _new_graph(axes[0]) if artists is None else artists
    edges, nodes = theory.graph(GRAPH_STEPS)
    reached = theory.reachable(theory.Node("S⁰", 0), edges)
    for arrow, edge in zip(made["arrows"], edges, strict=True):
        strong = edge.start in reached if highlight == CONE else edge.kind in HIGHLIGHTS[highlight]
        arrow.set_alpha(1.0 if strong else 0.13)
        arrow.set_linewidth(1.5 if strong else 1.0)
    for circle, text, node in zip(made["circles"], made["texts"], nodes, strict=True):
        strong = node in reached or highlight != CONE
        circle.set_markeredgewidth(1.8 if strong else 0.5)
        text.set_alpha(1.0 if strong else 0.3)
    return made


def graph_panel() -> LivePanel:
    """The unrolled graph."""
    choices = ipywidgets.Dropdown(options=[*HIGHLIGHTS, CONE], description="highlight")
    alt = (
        "A graph of five columns, one a time step, and five rows from below: input spikes, synaptic current, "
        "membrane, spikes, the next layer's current. Grey arrows: W from an input spike to the current one step "
        "later, alpha from current to current, current to the membrane one step later, beta from membrane to "
        "membrane, the threshold from membrane to spike in the same step. Dashed orange arrows start at spikes: the "
        "reset to the membrane, the recurrent V to the current, W to the next layer's current, one step later each."
    )
    return LivePanel(draw_graph, {"highlight": choices}, figsize=(9, 4.6), alt=alt)
