"""Tutorial 11: the panels that look at what was trained: critics over the epochs, and a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from snnlearn.lessons.common import heading, keys
from snnlearn.lessons.local_errors_stream import Life, running
from snnlearn.lessons.local_errors_training import CLASSES, DT, SHOWN, History, digits
from snnlearn.lessons.superspike_drawing import whole
from snnlearn.plots import COLORS, label
from snnlearn.widgets import Artists, LivePanel

ROLES = ("membrane", "threshold", "current")  # of the first, second and third layer
NAMES = ("1", "2", "3")


def _named(start: float, step: float) -> list[tuple[float, str, str]]:
    """The layers' names in their colours, for `keys`."""
    return [(start + step * i, f"layer {n}", role) for i, (n, role) in enumerate(zip(NAMES, ROLES, strict=True))]


def _layers(count: int) -> ipywidgets.ToggleButtons:
    options = [(name, i) for i, name in enumerate(NAMES[:count])]
    return ipywidgets.ToggleButtons(options=options, value=count - 1, description="critic of layer")


def _about(share: float, to: int = 5) -> str:
    """A share in percent, coarsely: what comes out of training differs a little from machine to machine."""
    return f"{to * round(100 * share / to)} %"


def confusion(answers: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shares (label, answer); a row sums up to 1."""
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (y, answers), 1)
    return counts / counts.sum(1, keepdims=True)


def _new_critics(axes: Sequence[Axes], history: History) -> dict[str, Any]:
    curves, matrix, scores = axes
    label(curves, "epoch", "accuracy on test images (%)")
    label(matrix, "critic's answer", "digit")
    label(scores, "time (ms)", "critic's probability")
    for accuracy, role in zip(history.accuracy.transpose(1, 0, 2), ROLES, strict=False):
        curves.plot(100 * accuracy.mean(1), color=COLORS[role], linewidth=1.5)
    last = len(history.accuracy) - 1
    curves.set(xlim=(-0.3, last + 0.3), ylim=(0, 100))
    keys(curves, *_named(0.2, 0.22), y=0.1)
    image = matrix.imshow(np.zeros((CLASSES, CLASSES)), cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    matrix.set(xticks=range(CLASSES), yticks=range(CLASSES))
    T = history.scores.shape[2]
    scores.set(xlim=(0, DT * (T - 1)), ylim=(0, 1.02))
    keys(scores, (0.02, "the digit shown", "spike"), (0.45, "the other nine", "muted"), y=1.04)
    return {
        "cursor": curves.axvline(0, color=COLORS["muted"], linewidth=1),
        "dots": [
            curves.plot([], "o", color=COLORS[role], markersize=6)[0] for role in ROLES[: history.accuracy.shape[1]]
        ],
        "image": image,
        "others": [scores.plot([], color=COLORS["muted"], linewidth=1)[0] for _ in range(CLASSES - 1)],
        "right": scores.plot([], color=COLORS["spike"], linewidth=2)[0],
        "headings": [heading(curves), heading(matrix)],
    }


def critics_panel(history: History) -> LivePanel:
    """Each layer's critic over the epochs: accuracy of all, confusion and one sample of the chosen one."""
    y = digits()[3].numpy()
    layers, last = history.accuracy.shape[1], len(history.accuracy) - 1

    def draw(axes: Sequence[Axes], artists: Artists | None, *, epoch: int, layer: int, sample: int) -> Artists:
        made: Any = _new_critics(axes, history) if artists is None else artists
        mean = 100 * history.accuracy[epoch].mean(1)
        made["cursor"].set_xdata([epoch, epoch])
        for dot, value in zip(made["dots"], mean, strict=True):
            dot.set_data([epoch], [value])
        made["image"].set_data(confusion(history.answers[epoch, layer], y))
        probability = history.scores[epoch, layer, :, sample]  # (T, classes)
        t = DT * np.arange(len(probability))
        made["right"].set_data(t, probability[:, y[sample]])
        others = np.delete(probability, y[sample], 1)
        for line, values in zip(made["others"], others.T, strict=True):
            line.set_data(t, values)
        made["headings"][0].set_text(f"epoch {epoch}: " + ", ".join(f"{value:.0f}" for value in mean) + " %")
        made["headings"][1].set_text(f"layer {layer + 1}, one seed; sample is a {y[sample]}")
        return made

    def describe(*, epoch: int, layer: int, sample: int) -> str:
        mean = ", ".join(_about(value) for value in history.accuracy[epoch].mean(1))
        right = (history.answers[epoch, layer] == y).mean()
        share = history.scores[epoch, layer, :, sample, y[sample]].mean()
        return (
            f"Three pictures at epoch {epoch}. Accuracy of the layers' own readouts, lowest first, about {mean}. "
            f"Confusion of layer {layer + 1}: about {_about(right, 10)} on the diagonal. Its critic gives "
            f"a {y[sample]} the probability {share:.1f} in the mean over time."
        )

    controls = {
        "epoch": whole("epoch", last, 0, last),
        "sample": whole("test image", 0, 0, SHOWN - 1),
        "layer": _layers(layers),
    }
    return LivePanel(draw, controls, columns=3, figsize=(10.5, 3.7), alt=describe, play="epoch")


# The stream.


def _new_stream(axes: Sequence[Axes], life: Life) -> dict[str, Any]:
    curves, picture, bars = axes
    label(curves, "digits shown", "right of the last ten (%)")
    label(bars, "name", "critic's probability")
    mean = 100 * running(life.right)
    curves.set(xlim=(0, len(mean)), ylim=(0, 100))
    curves.axvline(life.swap, color=COLORS["reference"], linewidth=4, alpha=0.6)
    curves.axhline(10, color=COLORS["muted"], linestyle="--", linewidth=1)
    keys(curves, (0.02, "layer 1", ROLES[0]), (0.22, "layer 2", ROLES[1]), y=0.95)
    curves.text(life.swap + 2, 3, "new names", color=COLORS["reference"], va="center", fontsize="small")
    picture.set_axis_off()
    bars.set(xlim=(-0.6, 9.6), ylim=(0, 1.02), xticks=range(10))
    return {
        "curves": [curves.plot([], color=COLORS[role], linewidth=1.5)[0] for role in ROLES[:2]],
        "cursor": curves.axvline(0, color=COLORS["muted"], linewidth=1),
        "image": picture.imshow(np.zeros((8, 8)), cmap="gray_r", vmin=0, vmax=1),
        "bars": list(bars.bar(range(10), np.zeros(10), color=COLORS["muted"])),
        "headings": [heading(ax) for ax in axes],
    }


def draw_accuracies(ax: Axes, found: dict[str, np.ndarray], tops: Sequence[str] = ()) -> None:
    """Accuracy on test images of each layer's readout: a dot a run, a column a training.

    Args:
        ax: empty axes.
        found: by the training's name, (layers, R); of those in ``tops`` only the top layer's, (1, R).
        tops: see there.
    """
    label(ax, "", "accuracy on test images (%)")
    for column, (name, accuracy) in enumerate(found.items()):
        first = len(ROLES) - 1 if name in tops else 0
        for i, runs in enumerate(accuracy, first):
            x = column + 0.22 * (i - 1)
            ax.plot(np.full(len(runs), x), 100 * runs, "o", color=COLORS[ROLES[i]], markersize=4.5, alpha=0.8)
    ax.set_xticks(range(len(found)), list(found))
    ax.set(xlim=(-0.5, len(found) - 0.5), ylim=(55, 100))
    keys(ax, *_named(0.3, 0.08), y=0.05)


def draw_over_time(ax: Axes, accuracy: np.ndarray) -> None:
    """What each critic knows at one step alone: accuracy (layers, R, T), the mean over runs."""
    label(ax, "time (ms)", "accuracy at this step (%)")
    t = DT * np.arange(accuracy.shape[2])
    for i, runs in enumerate(accuracy):
        ax.plot(t, 100 * runs.mean(0), color=COLORS[ROLES[i]], linewidth=1.5)
    ax.set(xlim=(0, t[-1]), ylim=(0, 100))
    keys(ax, *_named(0.5, 0.12), y=0.1)


def stream_panel(life: Life) -> LivePanel:
    """What was shown, what the critics said, and how often they were right of late."""
    mean = 100 * running(life.right)

    def draw(axes: Sequence[Axes], artists: Artists | None, *, digit: int, layer: int) -> Artists:
        made: Any = _new_stream(axes, life) if artists is None else artists
        t = np.arange(1, digit + 1)
        for line, values in zip(made["curves"], mean.T, strict=True):
            line.set_data(t, values[:digit])
        made["cursor"].set_xdata([digit, digit])
        now, name = digit - 1, life.names[digit - 1]
        made["image"].set_data(life.images[now].reshape(8, 8))
        for i, (bar, value) in enumerate(zip(made["bars"], life.scores[now, layer], strict=True)):
            bar.set_height(value)
            bar.set_color(COLORS[ROLES[layer]] if i == name else COLORS["muted"])
        made["headings"][0].set_text(f"{mean[now, 0]:.0f} % and {mean[now, 1]:.0f} %")
        made["headings"][1].set_text(f"a {life.digits[now]}, to be called {name}")
        verdict = "right" if life.scores[now, layer].argmax() == name else "wrong"
        made["headings"][2].set_text(f"layer {layer + 1}: {life.scores[now, layer].argmax()}, {verdict}")
        return made

    def describe(*, digit: int, layer: int) -> str:
        now = digit - 1
        return (
            f"Three pictures after {digit} digits in each stream. The critics were right in about "
            f"{_about(mean[now, 0] / 100, 10)} and {_about(mean[now, 1] / 100, 10)} of the last ten; the names change "
            f"after {life.swap}. A stream that is not told shows a {life.digits[now]}, to be called {life.names[now]}; "
            f"layer {layer + 1} says "
            f"{life.scores[now, layer].argmax()} with probability {life.scores[now, layer].max():.1f}."
        )

    controls = {"digit": whole("digit", life.swap, 1, len(life.right)), "layer": _layers(life.right.shape[1])}
    return LivePanel(draw, controls, columns=3, figsize=(10.5, 3.5), alt=describe, play="digit")
