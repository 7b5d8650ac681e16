"""Tutorial Fig. 5 (Neftci, Mostafa & Zenke 2019): four ways for the error to go down, as measured alignment.

The paper draws the ways: (a) backpropagation, (b) feedback alignment, (c) direct feedback alignment, (d) local errors.
Here networks of two and three hidden spiking layers learn the digits by each. Measured are their accuracy and, for (b)
and (c), the angle between the errors and those of backpropagation on the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import COLORS, arguments, canvas, label, save

from snnlearn.lessons import local_errors_training as local
from snnlearn.lessons.alignment_learning import layer_color
from snnlearn.lessons.alignment_numbers import random_angle
from snnlearn.lessons.alignment_training import HIDDEN, Way, fit

WAYS = {
    "(a) backpropagation": Way.TRANSPOSE,
    "(b) feedback alignment": Way.RANDOM,
    "(c) direct feedback": Way.DIRECT,
    "readout only": Way.NONE,
}
DEPTH = 3
LOCAL = "(d) local errors"


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    mean = {name: float(np.mean(found)) for name, found in here["accuracy"].items()}
    b, c = (here["angle of errors (degrees), by layer"][name] for name in list(WAYS)[1:3])
    learned = {name: max(after["after"][0], after["after"][-1]) < 80 for name, after in (("b", b), ("c", c))}
    return {
        "feedback alignment learns: better than the readout alone": mean["(b) feedback alignment"]
        > mean["readout only"],
        "direct feedback learns: better than the readout alone": mean["(c) direct feedback"] > mean["readout only"],
        "local errors learn: the top layer's critic is better than a trained readout of layers left as drawn": mean[
            LOCAL
        ]
        > float(np.mean(here["readout only, local errors' network"])),
        "fixed random feedback comes close to backpropagation: within 3 points": min(
            mean["(b) feedback alignment"], mean["(c) direct feedback"]
        )
        > mean["(a) backpropagation"] - 0.03,
        "errors start at right angles to those of backpropagation in the lowest layer": all(
            abs(row["before"][0] - 90) < 5 for row in (b, c)
        ),
        "errors of feedback alignment align in training, below 80 degrees in the lowest and the top layer": learned[
            "b"
        ],
        "errors of direct feedback align in training, below 80 degrees in the lowest and the top layer": learned["c"],
        "direct feedback aligns the lowest layer better than feedback alignment": c["after"][0] < b["after"][0],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    seeds, epochs = (1, 1) if args.quick else (5, 8)
    fits = {name: fit(way, DEPTH, seeds=range(seeds), epochs=epochs, looks=2) for name, way in WAYS.items()}
    history = local.fit(range(seeds), epochs=epochs, watch=False)
    plain = local.fit_readouts(range(seeds), epochs=epochs)
    accuracy = {name: found.over("accuracy")[-1].tolist() for name, found in fits.items()}
    accuracy[LOCAL] = history.accuracy[-1, -1].tolist()
    angles = {}
    for name in list(WAYS)[1:3]:
        errors = fits[name].over("errors")  # (moments, depth, seeds)
        angles[name] = {"before": errors[0].mean(-1).tolist(), "after": errors[-1].mean(-1).tolist()}
    chance, spread = random_angle(HIDDEN)
    here = {
        "accuracy": accuracy,
        "readout only, local errors' network": plain[-1].tolist(),
        "accuracy of each layer's own critic, local errors": history.accuracy[-1].mean(-1).tolist(),
        "angle of errors (degrees), by layer": angles,
        "angle of random vectors of a layer's size (degrees)": {"mean": chance, "standard deviation": spread},
    }
    figure = canvas(11.0, 3.8)
    shares, *turning = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    names = [*list(WAYS)[:3], LOCAL, "readout only"]
    colors = ("reference", "loss", "current", "membrane", "muted")
    for i, (name, role) in enumerate(zip(names, colors, strict=True)):
        shares.barh(-i, 100 * np.mean(accuracy[name]), color=COLORS[role], height=0.6)
        shares.plot(100 * np.array(accuracy[name]), [-i] * seeds, ".", color=COLORS["spike"], markersize=4)
    shares.set_yticks([-i for i in range(len(names))], names)
    shares.set_xlim(0, 100)
    label(shares, "accuracy, test images (%)", "", f"digits, {DEPTH} hidden layers, {seeds} seeds")
    for ax, name in zip(turning, list(WAYS)[1:3], strict=True):
        epochs_at = [moment.epoch for moment in fits[name].moments]
        errors = fits[name].over("errors")
        for layer in range(DEPTH):
            marker = "os^"[layer]
            ax.plot(
                epochs_at, errors[:, layer].mean(-1), marker + "-", color=layer_color(layer), markersize=4,
                label=f"hidden layer {layer + 1}",
            )  # fmt: skip
        ax.axhline(90, color=COLORS["muted"], ls=":")
        ax.set_ylim(0, 100)
        label(ax, "epoch", "angle to backpropagation's error (°)", name)
    turning[0].legend(frameon=False, fontsize="small", loc="lower left")
    paper = {
        "Fig. 5": "schemes: (a) errors through the transpose, (b) through fixed random weights (Lillicrap et al. "
        "2016), (c) from the top straight to each layer (Nøkland 2016), (d) a fixed random cost at each layer",
        "Sec. V": "random feedback and local errors can take the place of exact backpropagation of errors",
    }
    settings = {
        "data": "digits", "seeds": seeds, "epochs": epochs, "depth": DEPTH,
        "(a)-(c)": "64 LIF neurons a layer, 8 steps, steady currents; snnlearn.lessons.alignment_training",
        "(d)": "48 DECOLLE neurons a layer, 20 steps, one spike an input; snnlearn.lessons.local_errors_training",
        "note": "(d) has other neurons and inputs than (a)-(c): compare it with its own readout alone",
    }  # fmt: skip
    save(args.out, "tutorial_fig5", figure, {"paper": paper, "here": here, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
