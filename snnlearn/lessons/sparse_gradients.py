"""Tutorial 09, sparse gradients: the pictures and the panels.

The numbers come from `snnlearn.lessons.sparse_gradients_numbers`. A ``draw_...`` function is what a `LivePanel` calls:
at its first call it makes the artists, later it moves them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike, NDArray

from snnlearn.lessons import sparse_gradients_numbers as numbers
from snnlearn.lessons.common import heading
from snnlearn.lessons.sparse_gradients_exercises import activity_exercise as activity_exercise
from snnlearn.lessons.sparse_gradients_exercises import band_exercise as band_exercise
from snnlearn.lessons.sparse_gradients_exercises import survivors_exercise as survivors_exercise
from snnlearn.plots import COLORS, label
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel

MASK = ListedColormap(["#EFEFEF", COLORS["surrogate"]])
LOW, HIGH = -2.5, 0.0  # powers of ten of B_th
SHOWN = 24  # images to choose from
EVERY = 5  # the scatter draws every fifth weight, else it is slow


def _band_slider(value: float) -> ipywidgets.FloatLogSlider:
    return ipywidgets.FloatLogSlider(
        value, min=LOW, max=HIGH, step=0.02, description="band B_th (membrane units)", readout_format=".3f"
    )


# Still pictures.


def draw_histogram(ax: Axes, V: ArrayLike, within: float, steepness: float = numbers.STEEPNESS) -> None:
    """Where membranes are, the band around the threshold, and the slope that weighs them."""
    V = np.asarray(V, float).ravel()
    bins = np.linspace(-4, 4, 161)
    share = np.histogram(V, bins)[0] / len(V)
    ax.bar(bins[:-1], 100 * share, np.diff(bins), align="edge", color=COLORS["membrane"], label="membranes")
    ax.axvspan(1 - within, 1 + within, color=COLORS["threshold"], alpha=0.25, linewidth=0, label="the band")
    label(ax, "membrane V (threshold = 1)", "share of all entries (%)")
    ax.set(xlim=(bins[0], bins[-1]), ylim=(0, 1.1 * 100 * share.max()))
    right = ax.twinx()
    x = np.unique(np.concatenate([bins, 1 + np.linspace(-0.2, 0.2, 401)]))
    right.plot(x, numbers.slope(x - 1, steepness), color=COLORS["surrogate"], linewidth=1.6, label="slope g(V)")
    right.set(ylim=(0, 1.1), ylabel="slope g(V)")
    right.spines["top"].set_visible(False)
    handles = [*ax.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper right")


def draw_mask(ax: Axes, active: ArrayLike, S: ArrayLike, title: str) -> None:
    """Which (step, neuron) passes credit, (T, N), and the spikes, (T, N), as dots."""
    active, S = np.asarray(active, bool), np.asarray(S, float)
    ax.imshow(active.T, cmap=MASK, vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin="lower")
    ax.plot(*np.nonzero(S), ".", color=COLORS["spike"], markersize=2.5)
    ax.set(xlabel="step t (ms)", ylabel="neuron", xticks=range(0, numbers.STEPS, 5))
    ax.set_title(title, loc="left", fontsize="medium")


def draw_accuracy(ax: Axes, runs: dict[float, dict[float, numbers.Learned]], floor: float) -> None:
    """Validation accuracy over activity, a line for each of two steepnesses, and what the readout alone reaches."""
    for (steepness, found), (role, marker, lift) in zip(
        runs.items(), (("surrogate", "o", -14), ("membrane", "s", 8)), strict=True
    ):
        x = [100 * run.activity for run in found.values()]
        y = [100 * run.validation for run in found.values()]
        ax.plot(x, y, f"{marker}-", color=COLORS[role], label=f"steepness {steepness:g}")
        for within, px, py in zip(found, x, y, strict=True):
            text = "dense" if math.isinf(within) else f"{within:g}"
            ax.annotate(text, (px, py), (0, lift), textcoords="offset points", ha="center", fontsize="small")
    ax.axhline(100 * floor, color=COLORS["muted"], linestyle="--", label="readout alone")
    ax.set(xscale="log", xlim=(0.1, 200), ylim=(45, 100))
    ax.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    label(ax, "activity of the hidden layers after training (%)", "validation accuracy (%)")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


# Panel A: the dial.

_CURVES = {
    "cosine": ("cosine to the dense gradient", "surrogate", "-"),
    "error": ("relative error", "threshold", "-"),
    "saved": ("multiplications saved", "current", "--"),
    "activity": ("activity", "membrane", "-"),
}


def _new_dial(axes: Sequence[Axes]) -> dict[str, Any]:
    lower, upper, scatter, curves = axes
    made: dict[str, Any] = {"headings": [heading(ax) for ax in axes], "masks": [], "spikes": []}
    for ax in (lower, upper):
        blank = np.zeros((numbers.HIDDEN, numbers.STEPS))
        options: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "origin": "lower"}
        made["masks"].append(ax.imshow(blank, cmap=MASK, vmin=0, vmax=1, **options))
        made["spikes"].append(ax.plot([], [], ".", color=COLORS["spike"], markersize=2.5)[0])
        ax.set(xlabel="step t (ms)", ylabel="neuron", xticks=range(0, numbers.STEPS, 5))
    label(scatter, "dense ∂L/∂W (share of the largest)", "sparse ∂L/∂W")
    scatter.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    scatter.plot([-1.1, 1.1], [-1.1, 1.1], color=COLORS["muted"], linewidth=0.8)
    made["points"] = scatter.plot([], [], ".", color=COLORS["surrogate"], markersize=2, alpha=0.5)[0]
    label(curves, "band B_th (membrane units)", "share")
    found = numbers.curves(numbers.STEEPNESS)
    for name, (text, role, style) in _CURVES.items():
        curves.plot(numbers.BANDS, found[name], style, color=COLORS[role], label=text)
    curves.set(xscale="log", xlim=(numbers.BANDS[0], numbers.BANDS[-1]), ylim=(0, 1.05))
    curves.legend(frameon=False, fontsize="small", loc="center right")
    made["here"] = [
        curves.plot([], [], "o", color=COLORS[role], markeredgecolor="white", markersize=8)[0]
        for _, role, _ in _CURVES.values()
    ]
    return made


@functools.cache
def _largest() -> float:
    """The largest entry of the lower layer's dense gradient."""
    return float(np.abs(numbers.likeness(math.inf, numbers.STEEPNESS)[0].dW[0]).max())


