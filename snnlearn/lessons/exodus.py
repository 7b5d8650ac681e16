"""Tutorial 06, EXODUS and SLAYER: the pictures and the panels.

The numbers come from `snnlearn.lessons.exodus_numbers`. A ``draw_...`` function is what a `LivePanel` calls: at its
first call it makes the artists, later it moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyArrowPatch
from numpy.typing import ArrayLike

from snnlearn.lessons import exodus_numbers as numbers
from snnlearn.lessons.common import heading, slider
from snnlearn.lessons.exodus_exercises import code_exercise as code_exercise
from snnlearn.lessons.exodus_exercises import recursion_exercise as recursion_exercise
from snnlearn.lessons.exodus_exercises import theorem_exercise as theorem_exercise
from snnlearn.lessons.exodus_exercises import to_zero_exercise as to_zero_exercise
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.plots import show as show
from snnlearn.temporal import Reset
from snnlearn.widgets import Artists, LivePanel, coarse_limits

SIGNED = LinearSegmentedColormap.from_list("signed", [COLORS["threshold"], "white", COLORS["membrane"]])


def _log_slider(name: str, value: float, low: float, high: float) -> ipywidgets.FloatLogSlider:
    return ipywidgets.FloatLogSlider(value, min=low, max=high, step=0.05, description=name, readout_format=".2f")


def coarse_size(values: ArrayLike) -> float:
    """The next of 0.1, 0.3, 1, 3, 10, ... that is not below the largest of the values' sizes."""
    largest = max(float(np.abs(np.asarray(values, float)).max()), 0.1)
    decade = 10.0 ** math.floor(math.log10(largest) + 1e-9)
    return next(decade * digit for digit in (1.0, 3.0, 10.0) if largest <= decade * digit * (1 + 1e-9))


def signed_limits(values: ArrayLike) -> tuple[float, float]:
    """Limits with room for a legend above the values, in steps of ten: below zero only where the values go there."""
    values = np.asarray(values, float)
    size = 0.3 * 10.0 ** max(0, math.ceil(math.log10(max(np.abs(values).max(), 0.3) / 0.3) - 1e-9))
    return (-1.1 * size if values.min() < -0.05 * size else -0.1 * size), 1.4 * size


# The loop, and the unrolled graph without one.


def _node(ax: Axes, x: float, y: float, text: str, role: str, size: float = 30) -> None:
    ax.plot(x, y, "o", markersize=size, color="white", markeredgecolor=COLORS[role], markeredgewidth=1.6)
    ax.text(x, y, text, ha="center", va="center", color=COLORS[role])


def _edge(ax: Axes, start: tuple[float, float], end: tuple[float, float], role: str, bend: float = 0.0) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=17,
            shrinkB=17,
            color=COLORS[role],
            linewidth=1.6,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def draw_graphs(unrolled: Axes, whole: Axes, steps: int = 3) -> None:
    """The same neuron twice: a node for each step, and a node for each whole sequence, which makes a loop."""
    for n in range(steps):
        for y, name, role in ((0, "z", "current"), (1, "u", "membrane"), (2, "s", "spike")):
            _node(unrolled, n, y, f"{name}[{n}]", role)
        _edge(unrolled, (n, 0), (n, 1), "muted")
        _edge(unrolled, (n, 1), (n, 2), "surrogate")
        for later in range(n + 1, steps):
            _edge(unrolled, (n, 2), (later, 1), "threshold", 0.0 if later == n + 1 else 0.12)
    unrolled.set_title("a node for each step: no loop", loc="left", fontsize="medium")
    for y, name, role in ((0, "z", "current"), (1, "u", "membrane"), (2, "s", "spike")):
        _node(whole, 0, y, name, role)
    _edge(whole, (0, 0), (0, 1), "muted")
    _edge(whole, (0, 1), (0, 2), "surrogate", -0.35)
    _edge(whole, (0, 2), (0, 1), "threshold", -0.35)
    whole.text(-0.3, 1.5, "f (Eq. 8)", ha="right", va="center", color=COLORS["surrogate"])
    whole.text(0.3, 1.5, "ν, the reset (Eq. 7)", ha="left", va="center", color=COLORS["threshold"])
    whole.set_title("a node for the whole sequence: a loop", loc="left", fontsize="medium")
    unrolled.set(xlim=(-0.5, steps - 0.5), ylim=(-0.4, 2.45))
    whole.set(xlim=(-1.2, 1.6), ylim=(-0.4, 2.45))
    for ax in (unrolled, whole):
        ax.set_axis_off()


