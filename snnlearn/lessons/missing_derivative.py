"""What "The derivative that is not there" shows and asks: its panels and exercises.

The computations are in `missing_derivative_numbers`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from snnlearn.lessons.missing_derivative_exercises import carry_exercise as carry_exercise
from snnlearn.lessons.missing_derivative_exercises import function_exercise as function_exercise
from snnlearn.lessons.missing_derivative_exercises import peak_exercise as peak_exercise
from snnlearn.lessons.missing_derivative_exercises import slope_exercise as slope_exercise
from snnlearn.lessons.missing_derivative_exercises import through as through
from snnlearn.lessons.missing_derivative_numbers import (
    WEIGHTS,
    Array,
    Sweep,
    deep_network,
    downhill,
    layer_norms,
    memory,
    problem,
    scaled,
    sweep,
)
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.surrogate import SHAPES, FastSigmoid, StraightThrough, Surrogate
from snnlearn.widgets import LivePanel, coarse_limits

Artists = dict[str, Any]

# Panels.

SHAPE_NAMES = {shape.__name__: shape for shape in SHAPES}
FINITE = {name: shape for name, shape in SHAPE_NAMES.items() if shape is not StraightThrough}


def _line(ax: Any, role: str, text: str, style: str = "-", **more: Any) -> Any:
    return ax.plot([], [], style, color=COLORS[role], label=text, **more)[0]


def _legend(ax: Any, **place: Any) -> None:
    """A legend below the curves that move, so that it is not drawn anew with them."""
    ax.legend(frameon=False, fontsize=9, **place).set_zorder(1)


def _limit(top: float) -> float:
    """The upper end of an axis for values up to ``top``: the next of a few round numbers."""
    return next((limit for limit in (1.4, 3.0, 7.0, 15.0, 30.0) if top <= limit), 50.0)


def _numbers(surrogate: Surrogate) -> str:
    name = type(surrogate).__name__
    return f"{name}: peak {surrogate.peak:.2f}, width {surrogate.width:.2f}, area {surrogate.area:.2f}"


def draw_shapes(
    axes: Sequence[Any], artists: Mapping[str, Any] | None, *, first: str, second: str, width: float, equal: str
) -> Artists:
    """Two slopes, and beside them their primitives, over U - theta."""
    if artists is None:
        slope, primitive = axes
        label(slope, "U − θ (membrane units)", "slope σ′", "Slope: what the backward pass uses")
        label(primitive, "U − θ (membrane units)", "primitive σ", "Primitive: the step it is the derivative of")
        primitive.step([-1, 0, 1], [0, 1, 1], where="post", color=COLORS["spike"], lw=1, label="step Θ")
        for ax in axes:
            ax.set(xlim=(-1, 1))
        artists = {
            "slopes": [_line(slope, "surrogate", "", lw=2), _line(slope, "reference", "", "--", lw=2)],
            "primitives": [_line(primitive, "surrogate", "", lw=2), _line(primitive, "reference", "", "--", lw=2)],
        }
        artists["legend"] = slope.legend(artists["slopes"], [""] * 2, loc="upper left", frameon=False, fontsize=9)
        _legend(primitive, loc="upper left")
    both = [scaled(SHAPE_NAMES[name], width, equal) for name in (first, second)]
    x = torch.linspace(-1, 1, 401, dtype=torch.float64)
    f, F = [s.slope(x).numpy() for s in both], [s.primitive(x).numpy() for s in both]
    for i in range(2):
        artists["slopes"][i].set_data(x, f[i])
        artists["primitives"][i].set_data(x, F[i])
        artists["legend"].get_texts()[i].set_text(_numbers(both[i]))
    axes[0].set_ylim(0, _limit(1.35 * max(map(np.max, f))))  # room for the numbers
    axes[1].set_ylim(*coarse_limits(min(-0.2, *map(np.min, F)), max(1.2, *map(np.max, F)), 0.8))
    return dict(artists)


def shapes_panel() -> LivePanel:
    """Widget A: two shapes at equal peak or equal area."""

    def alt(first: str, second: str, width: float, equal: str) -> str:
        both = [_numbers(scaled(SHAPE_NAMES[name], width, equal)) for name in (first, second)]
        return f"Two slopes and their primitives over U − θ at equal {equal}. {both[0]}. {both[1]}."

    controls = {
        "first": ipywidgets.Dropdown(options=list(SHAPE_NAMES), value="FastSigmoid"),
        "second": ipywidgets.Dropdown(options=list(SHAPE_NAMES), value="PiecewiseLinear"),
        "width": ipywidgets.FloatLogSlider(
            10**-0.7, min=-1.5, max=0, step=0.05, readout_format=".2f", description="width (membrane units)"
        ),
        "equal": ipywidgets.ToggleButtons(options=[("equal peak", "peak"), ("equal area", "area")], description=" "),
    }
    return LivePanel(draw_shapes, controls, columns=2, figsize=(9.5, 3.8), alt=alt)


@functools.cache
def _true() -> Sweep:
    """The staircase. It does not depend on any surrogate, nor is the gradient in it used."""
    return sweep(problem(), WEIGHTS, FastSigmoid())


@functools.lru_cache(maxsize=2)  # the weight is dragged while the surrogate stays
def _both(shape: str, width: float) -> tuple[Surrogate, Sweep, Sweep, Tensor]:
    surrogate = FINITE[shape](width).with_area(1.0)  # so that the primitive rises from 0 to 1, like the step
    step, smoothed = (sweep(problem(), WEIGHTS, surrogate, smooth=smooth) for smooth in (False, True))
    return surrogate, step, smoothed, downhill(WEIGHTS, step.loss, step.gradient)


LOSS_TOP = 30.0
GRID = WEIGHTS.numpy()
W_LOW, W_HIGH = GRID[[0, -1]].tolist()


def _nearest(w: float) -> int:
    return int(np.abs(GRID - w).argmin())


def _arrow(arrow: FancyArrowPatch, w: float, loss: float, gradient: float) -> None:
    """Point from (w, loss) downhill, by the same length on the screen whatever the slope."""
    slope = gradient * (W_HIGH - W_LOW) / LOSS_TOP
    length = 0.16 / math.hypot(1, slope)
    back = -math.copysign(length, gradient)
    arrow.set_positions((w, loss), (w + back * (W_HIGH - W_LOW), loss + back * slope * LOSS_TOP))
    arrow.set_visible(gradient != 0)


def _start_weight(axes: Sequence[Any]) -> Artists:
    """What does not move in widget B, and artists for what does."""
    loss, gradient, membrane = axes
    label(loss, "weight w", "loss L", "Loss, and what goes downhill")
    loss.set(xlim=(W_LOW, W_HIGH), ylim=(-2.5, LOSS_TOP))
    loss.plot(GRID, _true().loss, color=COLORS["loss"], lw=2, label="true loss")
    label(gradient, "weight w", "gradient dL/dw", "Gradient")
    gradient.set(xlim=(W_LOW, W_HIGH), ylim=(-1e4, 1e4))
    gradient.set_yscale("symlog", linthresh=10)
    gradient.axhline(0, color=COLORS["loss"], lw=2, label="of the true loss")
    label(membrane, "time (ms)", "membrane U", "Neuron at w")
    membrane.set(xlim=(0, len(problem().x)), ylim=(-1.6, 2))
    threshold_line(membrane)
    wanted = problem().target.nonzero()[:, 0]
    membrane.plot(wanted, np.full(len(wanted), 1.75), "|", color=COLORS["loss"], ms=10, mew=2, label="target spikes")
    artists: Artists = {
        "curves": [
            _line(loss, "reference", "smoothed loss"),
            _line(gradient, "reference", "of the smoothed loss"),
            _line(gradient, "surrogate", "surrogate gradient"),
        ],
        "bad": _line(loss, "threshold", "surrogate leads up", "s", ms=3),
        "dots": [_line(loss, role, "", "o") for role in ("loss", "reference")],
        "arrows": [
            loss.add_patch(
                FancyArrowPatch((0, 0), (1, 1), arrowstyle="-|>", mutation_scale=14, color=color, lw=2, zorder=3)
            )
            for color in (COLORS["surrogate"], COLORS["reference"])
        ],
        "here": [
            gradient.axvline(0, color=COLORS["muted"], lw=1, ls=":"),
            _line(gradient, "surrogate", "", "o"),
            _line(gradient, "reference", "", "o"),
        ],
        "membranes": [_line(membrane, "membrane", "U, step"), _line(membrane, "reference", "U, smoothed", "--")],
        "spikes": _line(membrane, "spike", "spikes", "|", ms=10, mew=2),
    }
    _legend(loss, loc="upper left")
    _legend(gradient, loc="lower right")
    _legend(membrane, loc="lower left", ncol=2)
    return artists


def draw_weight(
    axes: Sequence[Any], artists: Mapping[str, Any] | None, *, w: float, width: float, shape: str
) -> Artists:
    """The true and the smoothed loss over one weight, both gradients, and the neuron at w."""
    a = _start_weight(axes) if artists is None else dict(artists)
    _, step, smoothed, way = _both(shape, width)
    i = _nearest(w)
    a["curves"][0].set_data(GRID, smoothed.loss)
    a["curves"][1].set_data(GRID, smoothed.gradient)
    a["curves"][2].set_data(GRID, step.gradient)
    bad = GRID[way.numpy() > 0]
    a["bad"].set_data(bad, np.full(len(bad), -1.5))
    for j, found in enumerate((step, smoothed)):
        a["dots"][j].set_data([GRID[i]], [found.loss[i].item()])
        a["here"][j + 1].set_data([GRID[i]], [found.gradient[i].item()])
        a["membranes"][j].set_data(np.arange(len(found.U)), found.U[:, i])
        _arrow(a["arrows"][j], GRID[i], found.loss[i].item(), found.gradient[i].item())
    a["here"][0].set_xdata([GRID[i]] * 2)
    fired = step.s[:, i].nonzero()[:, 0]
    a["spikes"].set_data(fired, np.full(len(fired), 1.45))
    return a


def weight_words(w: float, width: float, shape: str) -> str:
    """The numbers behind widget B at one weight."""
    _, step, smoothed, way = _both(shape, width)
    i = _nearest(w)
    then = {-1: "fall", 0: "not change", 1: "rise"}[int(way[i])]
    return (
        f"At w = {w:.3f}, {shape} of width {width:.2f} and area 1: true loss {step.loss[i]:.2f}, surrogate gradient "
        f"{step.gradient[i]:.3g}; smoothed loss {smoothed.loss[i]:.2f}, its gradient {smoothed.gradient[i]:.3g}. "
        f"Against the surrogate gradient the true loss would first {then}."
    )


def weight_panel() -> LivePanel:
    """Widget B: one weight dragged through the staircase."""
    controls = {
        "w": ipywidgets.FloatSlider(0.45, min=0.2, max=1.2, step=0.0025, readout_format=".3f", description="weight w"),
        "width": ipywidgets.FloatLogSlider(
            10**-0.5, min=-1.5, max=0, step=0.05, readout_format=".2f", description="width (membrane units)"
        ),
        "shape": ipywidgets.Dropdown(options=list(FINITE), value="Gaussian"),
    }
    return LivePanel(draw_weight, controls, columns=3, figsize=(10, 3.8), alt=weight_words, play="w")


@functools.lru_cache(maxsize=4)
def _norms(shape: str, width: float, peak: float) -> tuple[Surrogate, list[Array], list[Array]]:
    """Norms by layer, relative to the error's, and memories; each for the reset kept and detached."""
    net, surrogate = deep_network(), SHAPE_NAMES[shape](width, peak)
    error = float(np.linalg.norm(net.error))
    layers = [layer_norms(net, surrogate, kept) / error for kept in (True, False)]
    return surrogate, layers, [memory(net, surrogate, kept) for kept in (True, False)]


