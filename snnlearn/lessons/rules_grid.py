"""Tutorial 13, the grid: the pictures and the panels.

The numbers come from `rules_grid_training` and `rules_grid_numbers`. A ``draw_...`` function is what a `LivePanel`
calls: at its first call it makes the artists, later it moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from snnlearn import grid
from snnlearn.lessons import rules_grid_numbers as numbers
from snnlearn.lessons import rules_grid_training as training
from snnlearn.lessons.common import heading, keys
from snnlearn.lessons.rules_grid_exercises import break_even_exercise as break_even_exercise
from snnlearn.lessons.rules_grid_exercises import exact_exercise as exact_exercise
from snnlearn.lessons.rules_grid_exercises import signs_exercise as signs_exercise
from snnlearn.lessons.rules_grid_numbers import COMPARED as COMPARED
from snnlearn.lessons.rules_grid_numbers import correlation as correlation
from snnlearn.lessons.rules_grid_numbers import elsewhere as elsewhere
from snnlearn.lessons.rules_grid_numbers import growth as growth
from snnlearn.lessons.rules_grid_numbers import land as land
from snnlearn.lessons.rules_grid_numbers import spread as spread
from snnlearn.lessons.rules_grid_numbers import table as table
from snnlearn.lessons.rules_grid_numbers import values as values
from snnlearn.lessons.rules_grid_training import LOSS as LOSS
from snnlearn.lessons.rules_grid_training import along as along
from snnlearn.lessons.rules_grid_training import batch as batch
from snnlearn.lessons.rules_grid_training import fit as fit
from snnlearn.lessons.rules_grid_training import load as load
from snnlearn.lessons.rules_grid_training import named as named
from snnlearn.lessons.rules_grid_training import network as network
from snnlearn.plots import COLORS, label
from snnlearn.plots import show as show
from snnlearn.widgets import Artists, LivePanel

SHORT = {
    ("bptt", "transpose"): "BPTT",
    ("bptt", "feedback_alignment"): "FA in time",
    ("bptt", "direct_feedback"): "DFA in time",
    ("exodus", "transpose"): "EXODUS",
    ("slayer", "transpose"): "SLAYER",
    ("exodus_srm", "transpose"): "EXODUS",
    ("tssl_bp", "transpose"): "TSSL-BP",
    ("rtrl", "transpose"): "RTRL",
    ("eligibility", "transpose"): "OTTT",
    ("eligibility", "local_errors"): "DECOLLE",
    ("eligibility_filtered", "transpose"): "SuperSpike",
    ("eligibility_filtered", "direct_feedback"): "SuperSpike, random",
    ("eprop", "transpose"): "e-prop",
    ("eprop", "feedback_alignment"): "e-prop, random",
    ("eprop", "direct_feedback"): "e-prop, broadcast",
    ("eventprop", "transpose"): "EventProp",
}
QUANTITIES = {
    "test accuracy": "accuracy",
    "cosine to BPTT, hidden layer 1": "cosine 1",
    "cosine to BPTT, hidden layer 2": "cosine 2",
    "bytes kept": "kept",
    "operations": "work",
    "processor time": "seconds",
}
LOG = ("kept", "work", "seconds")
RANGES = {
    "accuracy": (0.1, 1.0),
    "kept": (5, 7.3),
    "work": (7, 9.5),
    "seconds": (-2.3, 0),
}  # else -0.2 to 1; powers of 10
_MAP = matplotlib.colormaps["cividis"]


def _frame(ax: Axes, bottom: float) -> None:
    """Rows and columns by name."""
    ax.set(xlim=(-1.05, 4.03), ylim=(bottom, -0.75))
    ax.set_axis_off()
    for j, name in enumerate(numbers.SPACES):
        ax.text(j + 0.5, -0.12, name.replace("_", " "), ha="center", va="bottom", color=COLORS["muted"], zorder=0)
    for i, name in enumerate(numbers.TIMES):
        ax.text(-0.05, i + 0.5, name.replace("_", " "), ha="right", va="center", zorder=0)


def draw_map(ax: Axes) -> None:
    """The grid with the literature's names, and where each gradient is exact."""
    _frame(ax, 10.2)
    colours = {(False, False): "current", (True, False): "reference", (False, True): "loss", (True, True): "surrogate"}
    for i, time in enumerate(grid.TIMES):
        for j, space in enumerate(grid.SPACES):
            pair = grid.Pair(time, space)
            role = colours[bool(time.left_out), bool(space.changed)]
            style: dict[str, Any] = {"facecolor": COLORS[role], "alpha": 0.55}
            if pair.refused:
                style = {"facecolor": "white", "hatch": "////", "edgecolor": COLORS["muted"]}
            ax.add_patch(Rectangle((j + 0.03, i + 0.06), 0.94, 0.88, linewidth=0, **style))
            text = "refused" if pair.refused else SHORT.get((time.name, space.name), "")
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if pair.refused else None
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", bbox=box)