def draw_matrix(ax: Axes, matrix: ArrayLike, title: str, *, x: str = "input step m", y: str = "step n") -> None:
    """A (T, T) matrix as an image, blue above zero and orange below; a small one with its numbers."""
    matrix = np.asarray(matrix, float)
    size = coarse_size(matrix)
    ax.imshow(matrix, cmap=SIGNED, vmin=-size, vmax=size, interpolation="nearest")
    ax.set(xlabel=x, ylabel=y)
    ax.set_title(title, loc="left", fontsize="medium")
    if len(matrix) <= 6:
        ax.set(xticks=range(len(matrix)), yticks=range(len(matrix)))
        for (n, m), value in np.ndenumerate(matrix):
            text = f"{value:.3g}".replace("-", "−")
            ax.text(m, n, text, ha="center", va="center", color="white" if abs(value) > 0.6 * size else "black")


# Panel A: the theorem on two variables.

CURVE = np.linspace(0.004, 0.996, 400)
ROUNDS = 8


def _new_theorem(axes: Sequence[Axes]) -> dict[str, Any]:
    curve, series = axes
    label(curve, "z", "s")
    curve.set(xlim=(-8, 10), ylim=(0, 1.5), yticks=[0, 0.5, 1])  # room for the legend
    label(series, "rounds of the loop", "ds/dz")
    # a series that diverges leaves the picture
    series.set(xlim=(-0.3, ROUNDS + 0.3), xticks=range(ROUNDS + 1), ylim=(-0.6, 1))
    series.axhline(0, color=COLORS["muted"], linewidth=0.6)
    artists: dict[str, Any] = {
        "curve": curve.plot([], color=COLORS["membrane"], linewidth=2, label="φ(z, s) = 0")[0],
        "open": curve.plot([], "--", color=COLORS["threshold"], label="tangent, the loop left out")[0],
        "tangent": curve.plot([], color=COLORS["spike"], label="tangent, by the theorem")[0],
        "point": curve.plot([], "o", color=COLORS["spike"])[0],
        "sums": series.plot([], "o-", color=COLORS["threshold"], label="chain rule, round by round")[0],
        "exact": series.axhline(0, color=COLORS["spike"], label="the theorem"),
        "headings": [heading(curve), heading(series)],
    }
    for ax in axes:
        ax.legend(loc="upper right", framealpha=1, edgecolor="none", fontsize="small")
    return artists


def draw_theorem(axes: Sequence[Axes], artists: Artists | None, *, v: float, s: float) -> Artists:
    """The curve s = logistic(z - v s) with its tangent, and the chain rule going round the loop.

    Args:
        axes, artists: see `LivePanel`.
        v: how strongly s is fed back to itself.
        s: the point on the curve.
    """
    made: Any = _new_theorem(axes) if artists is None else artists
    f, slope = float(numbers.logistic_slope(s)), numbers.loop_slope(s, v)
    z = float(numbers.loop_input(s, v))
    sums = numbers.rounds(f, v, ROUNDS)
    made["curve"].set_data(numbers.loop_input(CURVE, v), CURVE)
    made["point"].set_data([z], [s])
    for name, steepness in (("tangent", slope), ("open", f)):
        turn = math.atan(steepness) if math.isfinite(steepness) else math.pi / 2
        reach = 1.6 * np.array([-1, 1])
        made[name].set_data(z + reach * math.cos(turn), s + reach * math.sin(turn))
    made["sums"].set_data(range(ROUNDS + 1), sums)
    shown = np.clip(slope, -1e6, 1e6)  # infinite where the tangent is vertical
    made["exact"].set_ydata([shown, shown])
    made["headings"][0].set_text(f"φ_s = 1 + v f = {1 + v * f:.2f},  z = {z:.2f}")
    made["headings"][1].set_text(f"f = {f:.3f},  theorem {_short(slope)},  v f = {v * f:.2f}")
    return made


