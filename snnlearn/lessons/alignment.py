"""Tutorial 10, feedback alignment: the panels.

The numbers come from `alignment_numbers` and `alignment_training`. A ``draw_...`` function is what a `LivePanel` calls:
at its first call it makes the artists, later it moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import alignment_numbers as numbers
from snnlearn.lessons.alignment_exercises import angle_exercise as angle_exercise
from snnlearn.lessons.alignment_exercises import error_exercise as error_exercise
from snnlearn.lessons.alignment_exercises import kolen_pollack_exercise as kolen_pollack_exercise
from snnlearn.lessons.alignment_learning import depth_panel as depth_panel
from snnlearn.lessons.alignment_learning import draw_angles as draw_angles
from snnlearn.lessons.alignment_learning import layer_color as layer_color
from snnlearn.lessons.alignment_learning import span as span
from snnlearn.lessons.alignment_learning import training_panel as training_panel
from snnlearn.lessons.alignment_numbers import by_hand as by_hand
from snnlearn.lessons.alignment_numbers import degrees as degrees
from snnlearn.lessons.alignment_numbers import random_angle as random_angle
from snnlearn.lessons.alignment_training import Fit as Fit
from snnlearn.lessons.alignment_training import Way as Way
from snnlearn.lessons.alignment_training import fit as fit
from snnlearn.lessons.alignment_training import network as network
from snnlearn.lessons.common import heading
from snnlearn.plots import COLORS, label
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel

# Panel A: feedback turned away from the weights.


def _new_turn(axes: Sequence[Axes]) -> dict[str, Any]:
    blame, angles, loss = axes
    label(blame, "error by backpropagation (rms)", "error by G (rms)")
    label(angles, "angle between G and W (degrees)", "angle of the error (degrees)")
    label(loss, "size of the step (% of the weights)", "loss after it / loss before")
    blame.set(xlim=(-4, 4), ylim=(-4, 4), xticks=range(-4, 5, 2), yticks=range(-4, 5, 2))
    blame.plot([-4, 4], [-4, 4], color=COLORS["reference"], linewidth=4, alpha=0.4)
    angles.axhline(90, color=COLORS["muted"], linestyle="--", linewidth=1)
    angles.set(xlim=(-4, 184), ylim=(-8, 188), xticks=range(0, 181, 30), yticks=range(0, 181, 30))
    loss.axhline(1, color=COLORS["muted"], linestyle="--", linewidth=1)
    loss.set(xlim=(0, 100 * numbers.MOVES[-1]), ylim=(0.6, 1.6))
    return {
        "cloud": blame.plot([], ".", color=COLORS["loss"], markersize=3)[0],
        "curves": [angles.plot([], color=layer_color(i))[0] for i in range(len(numbers.DEPTHS))],
        "dots": [angles.plot([], "o", color=layer_color(i), markersize=7)[0] for i in range(len(numbers.DEPTHS))],
        "names": [angles.text(0, 0, "", color=layer_color(i), fontsize="small") for i in range(len(numbers.DEPTHS))],
        "exact": loss.plot([], color=COLORS["reference"], linewidth=4, alpha=0.7)[0],
        "after": loss.plot([], color=COLORS["loss"], linewidth=1.8)[0],
        "headings": [heading(ax) for ax in axes],
    }


def draw_turn(axes: Sequence[Axes], artists: Artists | None, *, phi: int, depth: int) -> Artists:
    """Errors through G at an angle to W, their angles to backpropagation's, and what a step along them does."""
    made: Any = _new_turn(axes) if artists is None else artists
    found, i = numbers.turned(depth), numbers.PHI.index(phi)
    made["cloud"].set_data(*(v / np.sqrt(np.square(v).mean()) for v in found.blame[i]))
    for layer, (curve, dot, name) in enumerate(zip(made["curves"], made["dots"], made["names"], strict=True)):
        here = layer < depth
        curve.set_data(numbers.PHI if here else [], found.errors[:, layer] if here else [])
        dot.set_data([phi] if here else [], [found.errors[i, layer]] if here else [])
        name.set_text(f"layer {layer + 1}" if here else "")
        name.set_position((2, 174 - 13 * layer))
    relative = found.losses / found.losses[:, :1]
    made["exact"].set_data(100 * numbers.MOVES, relative[0])
    made["after"].set_data(100 * numbers.MOVES, relative[i])
    change = relative[i, 1] - 1
    word = "falls" if change < -0.005 else "rises" if change > 0.005 else "hardly moves"
    made["headings"][0].set_text(f"layer 1: errors at {found.errors[i, 0]:.0f}° to backpropagation's")
    made["headings"][1].set_text(f"G at {phi}° to W")
    made["headings"][2].set_text(f"at the first step it {word}")
    return made


def describe_turn(*, phi: int, depth: int) -> str:
    """The text alternative of panel A."""
    found, i = numbers.turned(depth), numbers.PHI.index(phi)
    angles = ", ".join(f"{v:.0f}" for v in found.errors[i])
    return (
        f"Three pictures of a network with {depth} hidden layers whose feedback weights G are at {phi} degrees to W. "
        "Errors of the lowest hidden layer, by G against by backpropagation. The angle between the two in every hidden "
        f"layer against the angle of G: here {angles} degrees, the lowest layer first. The loss after a step of the "
        f"hidden layers: {found.losses[i, 0]:.1f} before, {found.losses[i, 4]:.1f} after a step of 2 %, where the true "
        f"gradient gives {found.losses[0, 4]:.1f}."
    )


def turn_panel() -> LivePanel:
    """Panel A."""
    for depth in numbers.DEPTHS:
        numbers.turned(depth)  # so that the first move of a control need not wait
    controls = {
        "phi": ipywidgets.IntSlider(40, min=0, max=180, step=5, description="angle between G and W (°)"),
        "depth": ipywidgets.ToggleButtons(options=numbers.DEPTHS, value=2, description="hidden layers"),
    }
    return LivePanel(draw_turn, controls, columns=3, figsize=(10.5, 3.4), alt=describe_turn, play="phi")
