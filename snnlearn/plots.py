"""Pictures: a palette with roles, and the drawings that several tutorials share. Matplotlib axes in, artists out."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

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