def _short(value: float) -> str:
    return "vertical" if math.isinf(value) else f"{value:.3f}"


def describe_theorem(*, v: float, s: float) -> str:
    """The text alternative of panel A."""
    f = float(numbers.logistic_slope(s))
    sums = numbers.rounds(f, v, ROUNDS)
    return (
        f"Left: the curve of s = logistic(z - {v:g} s), with a point at s = {s:g}, "
        f"z = {numbers.loop_input(s, v):.2f}, and two tangents, of slope {_short(numbers.loop_slope(s, v))} by the "
        f"theorem and {f:.3f} with the loop left out. "
        f"Right: what the chain rule adds up to round by round, {sums[0]:.3f}, {sums[1]:.3f}, {sums[2]:.3f} and after "
        f"{ROUNDS} rounds {sums[-1]:.3g}."
    )


def theorem_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "v": slider("feedback v", 2.0, -8, 12, 0.25, ".2f"),
        "s": slider("point on the curve, s", 0.5, 0.02, 0.98, 0.02, ".2f"),
    }
    return LivePanel(draw_theorem, controls, columns=2, figsize=(9.5, 3.8), alt=describe_theorem, play="v")


# Panel B: the reset dial.

SEEN = {"kept": Reset.KEPT, "detached": Reset.DETACHED, "absent": Reset.IGNORED}
ERRORS = {"every step: L = number of spikes": "count", "the last step only": "end"}
_LINES = {"kept": ("surrogate", "-"), "detached": ("muted", ":"), "absent": ("reference", "--")}


def _new_dial(axes: Sequence[Axes]) -> dict[str, Any]:
    membrane, image, factors, gradient = axes
    label(membrane, "", "membrane U")
    label(factors, "time n (ms)", "slope f, carry c")
    label(gradient, "time n (ms)", "d[n] = ∂L/∂a[n]")
    image.set(xlabel="input step m", ylabel="output step n")
    ticks: dict[str, Any] = {"linestyle": "", "marker": "|", "markersize": 9, "markeredgewidth": 1.6}
    factors.axhspan(-1, 1, color=COLORS["muted"], alpha=0.13, linewidth=0)
    gradient.axhline(0, color=COLORS["muted"], linewidth=0.6)
    made: dict[str, Any] = {
        "U": membrane.plot([], color=COLORS["membrane"])[0],
        "theta": threshold_line(membrane),
        "s": membrane.plot([], color=COLORS["spike"], transform=membrane.get_xaxis_transform(), **ticks)[0],
        "image": image.imshow(np.zeros((2, 2)), cmap=SIGNED, interpolation="nearest", aspect="auto"),
        "f": factors.plot([], color=COLORS["surrogate"], label="slope f")[0],
        "c": factors.plot([], color=COLORS["membrane"], label="carry c (grey band: it cannot grow)")[0],
        "headings": [heading(ax) for ax in axes],
    }
    for name, (role, style) in _LINES.items():
        made[name] = gradient.plot([], style, color=COLORS[role], label=name)[0]
    factors.legend(loc="upper right", frameon=False, fontsize="small", ncols=2)
    gradient.legend(loc="upper right", frameon=False, fontsize="small", ncols=3)
    return made