def draw_dial(axes: Sequence[Axes], artists: Artists | None, *, within: float, image: int) -> Artists:
    """Who passes credit in both layers for one image; dW of the lower layer against the dense one; four curves.

    Args:
        axes, artists: see `LivePanel`.
        within: B_th.
        image: number of the sample whose rasters are shown.
    """
    made: Any = _new_dial(axes) if artists is None else artists
    t = numbers.trial()
    found, like = numbers.likeness(within, numbers.STEEPNESS)
    for i, name in enumerate(("lower", "upper")):
        made["masks"][i].set_data(found.active[i][:, image].T)
        made["spikes"][i].set_data(*np.nonzero(t.S[i][:, image]))
        made["headings"][i].set_text(f"{name} layer: {like.activity[i]:.2%} active over all images")
    dense = numbers.likeness(math.inf, numbers.STEEPNESS)[0].dW[0]
    made["points"].set_data(dense.ravel()[::EVERY] / _largest(), found.dW[0].ravel()[::EVERY] / _largest())
    for dot, y in zip(made["here"], (like.cosine[0], like.error[0], like.saved, np.mean(like.activity)), strict=True):
        dot.set_data([within], [y])
    made["headings"][2].set_text(f"lower layer: cosine {like.cosine[0]:.4f}, rel. error {like.error[0]:.3f}")
    made["headings"][3].set_text(f"saved {like.saved:.2%};  the code's b_th = {1 - within:.3f}")
    return made


def describe_dial(*, within: float, image: int) -> str:
    """The text alternative of panel A."""
    found, like = numbers.likeness(within, numbers.STEEPNESS)
    counts = [int(mask[:, image].sum()) for mask in found.active]
    return (
        f"B_th = {within:.3f}. Two rasters of {numbers.HIDDEN} neurons over {numbers.STEPS} ms for image {image}: "
        f"{counts[0]} and {counts[1]} of {numbers.HIDDEN * numbers.STEPS} entries are active. A scatter of sparse "
        f"against dense weight gradients, cosine {like.cosine[0]:.4f}, relative error {like.error[0]:.3f}. Four curves "
        f"over B_th: activity {like.activity[0]:.2%} and {like.activity[1]:.2%} here, multiplications saved "
        f"{like.saved:.2%}."
    )


def dial_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "within": _band_slider(0.2),
        "image": ipywidgets.IntSlider(0, min=0, max=SHOWN - 1, description="image shown"),
    }
    return LivePanel(draw_dial, controls, rows=2, columns=2, figsize=(10, 6.2), alt=describe_dial, play="within")


# Panel B: the price at shallow slopes.

DISTANCES: NDArray[np.float64] = np.logspace(-2.5, 0.5, 61)


