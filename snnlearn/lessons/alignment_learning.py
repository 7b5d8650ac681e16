"""Tutorial 10: the panels and figures that look at trainings that have been run (`alignment_training`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons.alignment_training import Array, Fit, Way
from snnlearn.lessons.common import heading
from snnlearn.plots import COLORS, LAYERS, label
from snnlearn.widgets import Artists, LivePanel

WAYS = {
    Way.TRANSPOSE: "reference",
    Way.DIRECT: "current",
    Way.RANDOM: "loss",
    Way.SIGNS: "surrogate",
    Way.LEARNED: "membrane",
    Way.NONE: "muted",
}  # roles of colours


def layer_color(layer: int) -> str:
    """The colour of a hidden layer, 0 the lowest."""
    return COLORS[LAYERS[layer % len(LAYERS)][0]]


def span(values: Array, digits: int = 0) -> str:
    """The smallest to the largest of some shares, in percent."""
    low, high = 100 * np.min(values), 100 * np.max(values)
    return f"{low:.{digits}f} to {high:.{digits}f} %"


def listed(values: Array) -> str:
    """Angles in whole degrees, as a list."""
    return ", ".join(f"{v:.0f}" for v in np.ravel(values))


# Panel B: the weights turn.


def _new_training(axes: Sequence[Axes], depth: int, last: float) -> dict[str, Any]:
    *clouds, weights, errors, accuracy = axes
    for layer, ax in enumerate(clouds):
        label(ax, "weight w", "feedback weight g" if layer == 0 else "")
        ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
        ax.axvline(0, color=COLORS["muted"], linewidth=0.6)
    label(weights, "epoch", "angle of W and G (°)")
    label(errors, "epoch", "angle of the errors (°)")
    label(accuracy, "epoch", "test images right (%)")
    for ax in (weights, errors, accuracy):
        ax.set_xlim(-0.02 * last, 1.02 * last)
        ax.set_ylim(-3, 103)
    for ax in (weights, errors):
        ax.axhline(90, color=COLORS["muted"], linestyle="--", linewidth=1)
        ax.set_yticks(range(0, 91, 30))

    def lines(ax: Axes, style: str, count: int = depth) -> list[Any]:
        colors = [layer_color(i) for i in range(depth)] if count > 1 else [COLORS["spike"]]
        return [ax.plot([], style, color=color, markersize=7)[0] for color in colors]

    return {
        "clouds": [ax.plot([], ".", color=layer_color(i), markersize=3)[0] for i, ax in enumerate(clouds)],
        "weights": lines(weights, "-") + lines(weights, "o"),
        "errors": lines(errors, "-") + lines(errors, "o"),
        "accuracy": lines(accuracy, "-", 1) + lines(accuracy, "o", 1),
        "headings": [heading(ax) for ax in axes],
    }


def _move(lines: Sequence[Any], epochs: Array, curves: Array, i: int) -> None:
    """Curves (moments, n) with a dot at moment i; lines are n curves and n dots."""
    half = len(lines) // 2
    for line, dot, values in zip(lines[:half], lines[half:], curves.T, strict=True):
        line.set_data(epochs, values)
        dot.set_data([epochs[i]], [values[i]])


def training_panel(fits: Mapping[str, Fit], start: str) -> LivePanel:
    """Panel B: the first seed of some trainings of the same depth and length, moment by moment.

    Args:
        fits: by the name that the choice shows.
        start: which is shown first.
    """
    epochs = fits[start].over("epoch")
    depth = fits[start].moments[0].weights.shape[0]
    names = [f"layer {i} to {i + 1}" for i in range(1, depth)] + [f"layer {depth} to readout"]
    series = {name: [100 * f.over("accuracy")[:, :1], f.over("weights")[..., 0], f.over("errors")[..., 0]]
              for name, f in fits.items()}  # fmt: skip
    reach = [
        [1.05 * max(np.abs(m.pairs[layer, k]).max() for f in fits.values() for m in f.moments) for k in (0, 1)]
        for layer in range(depth)
    ]

    def new(axes: Sequence[Axes]) -> dict[str, Any]:
        made = _new_training(axes, depth, float(epochs[-1]))
        for ax, (x, y) in zip(axes, reach, strict=False):
            ax.set(xlim=(-x, x), ylim=(-y, y))
        return made

    def draw(axes: Sequence[Axes], artists: Artists | None, *, way: str, epoch: float) -> Artists:
        made: Any = new(axes) if artists is None else artists
        i = int(np.flatnonzero(epochs == epoch)[0])
        moment = fits[way].moments[i]
        for cloud, pair in zip(made["clouds"], moment.pairs, strict=True):
            cloud.set_data(*pair)
        for name, curves in zip(("accuracy", "weights", "errors"), series[way], strict=True):
            _move(made[name], epochs, curves, i)
        texts = [f"{name}: {v:.0f}°" for name, v in zip(names, moment.weights[:, 0], strict=True)]
        below = ", ".join(f"{v:.0f}°" for v in moment.errors[:, 0])
        texts += ["one colour a layer", f"layers 1 to {depth}: {below}", f"{100 * moment.accuracy[0]:.0f} % right"]
        for text, line in zip(made["headings"], texts, strict=True):
            text.set_text(line)
        return made

    def describe(*, way: str, epoch: float) -> str:
        i = int(np.flatnonzero(epochs == epoch)[0])
        moment = fits[way].moments[i]
        return (
            f"Six pictures of the training '{way}' at epoch {epoch:g}. Feedback weights against weights of {depth} "
            f"layers; the angle between them, {listed(moment.weights[:, 0])} degrees, and that between the "
            f"errors of the hidden layers and backpropagation's, {listed(moment.errors[:, 0])} degrees, over "
            f"{epochs[-1]:g} epochs; the share of test images right."
        )

    controls = {
        "way": ipywidgets.Dropdown(options=list(fits), value=start, description="feedback"),
        "epoch": ipywidgets.SelectionSlider(
            options=[(f"{v:g}", float(v)) for v in epochs], value=float(epochs[-1]), description="epoch"
        ),
    }
    return LivePanel(draw, controls, rows=2, columns=3, figsize=(10.5, 5.6), alt=describe, play="epoch")


# Panel C: depth.


def _new_depth(axes: Sequence[Axes], sweep: Mapping[int, Mapping[Way, Fit]]) -> dict[str, Any]:
    score, curves, angles = axes
    depths, ways = sorted(sweep), list(sweep[min(sweep)])
    label(score, "hidden layers", "test images right at the end (%)")
    label(curves, "epoch", "test images right (%)")
    label(angles, "hidden layer (1 is the lowest)", "angle of the errors at the end (°)")
    for k, way in enumerate(ways):
        ends = [100 * sweep[d][way].moments[-1].accuracy for d in depths]
        color, shift = COLORS[WAYS[way]], 0.06 * (k - 1.5)
        for d, values in zip(depths, ends, strict=True):
            score.plot(np.full(len(values), d + shift), values, ".", color=color, markersize=4)
        score.plot(np.array(depths) + shift, [np.mean(v) for v in ends], color=color)
        score.text(0.03, 0.3 - 0.075 * k, way.value, transform=score.transAxes, color=color, fontsize="small")
    score.set(xlim=(depths[0] - 0.4, depths[-1] + 0.4), ylim=(0, 100), xticks=depths)
    last = max(f.moments[-1].epoch for runs in sweep.values() for f in runs.values())
    curves.set(xlim=(0, last), ylim=(0, 100))
    angles.set(xlim=(0.6, depths[-1] + 0.4), ylim=(-3, 95), xticks=range(1, depths[-1] + 1), yticks=range(0, 91, 30))
    angles.axhline(90, color=COLORS["muted"], linestyle="--", linewidth=1)
    told = [way for way in ways if way in (Way.RANDOM, Way.DIRECT)]
    return {
        "here": score.axvline(depths[0], color=COLORS["muted"], linewidth=8, alpha=0.25, zorder=0),
        "curves": [curves.plot([], color=COLORS[WAYS[way]])[0] for way in ways],
        "angles": [angles.plot([], "o-", color=COLORS[WAYS[way]])[0] for way in told],
        "headings": [heading(ax) for ax in axes],
    }


def depth_panel(sweep: Mapping[int, Mapping[Way, Fit]]) -> LivePanel:
    """Panel C: trainings by depth and way; the same ways at each depth."""
    ways = list(sweep[min(sweep)])
    told = [way for way in ways if way in (Way.RANDOM, Way.DIRECT)]

    def ends(depth: int) -> str:
        return ", ".join(f"{way.value} {100 * f.moments[-1].accuracy.mean():.0f}" for way, f in sweep[depth].items())

    def draw(axes: Sequence[Axes], artists: Artists | None, *, depth: int) -> Artists:
        made: Any = _new_depth(axes, sweep) if artists is None else artists
        made["here"].set_xdata([depth, depth])
        for line, way in zip(made["curves"], ways, strict=True):
            line.set_data(sweep[depth][way].over("epoch"), 100 * sweep[depth][way].over("accuracy").mean(1))
        for line, way in zip(made["angles"], told, strict=True):
            line.set_data(np.arange(1, depth + 1), sweep[depth][way].moments[-1].errors.mean(1))
        texts = [
            "dots: seeds, lines: their mean",
            f"{depth} hidden layer{'s' if depth > 1 else ''}",
            "to backpropagation's",
        ]
        for text, line in zip(made["headings"], texts, strict=True):
            text.set_text(line)
        return made

    def describe(*, depth: int) -> str:
        angles = [f"{way.value} {listed(sweep[depth][way].moments[-1].errors.mean(1))}" for way in told]
        return (
            f"Three pictures. Test accuracy against the number of hidden layers, {min(sweep)} to {max(sweep)}, for "
            f"{', '.join(way.value for way in ways)}; accuracy over the epochs with {depth}; the angles in degrees "
            f"between the errors and backpropagation's in each hidden layer, the lowest first: {'; '.join(angles)}."
        )

    slider = ipywidgets.SelectionSlider(options=sorted(sweep), value=max(sweep), description="hidden layers")
    return LivePanel(draw, {"depth": slider}, columns=3, figsize=(10.5, 3.6), alt=describe, play="depth")


# A plain figure.


def draw_angles(axes: Sequence[Axes], fits: Mapping[str, Fit]) -> None:
    """Angles between W and G, and between errors, of all seeds over the epochs: a picture for each training."""
    for column, (name, found) in enumerate(fits.items()):
        epochs = found.over("epoch")
        for ax, field, style in ((axes[column], "weights", "-"), (axes[len(fits) + column], "errors", "-")):
            values = found.over(field)  # (moments, depth, R)
            for layer in range(values.shape[1]):
                ax.plot(epochs, values[:, layer], style, color=layer_color(layer), linewidth=0.8)
            ax.axhline(90, color=COLORS["muted"], linestyle="--", linewidth=1)
            ax.set(ylim=(0, 100), yticks=range(0, 91, 30), xlim=(epochs[0], epochs[-1]))
            what = "W and G (°)" if field == "weights" else "errors (°)"
            label(ax, "epoch" if field == "errors" else "", what if column == 0 else "")
        axes[column].set_title(name, loc="left", fontsize="medium")