def draw_dial(axes: Sequence[Axes], artists: Artists | None, *, seen: str, steps: int, **settings: Any) -> Artists:
    """A neuron; its Jacobian and its carry at the dial's place; its gradient at each place of the dial.

    Args:
        axes, artists: see `LivePanel`.
        seen: one of `SEEN`.
        steps: T.
        settings: see `exodus_numbers.dial`.
    """
    made: Any = _new_dial(axes) if artists is None else artists
    found = numbers.dial(SEEN[seen], steps=steps, **settings)
    t = np.arange(steps)
    made["U"].set_data(t, found.run.U)
    fired = np.flatnonzero(found.run.s)
    made["s"].set_data(fired, np.full(len(fired), 0.93))
    made["f"].set_data(t, found.f)
    made["c"].set_data(t, found.c)
    size = coarse_size(found.sigma)
    made["image"].set_data(found.sigma)
    made["image"].set_clim(-size, size)
    made["image"].set_extent((-0.5, steps - 0.5, steps - 0.5, -0.5))
    for name, choice in SEEN.items():
        made[name].set_data(t, found.d[choice])
        made[name].set_linewidth(3 if name == seen else 1.3)
    for ax in axes:
        ax.set_xlim(-0.5, steps - 0.5)
    axes[1].set_ylim(steps - 0.5, -0.5)
    low, high = coarse_limits(min(0.0, found.run.U.min()), max(1.0, found.run.U.max()), 0.5)
    axes[0].set_ylim(low - 0.2, high + 0.4)
    low, high = coarse_limits(min(-1.2, found.c.min()), max(1.2, found.f.max()), 1.0)
    axes[2].set_ylim(low, high + 0.35 * (high - low))
    axes[3].set_ylim(*signed_limits(np.concatenate(list(found.d.values()))))
    sums = ", ".join(f"{name} {_amount(found.d[choice].sum())}" for name, choice in SEEN.items())
    texts = (
        f"{len(fired)} spikes in {steps} ms",
        f"∂s[n]/∂z[m], {seen}; full colour at ±{size:g}",
        f"c between {found.c.min():.2f} and {found.c.max():.2f}",
        f"sum: {sums}",
    )
    for head, text in zip(made["headings"], texts, strict=True):
        head.set_text(text)
    return made