@functools.lru_cache(maxsize=64)
def _share(steepness: float) -> NDArray[np.float64]:
    return numbers.credit_within(DISTANCES, steepness)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The edges between points that are evenly spaced on a logarithmic axis."""
    step = math.sqrt(values[1] / values[0])
    return np.append(values / step, values[-1] * step)


def _new_price(axes: Sequence[Axes]) -> dict[str, Any]:
    shape, share, image = axes
    label(shape, "V − V_th (membrane units)", "slope g")
    shape.set(xlim=(-1, 1), ylim=(0, 1.05))
    label(share, "distance |V − V_th| (membrane units)", "share of the credit Σ|f e| closer than this")
    share.set(xscale="log", xlim=(DISTANCES[0], DISTANCES[-1]), ylim=(0, 1.05))
    made: dict[str, Any] = {
        "out": shape.plot([], [], ":", color=COLORS["muted"], label="cut away")[0],
        "in": shape.plot([], [], color=COLORS["surrogate"], linewidth=2, label="kept")[0],
        "edges": [shape.axvline(0, color=COLORS["threshold"], linewidth=1) for _ in range(2)],
        "share": share.plot([], [], color=COLORS["surrogate"], linewidth=2)[0],
        "cursor": share.axvline(1, color=COLORS["threshold"], linewidth=1),
    }
    shape.legend(frameon=False, fontsize="small", loc="upper right")
    values = numbers.cosines()
    mesh = image.pcolormesh(
        _edges(numbers.BANDS), _edges(numbers.STEEP), values, vmin=0, vmax=1, cmap="cividis", rasterized=True
    )
    lines = image.contour(numbers.BANDS, numbers.STEEP, values, levels=[0.9, 0.99], colors="black", linewidths=1)
    image.clabel(lines, fmt="%g", fontsize=8)
    image.set(xscale="log", yscale="log", xlabel="band B_th (membrane units)", ylabel="steepness of g")
    image.figure.colorbar(mesh, ax=image, label="cosine to the dense gradient")
    made["here"] = image.plot([], [], "o", markersize=9, markerfacecolor=COLORS["threshold"], markeredgecolor="white")[
        0
    ]
    made["headings"] = [heading(ax) for ax in axes]
    return made


X: NDArray[np.float64] = np.unique(np.concatenate([np.linspace(-1, 1, 201), np.linspace(-0.1, 0.1, 201)]))


def draw_price(axes: Sequence[Axes], artists: Artists | None, *, within: float, steepness: float) -> Artists:
    """The slope and the band; how much of the credit lies within; the cosine over both, and where we are.

    Args:
        axes, artists: see `LivePanel`.
        within: B_th.
        steepness: of the slope.
    """
    made: Any = _new_price(axes) if artists is None else artists
    g = numbers.slope(X, steepness)
    made["out"].set_data(X, g)
    made["in"].set_data(X, np.where(np.abs(X) < within, g, np.nan))
    for line, x in zip(made["edges"], (-within, within), strict=True):
        line.set_xdata([x, x])
    made["share"].set_data(DISTANCES, _share(steepness))
    made["cursor"].set_xdata([within, within])
    made["here"].set_data([within], [steepness])
    like = numbers.likeness(within, steepness)[1]
    texts = (
        f"{numbers.area_within(within, steepness):.0%} of g's area is kept",
        f"upper layer: {float(numbers.credit_within(within, steepness)):.0%} of the credit",
        f"lower layer: cosine {like.cosine[0]:.3f}",
    )
    for head, text in zip(made["headings"], texts, strict=True):
        head.set_text(text)
    return made


def describe_price(*, within: float, steepness: float) -> str:
    """The text alternative of panel B."""
    like = numbers.likeness(within, steepness)[1]
    return (
        f"Left: the slope of steepness {steepness:.3g}, kept within {within:.3f} of the threshold, which is "
        f"{numbers.area_within(within, steepness):.0%} of its area. Middle: the share of the upper layer's credit by "
        f"distance from the threshold, {float(numbers.credit_within(within, steepness)):.0%} within the band. Right: "
        f"an image of the cosine over B_th and steepness, dark at the lower left and bright at the upper right, with "
        f"lines at 0.9 and 0.99; here it is {like.cosine[0]:.3f}, at an activity of {like.activity[0]:.2%}."
    )


def price_panel() -> LivePanel:
    """Panel B."""
    controls = {
        "within": _band_slider(0.2),
        "steepness": ipywidgets.FloatLogSlider(
            100, min=0, max=2.5, step=0.05, description="steepness of g", readout_format=".1f"
        ),
    }
    return LivePanel(draw_price, controls, columns=3, figsize=(10.5, 3.8), alt=describe_price, play="steepness")
