"""Pictures: a palette with roles, and the drawings that several tutorials share. Matplotlib axes in, artists out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from snnlearn.microscope import Comparison, Likeness

# Okabe & Ito's palette, told apart by colour-blind readers; a role keeps its colour in every tutorial.
COLORS = {
    "membrane": "#0072B2",
    "current": "#009E73",
    "spike": "#000000",
    "threshold": "#D55E00",
    "surrogate": "#CC79A7",
    "loss": "#E69F00",
    "reference": "#56B4E9",
    "muted": "#8C8C8C",
}


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook with a text alternative, and close it."""
    from IPython.display import display
    from matplotlib import pyplot as plt

    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def label(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Name both axes, with units, and the picture; take the upper and right frame away."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)


def spike_segments(spikes: Any, dt_ms: float, low: float = 0.0, height: float = 0.8) -> np.ndarray:
    """Line segments of a raster: spikes (T, N), 0 or not, to (number of spikes, 2, 2) in ms and row numbers."""
    step, row = np.nonzero(np.asarray(spikes))
    x, y = step * dt_ms, low + row
    return np.stack([np.stack([x, y], 1), np.stack([x, y + height], 1)], 1)


def raster(ax: Axes, spikes: Any, dt_ms: float = 1.0, color: str = COLORS["spike"], **style: Any) -> LineCollection:
    """Draw spikes (T, N) as ticks, one row a neuron. `update_raster` moves them."""
    lines = LineCollection(list(spike_segments(spikes, dt_ms)), colors=color, **{"linewidths": 1.2, **style})
    ax.add_collection(lines)
    steps, rows = np.asarray(spikes).shape
    ax.set(xlim=(0, steps * dt_ms), ylim=(-0.2, rows))
    return lines


def update_raster(lines: LineCollection, spikes: Any, dt_ms: float = 1.0) -> None:
    """Show other spikes with the collection that `raster` returned."""
    lines.set_segments(list(spike_segments(spikes, dt_ms)))


def threshold_line(ax: Axes, theta: float = 1.0) -> Line2D:
    """A dashed line at the threshold."""
    return ax.axhline(theta, color=COLORS["threshold"], linestyle="--", linewidth=1, label="threshold θ")


def draw_comparison(figure: FigureBase, comparison: Comparison) -> Sequence[Axes]:
    """Draw what `snnlearn.microscope.compare` found: cosine, norm ratio and kept memory, a row a rule.

    Args:
        figure: an empty figure with ``layout="constrained"``, about 10 inches wide, or a subfigure of one.
        comparison: what to draw. A value that is not defined, or of a rule that was left out, has no mark.

    Returns:
        The three axes.
    """
    names = [*comparison.rows, *comparison.refused]
    height = dict(zip(names, reversed(range(len(names))), strict=True))
    cosine, ratio, kept = axes = figure.subplots(1, 3, sharey=True)
    for ax, value in ((cosine, lambda like: like.cosine), (ratio, lambda like: like.ratio)):
        ax.axvline(1, color=COLORS["reference"], linewidth=6, alpha=0.4, zorder=0)
        _dots(ax, comparison, height, value)
    ratio.set_xscale("log")
    low, high = ratio.get_xlim()
    ratio.set_xlim(min(low, 0.1), max(high, 10))  # or the axis would spread what hardly differs
    ratio.minorticks_off()
    cosine.set_xlim(min(-0.05, cosine.get_xlim()[0]), 1.05)
    for name, row in comparison.rows.items():
        kept.barh(height[name], row.memory.kept / 1e3, height=0.5, color=COLORS["muted"])
        kept.annotate(
            f"{row.memory.kept / 1e3:,.1f}", (row.memory.kept / 1e3, height[name]), (3, 0),
            textcoords="offset points", va="center", fontsize="small",
        )  # fmt: skip
    for name in comparison.refused:
        cosine.annotate("left out", (0.5, height[name]), ha="center", va="center", color=COLORS["muted"])
    kept.set_xlim(0, 1.3 * max(row.memory.kept for row in comparison.rows.values()) / 1e3 or 1)
    cosine.set_yticks(list(height.values()), list(height))
    cosine.set_ylim(-0.6, len(names) - 0.4)
    label(cosine, f"cosine to {comparison.reference} (1 = same direction)", "rule")
    label(ratio, f"|g| / |g of {comparison.reference}| (1 = same length)", "")
    label(kept, "memory kept (kB)", "")
    figure.legend(
        *cosine.get_legend_handles_labels(), loc="outside upper left", frameon=False, fontsize="small", ncols=4
    )
    return axes


LAYERS = [("membrane", "o"), ("threshold", "s"), ("current", "^"), ("surrogate", "D"), ("loss", "v")]  # role, marker


def _dots(ax: Axes, comparison: Comparison, height: dict[str, int], value: Callable[[Likeness], float | None]) -> None:
    """A mark for each rule and each of its weights, those of a rule a little below each other."""
    weights = list(next(iter(comparison.rows.values())).weights)
    for i, weight in enumerate(weights):
        role, marker = LAYERS[i % len(LAYERS)]
        shift = 0.5 * (0.5 - (i + 0.5) / len(weights))
        found = {height[name] + shift: value(row.weights[weight]) for name, row in comparison.rows.items()}
        seen = [(x, y) for y, x in found.items() if x is not None]
        ax.plot(*np.array(seen).reshape(-1, 2).T, marker, color=COLORS[role], markersize=6, label=weight)
