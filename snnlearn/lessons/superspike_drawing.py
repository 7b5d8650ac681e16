"""Tutorial 05: what its pictures share."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.plots import COLORS

SMALL: dict[str, Any] = {"fontsize": "small"}


def whole(name: str, value: int, low: int, high: int, step: int = 1) -> ipywidgets.IntSlider:
    """A slider of whole numbers."""
    return ipywidgets.IntSlider(value, min=low, max=high, step=step, description=name, continuous_update=True)


def key(ax: Axes, *entries: tuple[float, str, str]) -> None:
    """Names of curves above an axes, as texts, drawn much faster than a legend: (x, text, role)."""
    for x, text, role in entries:
        ax.text(x, 1.02, text, transform=ax.transAxes, va="bottom", ha="left", color=COLORS[role], **SMALL)


def ticks(ax: Axes, role: str, **style: Any) -> Any:
    """Spikes as ticks at a height of the axes: ``set_data(times, heights)``, heights in 0..1."""
    look: dict[str, Any] = {"linestyle": "", "marker": "|", "markersize": 10, "markeredgewidth": 1.8} | style
    return ax.plot([], transform=ax.get_xaxis_transform(), color=COLORS[role], **look)[0]


def set_ticks(line: Any, s: np.ndarray, height: float) -> None:
    """Show the spikes s (T,) with the line that `ticks` made, at a height in 0..1."""
    at = np.flatnonzero(s)
    line.set_data(at, np.full(len(at), height))
