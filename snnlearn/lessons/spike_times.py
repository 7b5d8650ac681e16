"""Tutorial 08, learning when to spike: the panels of one neuron.

The numbers come from `snnlearn.lessons.spike_times_numbers`, the pictures of temporal XOR from
`snnlearn.lessons.spike_times_xor`. A ``draw_...`` function is what a `LivePanel` calls: at its first call it makes the
artists, later it moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import spike_times_numbers as numbers
from snnlearn.lessons.common import heading, keys, slider
from snnlearn.lessons.spike_times_exercises import jump_exercise as jump_exercise
from snnlearn.lessons.spike_times_exercises import set_exercise as set_exercise
from snnlearn.lessons.spike_times_exercises import time_exercise as time_exercise
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel, coarse_limits


def ladder(size: float, scales: Sequence[float]) -> float:
    """The first scale that size fits under, or the last."""
    return next((scale for scale in scales if size <= scale), scales[-1])


# Panel A: the causal set.

END = 20.0  # ms, to which the membrane is drawn
INPUTS = 3


def _new_causal(axes: Sequence[Axes]) -> dict[str, Any]:
    top, linear, by_weight, by_time = axes
    label(top, "time (ms)", "membrane U")
    label(linear, "z = exp(t / τ_syn)", "z · U")
    label(by_weight, "", "∂t/∂wᵢ (ms)")
    label(by_time, "", "∂t/∂tᵢ")
    ticks: dict[str, Any] = {"transform": top.get_xaxis_transform(), "linestyle": "", "marker": "|", "markersize": 13}
    made: dict[str, Any] = {
        "theta": threshold_line(top),
        "after": top.plot([], color=COLORS["muted"], linestyle=":")[0],
        "U": top.plot([], color=COLORS["membrane"], linewidth=2)[0],
        "causal": top.plot([], color=COLORS["current"], markeredgewidth=2.5, **ticks)[0],
        "others": top.plot([], color=COLORS["muted"], markeredgewidth=2.5, **ticks)[0],
        "spike": top.plot([], "v", color=COLORS["spike"], markersize=9)[0],
        "line": linear.plot([], color=COLORS["threshold"], linestyle="--", linewidth=1)[0],
        "zU": linear.plot([], color=COLORS["membrane"], linewidth=2)[0],
        "kinks": linear.plot([], "o", color=COLORS["current"], markersize=6)[0],
        "crossing": linear.plot([], "v", color=COLORS["spike"], markersize=9)[0],
        "names": [top.text(0, 0.13, "", transform=top.get_xaxis_transform(), ha="center", size="small") for _ in "abc"],
        "headings": [heading(ax) for ax in axes],
    }
    for ax, name, role in ((by_weight, "dw", "loss"), (by_time, "dt", "surrogate")):
        made[name] = ax.bar([1, 2, 3], 0.0, 0.5, color=COLORS[role]).patches
        ax.set_xticks([1, 2, 3], ["input 1", "input 2", "input 3"])
        ax.axhline(0, color=COLORS["muted"], linewidth=0.8)
        ax.yaxis.set_major_formatter("{x:.1f}")  # one width, since the layout is made once
    for ax in (top, linear):
        ax.yaxis.set_major_formatter("{x:.1f}")
    top.set_xlim(-0.7, END)
    keys(linear, (0.03, "z·U: a new slope at every input", "membrane"), y=0.93)
    keys(linear, (0.03, "θ·z", "threshold"), y=0.83)
    return made


def draw_causal(axes: Sequence[Axes], artists: Artists | None, **controls: float) -> Artists:
    """Membrane over time, the same in z, and the derivatives of the spike time; w1..w3 and t1..t3 (ms)."""
    made: Any = _new_causal(axes) if artists is None else artists
    w, t = _causal_case(controls)
    spike = numbers.first_spike(w, t)
    stop = min(spike.t, END)
    before, after = np.linspace(0, stop, 200), np.linspace(stop, END, 100)
    U, on = (numbers.potential(w, t, at) for at in (before, after))
    made["U"].set_data(before, U)
    made["after"].set_data(after, on)
    for name, which in (("causal", spike.causal), ("others", ~spike.causal)):
        made[name].set_data(t[which], np.full(which.sum(), 0.06))
    for i, text in enumerate(made["names"]):
        text.set_position((t[i], 0.13 + 0.07 * sum(abs(t[:i] - t[i]) < 0.8)))
        text.set_text(f"{i + 1}")
    fires, z = math.isfinite(spike.t), np.exp(t / numbers.TAU_SYN)
    z_out = math.exp(spike.t / numbers.TAU_SYN) if fires else 0.0
    reach = ladder(1.2 * max(z.max(), z_out), (5, 10, 20))
    corners = np.sort(np.append(z, [1.0, reach]))
    height = np.maximum(corners[:, None] - z, 0) @ w
    made["zU"].set_data(corners, height)
    made["kinks"].set_data(z, np.interp(z, corners, height))
    made["line"].set_data([0, reach], [0, numbers.THETA * reach])
    seen = fires and spike.t < END
    made["spike"].set_data(*([[spike.t], [1.12]] if seen else [[], []]))
    made["crossing"].set_data(*([[z_out], [numbers.THETA * z_out]] if fires and z_out < reach else [[], []]))
    for name, values in (("dw", spike.by_weight), ("dt", spike.by_time)):
        for patch, value in zip(made[name], values.tolist(), strict=True):
            patch.set_height(value)
    axes[0].set_ylim(*coarse_limits(min(U.min(), on.min(), 0.0) - 0.2, max(1.4, on.max()), 0.5))
    axes[1].set(xlim=(0, reach), ylim=(-0.25 * reach, 1.5 * reach))
    for ax, values in ((axes[2], spike.by_weight), (axes[3], spike.by_time)):
        size = ladder(1.1 * np.abs(values).max(), (1, 2, 5, 10, 20, 50, 100, 1000, 1e5))
        ax.set_ylim(-size, size if values.max() > 0 else 0.1 * size)
    names = ", ".join(str(i + 1) for i in np.flatnonzero(spike.causal))
    texts = (
        f"spike at {spike.t:.2f} ms" if fires else "no spike",
        f"causal set {{{names}}},  z_out = {z_out:.2f}" if fires else "z·U does not reach θ·z: no causal set",
        "a larger weight moves the spike by" if fires else "no spike, no derivative",
        f"shares of the inputs' times: sum {spike.by_time.sum():.2f}" if fires else "no spike, no derivative",
    )
    for text, words in zip(made["headings"], texts, strict=True):
        text.set_text(words)
    return made


def _causal_case(controls: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    w, t = (np.array([controls[f"{name}{i + 1}"] for i in range(INPUTS)]) for name in "wt")
    return w, t


def describe_causal(**controls: float) -> str:
    """The text alternative of panel A."""
    w, t = _causal_case(controls)
    spike = numbers.first_spike(w, t)
    inputs = "; ".join(f"input {i + 1} at {t[i]:.1f} ms with weight {w[i]:.2f}" for i in range(INPUTS))
    if math.isinf(spike.t):
        return f"A membrane over 20 ms: {inputs}. It never reaches the threshold. In z, the curve stays below the line."
    names = " and ".join(str(i + 1) for i in np.flatnonzero(spike.causal))
    return (
        f"A membrane over 20 ms: {inputs}. It reaches the threshold at {spike.t:.2f} ms; the causal set is {names}. "
        "In z the same curve is made of straight pieces, and crosses a straight line. The spike time changes by "
        f"{', '.join(f'{x:.2f}' for x in spike.by_weight)} ms per unit of the weights, and by "
        f"{', '.join(f'{x:.2f}' for x in spike.by_time)} ms per ms of the inputs' times."
    )


def causal_panel() -> LivePanel:
    """Panel A."""
    controls = {f"w{i + 1}": slider(f"weight {i + 1}", w, -1, 2, 0.05, ".2f") for i, w in enumerate((0.8, 0.7, 0.5))}
    controls |= {f"t{i + 1}": slider(f"time {i + 1} (ms)", t, 0, 12, 0.5, ".1f") for i, t in enumerate((0, 3.5, 6))}
    return LivePanel(draw_causal, controls, rows=2, columns=2, figsize=(9, 5.6), alt=describe_causal)


# Panel C: the adjoint of one neuron with a leak.

STORY_INPUTS = (2.0, 6.0, 14.0)  # ms
STORY_WEIGHTS = (5.0, 4.0, 5.0)


def _new_story(axes: Sequence[Axes]) -> dict[str, Any]:
    top, lV, lI = axes
    label(top, "", "membrane V")
    label(lV, "", "λ_V")
    label(lI, "time (ms)", "λ_I")
    ticks: dict[str, Any] = {"transform": top.get_xaxis_transform(), "linestyle": "", "marker": "|", "markersize": 10}
    made: dict[str, Any] = {
        "theta": threshold_line(top),
        "V": top.plot([], color=COLORS["membrane"], linewidth=1.8)[0],
        "in": top.plot([], color=COLORS["current"], markeredgewidth=2, **ticks)[0],
        "out": top.plot([], "v", color=COLORS["spike"], markersize=8, clip_on=False)[0],
        "targets": [top.axvline(-9, color=COLORS["loss"], linewidth=3, alpha=0.5) for _ in range(2)],
        "lV": lV.plot([], color=COLORS["membrane"], linewidth=1.8)[0],
        "lI": lI.plot([], color=COLORS["current"], linewidth=1.8)[0],
        "at inputs": lI.plot([], "o", color=COLORS["spike"], markersize=6)[0],
        "spikes": [ax.axvline(-9, color=COLORS["muted"], linestyle=":") for ax in (lV, lI) for _ in range(4)],
        "headings": [heading(ax) for ax in axes],
    }
    for ax in axes:
        ax.set_xlim(0, 30)
        ax.yaxis.set_major_formatter("{x:.1f}")
    for ax in (lV, lI):
        ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
    top.set_ylim(-0.25, 1.35)
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    keys(top, (0.72, "▼ spikes", "spike"), (0.81, "▮ targets", "loss"), (0.91, "| inputs", "current"), y=1.08)
    return made


def draw_story(
    axes: Sequence[Axes], artists: Artists | None, *, w1: float, w3: float, target1: float, target2: float
) -> Artists:
    """V forward, lambda_V and lambda_I backward, with their jumps; weights of two inputs, and two target times (ms)."""
    made: Any = _new_story(axes) if artists is None else artists
    told = numbers.story((w1, STORY_WEIGHTS[1], w3), STORY_INPUTS, (target1, target2))
    marks = told.spikes[told.spikes < 30]
    at = np.sort(np.concatenate([np.linspace(0, 30, 301), marks, marks + 1e-9]))
    made["V"].set_data(at, numbers.membrane(told.w, told.inputs, told.spikes, at))
    made["in"].set_data(told.inputs, np.full(3, 0.06))
    made["out"].set_data(marks, np.full(len(marks), 1.12))
    for line, t in zip(made["targets"], (target1, target2), strict=True):
        line.set_xdata([t, t])
    back, lV, lI = numbers.adjoint_curves(told)
    made["lV"].set_data(back, lV)
    made["lI"].set_data(back, lI)
    in_order = sorted((m for m in told.moments if m.kind == "in"), key=lambda m: m.t)
    made["at inputs"].set_data([m.t for m in in_order], [m.lI for m in in_order])
    for half in (made["spikes"][:4], made["spikes"][4:]):
        for i, line in enumerate(half):
            line.set_xdata([marks[i]] * 2 if i < len(marks) else [-9, -9])
    for ax, values in ((axes[1], lV), (axes[2], lI)):
        size = ladder(1.1 * np.abs(values).max(), (1, 2, 5, 10, 20, 50, 100))
        ax.set_ylim(-size, size)
    jumps = [f"{m.jump:+.2f} at {m.t:.1f} ms" for m in reversed(told.moments) if m.kind == "out"]
    made["headings"][0].set_text(f"{len(told.spikes)} spikes,  L = {told.loss:.2f} ms²")
    made["headings"][1].set_text("jumps: " + ",  ".join(jumps[:4]) if jumps else "no spike: λ is 0 everywhere")
    slopes = ",  ".join(f"{g:.2f}" for g in told.by_weight)
    made["headings"][2].set_text(f"∂L/∂w = −τ_syn · λ_I at the inputs (●):  {slopes}")
    return made


def describe_story(*, w1: float, w3: float, target1: float, target2: float) -> str:
    """The text alternative of panel C."""
    told = numbers.story((w1, STORY_WEIGHTS[1], w3), STORY_INPUTS, (target1, target2))
    jumps = [f"{m.jump:.2f} at {m.t:.1f} ms" for m in reversed(told.moments) if m.kind == "out"]
    return (
        f"Three pictures over 30 ms. The membrane gets inputs at 2, 6 and 14 ms and spikes {len(jumps)} times; the "
        f"targets are {target1:.1f} and {target2:.1f} ms, the loss is {told.loss:.2f}. Lambda V is 0 after the last "
        f"spike, jumps at each spike ({', '.join(jumps) or 'none'}) and decays towards earlier times. Lambda I follows "
        "it smoothly. The gradients of the three weights are " + ", ".join(f"{g:.2f}" for g in told.by_weight)
    ) + "."


def story_panel() -> LivePanel:
    """Panel C."""
    controls = {
        "w1": slider("weight 1", STORY_WEIGHTS[0], 0, 10, 0.25, ".2f"),
        "w3": slider("weight 3", STORY_WEIGHTS[2], 0, 10, 0.25, ".2f"),
        "target1": slider("target 1 (ms)", 10, 1, 25, 0.5, ".1f"),
        "target2": slider("target 2 (ms)", 13, 1, 25, 0.5, ".1f"),
    }
    return LivePanel(draw_story, controls, rows=3, figsize=(9, 5.6), alt=describe_story)


# Panel D: the birth of a spike.

_HEIGHTS = (5, 10, 20, 50, 100)


def _new_birth(axes: Sequence[Axes]) -> dict[str, Any]:
    top, loss, slope, grid = axes
    label(top, "time (ms)", "membrane V")
    label(loss, "weight w", "L: first spike (ms)")
    label(slope, "weight w", "exact ∂L/∂w (ms)")
    label(grid, "weight w", "surrogate ∂L/∂w (ms)")
    for w, t, g in numbers.exact_curves():
        loss.plot(w, t, color=COLORS["loss"], linewidth=2)
        slope.plot(w, np.clip(g, -100, 0), color=COLORS["spike"], linewidth=1.8)
    made: dict[str, Any] = {
        "theta": threshold_line(top),
        "V": top.plot([], color=COLORS["membrane"], linewidth=1.8)[0],
        "spike": top.plot([], "v", color=COLORS["spike"], markersize=8)[0],
        "surrogate": grid.plot([], color=COLORS["surrogate"], linewidth=1.8)[0],
        "cursor": [ax.axvline(0, color=COLORS["muted"], linewidth=1) for ax in (loss, slope, grid)],
        "headings": [heading(ax) for ax in axes],
    }
    ticks: dict[str, Any] = {"transform": top.get_xaxis_transform(), "markersize": 10, "markeredgewidth": 2}
    top.plot(numbers.VOLLEYS, [0.06] * 4, "|", color=COLORS["current"], **ticks)
    top.set(xlim=(0, numbers.HORIZON), ylim=(-0.15, 1.35))
    loss.set_ylim(0, numbers.HORIZON + 4)
    slope.set_ylim(-10, 1)
    for ax in (loss, slope, grid):
        ax.set_xlim(numbers.LOW, numbers.HIGH)
    for ax in (slope, grid):
        ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
        ax.yaxis.set_major_formatter("{x:.0f}")
    return made


def draw_birth(axes: Sequence[Axes], artists: Artists | None, *, w: float, width: float, dt: float) -> Artists:
    """The membrane at one weight; loss, exact and surrogate gradient over all weights.

    Args:
        axes, artists: see `LivePanel`.
        w: the dragged weight.
        width: of the surrogate.
        dt: step of the grid, ms.
    """
    made: Any = _new_birth(axes) if artists is None else artists
    here = numbers.exact([w])
    spikes = numbers.spikes_of(_weights(w), numbers.VOLLEYS)[0].times[0].detach().numpy()
    spikes = spikes[np.isfinite(spikes)]
    at = np.sort(np.concatenate([np.linspace(0, numbers.HORIZON, 301), spikes, spikes + 1e-9]))
    made["V"].set_data(at, numbers.membrane(np.array([w, *numbers.FIXED]), numbers.VOLLEYS, spikes, at))
    made["spike"].set_data(spikes, np.full(len(spikes), 1.12))
    grid_w, _, grid_slope = numbers.surrogate_gradient(width, dt)
    made["surrogate"].set_data(grid_w, grid_slope)
    axes[3].set_ylim(-ladder(1.1 * np.abs(grid_slope).max(), _HEIGHTS), 1)
    for line in made["cursor"]:
        line.set_xdata([w, w])
    silent = not here.spikes[0]
    texts = (
        f"w = {w:.2f}: " + ("silent" if silent else f"first spike at {here.t[0]:.2f} ms"),
        f"true loss {here.t[0]:.2f} ms" + (" (silence)" if silent else ""),
        f"exact: {here.slope[0]:.2f}",
        f"surrogate: {np.interp(w, grid_w, grid_slope):.2f}",
    )
    for text, words in zip(made["headings"], texts, strict=True):
        text.set_text(words)
    return made


def _weights(w: float) -> Any:
    import torch

    return torch.tensor([[w, *numbers.FIXED]], dtype=torch.float64)


def describe_birth(*, w: float, width: float, dt: float) -> str:
    """The text alternative of panel D."""
    here, (grid_w, _, slope) = numbers.exact([w]), numbers.surrogate_gradient(width, dt)
    return (
        "Four pictures. A membrane over 50 ms with two pairs of inputs. Over the weight from 0 to 8: the loss, the "
        "first spike time, is 50 ms while the neuron is silent, jumps down where a spike is born, at 1.41 and at "
        "3.92, and falls slowly elsewhere; its exact gradient is 0 before the first birth and falls without bound just "
        f"behind each; the surrogate gradient lies between {slope.min():.1f} and {slope.max():.1f} everywhere. At "
        f"the weight {w:.2f} the loss is {here.t[0]:.2f} ms, the exact gradient {here.slope[0]:.2f}, the surrogate "
        f"gradient {np.interp(w, grid_w, slope):.2f}."
    )


def birth_panel() -> LivePanel:
    """Panel D."""
    controls = {
        "w": slider("weight w", 1.2, numbers.LOW, numbers.HIGH, 0.05, ".2f"),
        "width": slider("surrogate width", 0.04, 0.02, 0.5, 0.02, ".2f"),
        "dt": ipywidgets.ToggleButtons(options=numbers.STEP_SIZES, value=0.5, description="grid step (ms)"),
    }
    return LivePanel(draw_birth, controls, rows=2, columns=2, figsize=(9, 5.6), alt=describe_birth, play="w")
