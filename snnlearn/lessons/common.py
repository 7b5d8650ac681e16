"""What the panels of several lessons share."""

from __future__ import annotations

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.text import Text

from snnlearn.plots import COLORS


def slider(name: str, value: float, low: float, high: float, step: float, form: str) -> ipywidgets.FloatSlider:
    """A slider of numbers that the picture follows while it is dragged."""
    return ipywidgets.FloatSlider(
        value, min=low, max=high, step=step, description=name, readout_format=form, continuous_update=True
    )


def heading(ax: Axes) -> Text:
    """A text where the title would be. matplotlib measures all of an axes to place a title, which is slow."""
    ax.set_title(" ", fontsize="medium")  # keeps the room
    return ax.text(0, 1.02, "", transform=ax.transAxes, va="bottom", clip_on=False)


def keys(ax: Axes, *entries: tuple[float, str, str], y: float = 0.9) -> None:
    """A line of coloured words, (x, text, role) each: drawn much faster than a legend."""
    for x, text, role in entries:
        ax.text(x, y, text, transform=ax.transAxes, color=COLORS[role], fontsize="small", va="center")