def _log_limits(ax: Any, values: Sequence[Array], step: int = 4, floor: float = 1e-12) -> None:
    """Limits at powers of 10**step around the values; what is below the floor may leave the picture."""
    flat = np.clip(np.concatenate(values), floor, None)
    low, high = coarse_limits(float(np.log10(flat.min())), float(np.log10(flat.max())), step)
    ax.set_ylim(10.0**low, 10.0**high)


def draw_norms(
    axes: Sequence[Any], artists: Mapping[str, Any] | None, *, width: float, peak: float, shape: str
) -> Artists:
    """Where the membranes are and the slope; the gradient's norm by layer; its memory of earlier steps."""
    net = deep_network()
    surrogate, layers, memories = _norms(shape, width, peak)
    x = torch.linspace(-2, 1.5, 351, dtype=torch.float64)
    if artists is None:
        where, depth, time = axes
        label(where, "U − θ (membrane units)", "slope σ′", "The slope, over where membranes are")
        twin = np.concatenate(net.U).ravel() - net.theta
        share, edges = np.histogram(twin, bins=np.linspace(-2, 1.5, 36))
        where.stairs(
            share / share.max(), edges, fill=True, color=COLORS["muted"], alpha=0.4, label="where membranes are"
        )
        where.set(xlim=(-2, 1.5))
        label(depth, "layer (6 is next to the loss)", "norm of dL/da over the error's", "Through depth")
        label(time, "steps back (1 ms each)", "rms of dU[last]/dU[n]", "Through time, in layer 1")
        time.set(xlim=(0, len(memories[0]) - 1))
        depth.set(xlim=(0.7, 6.3), xticks=range(1, 7))
        for ax in (depth, time):
            ax.set_yscale("log")
            ax.axhline(1, color=COLORS["muted"], lw=0.8)
        artists = {"slope": _line(where, "surrogate", "slope", lw=2)}
        for name, ax, mark in (("layers", depth, "o"), ("memories", time, "")):
            artists[name] = [_line(ax, "surrogate", "reset kept", mark + "-", lw=2)]
            artists[name] += [_line(ax, "reference", "reset detached", mark + "--", lw=2)]
        for ax in (where, time):
            _legend(ax, loc="upper left" if ax is where else "lower left")
    artists["slope"].set_data(x, surrogate.slope(x))
    axes[0].set_ylim(0, _limit(peak))
    for i in range(2):
        artists["layers"][i].set_data(np.arange(1, 7), layers[i])
        artists["memories"][i].set_data(np.arange(len(memories[i])), memories[i])
    _log_limits(axes[1], layers)
    _log_limits(axes[2], memories)
    return dict(artists)


def norms_words(width: float, peak: float, shape: str) -> str:
    """The numbers behind widget C."""
    _, (kept, detached), (memory, _) = _norms(shape, width, peak)
    return (
        f"{shape} of width {width:.2g} and peak {peak:.2g}. From layer 6 down to layer 1 the gradient's norm changes "
        f"by a factor of {kept[0] / kept[-1]:.2g} with the reset kept and {detached[0] / detached[-1]:.2g} with it "
        f"detached. Twenty steps back a membrane's change counts {memory[20]:.2g} times, reset kept, and 0.37 times, "
        "detached."
    )


def norms_panel() -> LivePanel:
    """Widget C: gradient norms of a deep network against the surrogate's width and peak."""
    controls = {
        "width": ipywidgets.FloatLogSlider(
            0.1, min=-2, max=0.5, step=0.1, readout_format=".2f", description="width (membrane units)"
        ),
        "peak": ipywidgets.FloatLogSlider(1.0, min=-1, max=1, step=0.1, readout_format=".2f", description="peak"),
        "shape": ipywidgets.Dropdown(options=list(FINITE), value="FastSigmoid"),
    }
    return LivePanel(draw_norms, controls, columns=3, figsize=(10, 3.6), alt=norms_words)