def describe_map() -> str:
    """The text alternative of `draw_map`."""
    exact = [f"{p.time.name} x {p.space.name}" for p in grid.pairs() if p.gradient == "exact"]
    refused = [f"{p.time.name} x {p.space.name}" for p in grid.pairs() if p.refused]
    named = ", ".join(f"{row} x {column}: {name}" for (row, column), name in SHORT.items())
    return (
        f"Ten rows, ways through time, and four columns, ways through layers. Exact: {', '.join(exact)}. "
        f"Refused: {', '.join(refused)}. Names: {named}."
    )


# Panel A: the grid, coloured by what was measured.


def shown(quantity: str, value: float) -> str:
    """A value as its cell prints it."""
    if quantity == "accuracy":
        return f"{100 * value:.0f} %"
    if quantity == "kept":
        return f"{value / 1e6:.2f} MB"
    if quantity == "work":
        return f"{value / 1e6:.0f} M"
    if quantity == "seconds":
        return f"{1e3 * value:.0f} ms"
    return f"{value:.2f}".replace("-", "−")


def _shade(quantity: str, value: float) -> tuple[float, float, float, float]:
    low, high = RANGES.get(quantity, (-0.2, 1.0))
    x = np.log10(value) if quantity in LOG else value
    r, g, b, a = _MAP(float(np.clip((x - low) / (high - low), 0, 1)))
    return r, g, b, a


def _new_grid(ax: Axes) -> dict[str, Any]:
    _frame(ax, 13.4)
    cells, texts = {}, {}
    for i, row in enumerate(numbers.TIMES):
        for j, column in enumerate(numbers.SPACES):
            why = training.runs(row, column)
            place = (j + 0.03, i + 0.06), 0.94, 0.88
            if why:
                ax.add_patch(Rectangle(*place, facecolor="white", hatch="////", edgecolor="#CCCCCC", lw=0, zorder=0))
                ax.text(
                    j + 0.5, i + 0.5, "refused" if grid.pair(row, column).refused else "another network", ha="center",
                    va="center", fontsize="small", color=COLORS["muted"], zorder=0.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
            else:
                cells[i, j] = ax.add_patch(Rectangle(*place, linewidth=0))
                texts[i, j] = ax.text(j + 0.5, i + 0.5, "", ha="center", va="center")
    mark = ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, linewidth=2.5, edgecolor=COLORS["threshold"]))
    words = [ax.text(-1.0, 10.75 + 0.68 * k, "", va="center", fontsize="small", in_layout=False) for k in range(4)]
    return {
        "cells": list(cells.values()),
        "texts": list(texts.values()),
        "mark": mark,
        "words": words,
        "head": heading(ax),
    }


_PLACES = [(row, column) for row in numbers.TIMES for column in numbers.SPACES if not training.runs(row, column)]


def _words(row: str, column: str, **settings: Any) -> list[str]:
    """Four lines on one field."""
    pair = grid.pair(row, column)
    name = f": {pair.name}" if pair.name else ", which has no name that we know"
    lines = [f"{row} × {column}{name}", pair.gradient]
    why = training.runs(row, column)
    if why:
        costs = f"Memory grows as {pair.time.memory}, work a step as {pair.time.work}"
        return [lines[0], "" if pair.refused else lines[1], f"not on this network: {why}"[:140], costs]
    found = {k: values(k, row, column, **settings) for k in QUANTITIES.values()}
    accuracy, parts = found["accuracy"], {k: shown(k, v.mean()) for k, v in found.items()}
    lines.append(
        f"after {settings['epoch']} epochs: accuracy {parts['accuracy']} (of {len(accuracy)} seeds "
        f"{100 * accuracy.min():.0f} to {100 * accuracy.max():.0f}); cosine {parts['cosine 1']} and "
        f"{parts['cosine 2']} in the hidden layers (surrogate width {settings['width']:g})"
    )
    lines.append(
        f"T = {settings['steps']}: keeps {parts['kept']}, {parts['work']} operations, {parts['seconds']}.   "
        f"Memory grows as {pair.time.memory}, work a step as {pair.time.work}"
    )
    return lines


