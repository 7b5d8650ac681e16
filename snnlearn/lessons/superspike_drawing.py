"""Tutorial 05: what its pictures share."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from snnlearn.plots import COLORS

SMALL: dict[str, Any] = {"fontsize": "small"}


def slider(name: str, value: float, low: float, high: float, step: float, form: str) -> ipywidgets.FloatSlider:
    """A slider of numbers that the picture follows."""
    return ipywidgets.FloatSlider(
        value, min=low, max=high, step=step, description=name, readout_format=form, continuous_update=True
    )


def whole(name: str, value: int, low: int, high: int, step: int = 1) -> ipywidgets.IntSlider:
    """A slider of whole numbers."""
    return ipywidgets.IntSlider(value, min=low, max=high, step=step, description=name, continuous_update=True)


def show(figure: Figure, alt: str) -> None:
    """Display a figure with a text alternative, and close it."""
    from IPython.display import display
    from matplotlib import pyplot as plt

    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def heading(ax: Axes) -> Text:
    """A text where the title would be. matplotlib measures all of an axes to place a title, which is slow."""
    ax.set_title(" ", fontsize="medium")  # keeps the room
    return ax.text(0, 1.02, "", transform=ax.transAxes, va="bottom", clip_on=False)


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