def _amount(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1e4 else f"{value:.1e}"


def describe_dial(*, seen: str, steps: int, **settings: Any) -> str:
    """The text alternative of panel B."""
    found = numbers.dial(SEEN[seen], steps=steps, **settings)
    below = np.tril(found.sigma, -1)
    sums = ", ".join(f"{_amount(found.d[choice].sum())} {name}" for name, choice in SEEN.items())
    return (
        f"Four pictures. A membrane that fires {found.run.s.sum():.0f} times in {steps} ms. An image of ds[n]/dz[m] "
        f"with the reset {seen}: up to {np.diag(found.sigma).max():.2f} on the diagonal, down to {below.min():.3g} and "
        f"up to {below.max():.3g} below it, nothing above. The slope, at most {found.f.max():.2f}, and the carry, "
        f"between {found.c.min():.2f} and {found.c.max():.2f}. The gradient of each step; its sum is {sums}."
    )


def dial_panel() -> LivePanel:
    """Panel B."""
    places = [("kept (EXODUS)", "kept"), ("detached", "detached"), ("absent (SLAYER)", "absent")]
    controls = {
        "seen": ipywidgets.ToggleButtons(options=places, description="the gradient's reset"),
        "update": ipywidgets.Dropdown(options=list(numbers.UPDATES), description="the neuron's reset"),
        "error": ipywidgets.Dropdown(options=list(ERRORS.items()), description="error at"),
        "width": _log_slider("surrogate width", 10**-0.7, -1.5, 0.3),
        "peak": _log_slider("surrogate peak", 1.0, -1, 0.7),
        "tau": ipywidgets.SelectionSlider(options=list(numbers.LEAKS.items()), value=math.inf, description="τ_mem"),
        "steps": ipywidgets.IntSlider(60, min=5, max=numbers.STEPS, step=5, description="T (ms)"),
    }
    return LivePanel(draw_dial, controls, rows=2, columns=2, figsize=(10, 6.4), alt=describe_dial, play="steps")


# Panel C: where each explodes.

_RULES = {True: ("EXODUS", "surrogate", "-"), False: ("SLAYER", "reference", "--")}


def _tens(powers: ArrayLike) -> np.ndarray:
    return 10.0 ** np.clip(np.asarray(powers, float), -40, 40)  # curves may leave the picture, not the numbers


def _new_norms(axes: Sequence[Axes]) -> dict[str, Any]:
    depth, scale, time = axes
    layers = len(numbers.deep_network(math.inf).U)
    label(depth, f"layer ({layers} is next to the loss)", "norm of ∂L/∂a over the error's", "Through depth")
    depth.set(xlim=(0.7, layers + 0.3), xticks=range(1, layers + 1))
    label(scale, "peak of the surrogate", "the same, in layer 1", "As the surrogate grows")
    scale.set_xscale("log")
    scale.set_xlim(numbers.PEAKS[0], numbers.PEAKS[-1])
    label(time, "steps back (1 ms each)", "rms of ∂U[T−1]/∂U[n], layer 1", "Through time")
    made: dict[str, Any] = {"cursor": scale.axvline(1, color=COLORS["spike"], linewidth=1)}
    for ax in axes:
        ax.set_yscale("log")
        ax.axhline(1, color=COLORS["muted"], linewidth=0.8)
        ax.set_ylim(*((1e-6, 1e6) if ax is time else (1e-9, 1e15)))
    for name, role, style in _RULES.values():
        made[name] = [
            ax.plot([], [], ("o" if ax is depth else "") + style, color=COLORS[role], linewidth=2, label=name)[0]
            for ax in axes
        ]
    depth.legend(frameon=False, fontsize="small", loc="upper right")
    return made


def draw_norms(
    axes: Sequence[Axes], artists: Artists | None, *, peak: float, width: float, tau: float, steps: int
) -> Artists:
    """Six layers: the gradient's norm by layer, in layer 1 over the surrogate's peak; and its memory in time."""
    made: Any = _new_norms(axes) if artists is None else artists
    found = {kept: numbers.norms(tau, width, steps, kept) for kept in _RULES}
    at = int(np.abs(np.log(numbers.PEAKS / peak)).argmin())
    made["cursor"].set_xdata([numbers.PEAKS[at]] * 2)
    for kept, (name, _, _) in _RULES.items():
        layers, memory = found[kept]
        made[name][0].set_data(np.arange(1, layers.shape[1] + 1), _tens(layers[at]))
        made[name][1].set_data(numbers.PEAKS, _tens(layers[:, 0]))
        made[name][2].set_data(np.arange(steps), _tens(memory[at]))
    axes[2].set_xlim(0, steps - 1)
    return made


def describe_norms(*, peak: float, width: float, tau: float, steps: int) -> str:
    """The text alternative of panel C."""
    at = int(np.abs(np.log(numbers.PEAKS / peak)).argmin())
    parts = []
    for kept, (name, _, _) in _RULES.items():
        layers, memory = numbers.norms(tau, width, steps, kept)
        back = min(20, steps - 1)
        parts.append(
            f"{name}: from the top layer to layer 1 the gradient's norm changes by a factor of "
            f"{10.0 ** np.clip(layers[at, 0] - layers[at, -1], -99, 99):.2g}, and {back} steps back a membrane counts "
            f"{10.0 ** np.clip(memory[at, back], -99, 99):.2g} times"
        )
    return f"Three pictures on logarithmic axes, at peak {numbers.PEAKS[at]:.2f}. {'. '.join(parts)}."


def norms_panel() -> LivePanel:
    """Panel C."""
    controls = {
        "peak": _log_slider("surrogate peak", 1.0, -1, 1),
        "width": _log_slider("surrogate width", 10**-0.45, -1.5, 0),
        "tau": ipywidgets.SelectionSlider(options=list(numbers.LEAKS.items()), value=math.inf, description="τ_mem"),
        "steps": ipywidgets.IntSlider(60, min=10, max=numbers.STEPS, step=10, description="T (ms)"),
    }
    return LivePanel(draw_norms, controls, columns=3, figsize=(10.5, 3.8), alt=describe_norms, play="peak")