def draw_grid(axes: Sequence[Axes], artists: Artists | None, *, quantity: str, row: str, column: str, **settings: Any):
    """Every field coloured by a quantity; one of them in words.

    Args:
        axes, artists: see `LivePanel`.
        quantity: one of QUANTITIES' values.
        row, column: the field in words.
        settings: epoch, steps and width, as `numbers.values`.
    """
    made: Any = _new_grid(axes[0]) if artists is None else artists
    for (r, c), cell, text in zip(_PLACES, made["cells"], made["texts"], strict=True):
        value = values(quantity, r, c, **settings).mean()
        shade = _shade(quantity, value)
        cell.set_facecolor(shade)
        text.set_text(shown(quantity, value))
        text.set_color("black" if 0.3 * shade[0] + 0.59 * shade[1] + 0.11 * shade[2] > 0.5 else "white")
    made["mark"].set_xy((numbers.SPACES.index(column), numbers.TIMES.index(row)))
    for line, words in zip(made["words"], _words(row, column, **settings), strict=True):
        line.set_text(words)
    made["head"].set_text(_title(quantity, **settings))
    return made


def _title(quantity: str, *, epoch: int, steps: int, width: float) -> str:
    name = next(k for k, v in QUANTITIES.items() if v == quantity)
    if quantity in LOG:
        return f"{name}, a gradient of {training.BATCH} samples of {steps} steps   (bright: much)"
    when = "before training" if epoch == 0 else f"after {epoch} epochs, {20 * epoch} updates"
    seeds = f"mean of {training.SEEDS} seeds"
    return f"{name}, {when}, {seeds}" + ("" if quantity == "accuracy" else f", surrogate width {width:g}")


def describe_grid(*, quantity: str, row: str, column: str, **settings: Any) -> str:
    """The text alternative of panel A."""
    found = numbers.named_fields(quantity, **settings)
    cells = ", ".join(f"{r} x {c}: {shown(quantity, v)}" for r, c, v in found)
    words = ". ".join(line for line in _words(row, column, **settings) if line)
    needs = ", ".join(f"{name} needs {what}" for name, what in training.NEEDS.items())
    return f"{_title(quantity, **settings)}. {cells}. Hatched: {needs}. Chosen: {words}."


def grid_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "quantity": ipywidgets.Dropdown(options=list(QUANTITIES.items()), value="accuracy", description="show"),
        "epoch": ipywidgets.IntSlider(training.EPOCHS, min=0, max=training.EPOCHS, description="epoch"),
        "steps": ipywidgets.SelectionSlider(options=training.LENGTHS, value=training.STEPS, description="steps T"),
        "width": ipywidgets.SelectionSlider(
            options=training.WIDTHS, value=training.WIDTH, description="surrogate width"
        ),
        "row": ipywidgets.Dropdown(options=numbers.TIMES, value="eligibility", description="in words: row"),
        "column": ipywidgets.Dropdown(options=numbers.SPACES, value="local_errors", description="column"),
    }
    return LivePanel(draw_grid, controls, figsize=(9, 6), alt=describe_grid, play="epoch")


# Panel B: accuracy against cosine.

MARKS = {"bptt": "o", "slayer": "s", "eligibility": "^", "eprop": "D"}
ROLES = dict(zip(numbers.SPACES, ("membrane", "loss", "current", "surrogate"), strict=True))


def _new_scatter(axes: Sequence[Axes]) -> dict[str, Any]:
    cloud, spreads = axes
    label(cloud, "cosine to BPTT's gradient (mean of seeds)", "test accuracy (%)")
    cloud.set(xlim=(-0.3, 1.08), ylim=(0, 100))
    label(spreads, "epoch", "accuracy apart by (points)")
    epochs = range(training.EPOCHS + 1)
    found = [spread(e) for e in epochs]
    for name, role in (("rows", "spike"), ("columns", "threshold"), ("error", "muted")):
        spreads.plot(epochs, [100 * getattr(s, name) for s in found], "o-", color=COLORS[role], markersize=4)
    words = (("between columns", "threshold"), ("between rows", "spike"), ("standard error of a row's mean", "muted"))
    for k, (text, role) in enumerate(words):
        keys(spreads, (0.3, text, role), y=0.96 - 0.055 * k)
    spreads.set_ylim(0, 40)
    for k, (name, role) in enumerate(ROLES.items()):
        keys(spreads, (0.3, name.replace("_", " "), role), y=0.77 - 0.055 * k)
    for k, (row, mark) in enumerate(MARKS.items()):
        spreads.plot([0.68], [0.77 - 0.055 * k], mark, color=COLORS["muted"], markersize=6, transform=spreads.transAxes)
        keys(spreads, (0.71, row, "muted"), y=0.77 - 0.055 * k)
    marks, bars = [], []
    for row, column in _scattered():
        colour = COLORS[ROLES[column]]
        marks.append(cloud.plot([], [], MARKS[row], color=colour, markersize=8, markeredgecolor="white")[0])
        bars.append(cloud.plot([], [], color=colour, linewidth=1)[0])
    cursor = spreads.axvline(0, color=COLORS["muted"], linewidth=1)
    base = cloud.axhline(0, color=COLORS["muted"], linestyle="--", linewidth=1)
    return {"marks": marks, "bars": bars, "cursor": cursor, "base": base, "heads": [heading(cloud), heading(spreads)]}


def _scattered() -> list[tuple[str, str]]:
    return [(row, column) for row, column in _PLACES if row in MARKS]


def draw_scatter(axes: Sequence[Axes], artists: Artists | None, *, epoch: int, layer: str) -> Artists:
    """A mark for each field: how it points, and how well it has learned.

    Args:
        axes, artists: see `LivePanel`.
        epoch: of training.
        layer: "cosine 1", "cosine 2" or "cosine".
    """
    made: Any = _new_scatter(axes) if artists is None else artists
    settings: dict[str, Any] = {"epoch": epoch, "steps": training.STEPS, "width": training.WIDTH}
    for (row, column), mark, bar in zip(_scattered(), made["marks"], made["bars"], strict=True):
        x, y = (values(name, row, column, **settings) for name in (layer, "accuracy"))
        mark.set_data([x.mean()], [100 * y.mean()])
        bar.set_data([x.mean()] * 2, [100 * y.min(), 100 * y.max()])
    made["cursor"].set_xdata([epoch, epoch])
    made["base"].set_ydata([100 * baseline(epoch)] * 2)
    found = spread(epoch)
    made["heads"][0].set_text(f"epoch {epoch}   (dashed: hidden layers not trained)")
    made["heads"][1].set_text(f"rows {100 * found.rows:.0f}, columns {100 * found.columns:.0f} points apart")
    return made


def baseline(epoch: int) -> float:
    """Mean accuracy where only the readout learns."""
    return float(np.mean([a[epoch] for a in load()["readout only"]["accuracy"]]))


def describe_scatter(*, epoch: int, layer: str) -> str:
    """The text alternative of panel B."""
    settings: dict[str, Any] = {"epoch": epoch, "steps": training.STEPS, "width": training.WIDTH}
    marks = ", ".join(
        f"{row} x {column} at {values(layer, row, column, **settings).mean():.2f} and "
        f"{100 * values('accuracy', row, column, **settings).mean():.0f} %"
        for row, column in _scattered()
    )
    found = spread(epoch)
    return (
        f"Left, cosine and accuracy at epoch {epoch}: {marks}; dashed at {100 * baseline(epoch):.0f} %, hidden layers "
        f"not trained. Right, by epoch, how far apart the means of rows ({100 * found.rows:.0f} points here) and of "
        f"columns ({100 * found.columns:.0f}) are."
    )


def scatter_panel() -> LivePanel:
    """Panel B."""
    layers = [("hidden layer 1", "cosine 1"), ("hidden layer 2", "cosine 2"), ("both", "cosine")]
    controls = {
        "epoch": ipywidgets.IntSlider(1, min=0, max=training.EPOCHS, description="epoch"),
        "layer": ipywidgets.Dropdown(options=layers, value="cosine", description="cosine of"),
    }
    return LivePanel(draw_scatter, controls, columns=2, figsize=(9.4, 4.4), alt=describe_scatter, play="epoch")
