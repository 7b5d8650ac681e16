"""Tutorial Fig. 7 (Neftci, Mostafa & Zenke 2019), small: layers that learn from local errors of their own (DECOLLE).

The paper's network is convolutional and reads DVS Gesture; this one has three dense layers of 48 neurons and reads the
handwritten digits as one spike an input (with ``--data`` too: the lesson's arrays know the digits only). Asked is what
the paper says: is a higher layer better, and is the top as good as by backpropagation through time, after as many
images or fewer?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import COLORS, SERIES, arguments, canvas, label, save

from snnlearn.lessons import local_errors_training as local

CODES = {"one spike an input": "latency", "steady input": "steady"}


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    layers = {name: [float(np.mean(row)) for row in rows[-1]] for name, rows in here["accuracy"].items()}
    top, bptt = layers["one spike an input"][-1], float(np.mean(here["BPTT, one spike an input"][-1]))
    half = here["epochs to 90 % of the final accuracy"]
    return {
        "the layers learn: each critic is 20 points better than before training": all(
            np.mean(rows[-1][i]) > np.mean(rows[0][i]) + 0.2 for rows in here["accuracy"].values() for i in range(3)
        )
        is True,
        "the second layer is more accurate than the first, for both inputs": all(
            row[1] > row[0] for row in layers.values()
        ),
        "each layer is more accurate than the one below, one spike an input": layers["one spike an input"][0]
        < layers["one spike an input"][1]
        < layers["one spike an input"][2],
        "each layer is more accurate than the one below, steady input": layers["steady input"][0]
        < layers["steady input"][1]
        < layers["steady input"][2],
        "the top is on par with BPTT on the same network: within 1 point, or better": top > bptt - 0.01,
        "it needs orders of magnitude fewer images than BPTT to get to 90 % of its accuracy": half["local errors"]
        <= 0.1 * half["BPTT"],
    }


def reached(accuracy: np.ndarray) -> int:
    """The first epoch at which the mean accuracy (epochs,) is 90 % of the last."""
    return int(np.argmax(accuracy >= 0.9 * accuracy[-1]))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    if args.data is not None:
        print("data: digits, which are shipped; this figure does not read DVS Gesture")
    seeds, epochs = (1, 1) if args.quick else (5, local.EPOCHS)
    found = {name: local.fit(range(seeds), epochs=epochs, code=code) for name, code in CODES.items()}
    backward = local.fit_backprop(range(min(seeds, 2)), epochs=epochs)
    plain = local.fit_readouts(range(seeds), epochs=epochs)
    top = found["one spike an input"].accuracy[:, -1].mean(-1)
    here = {
        "accuracy": {name: history.accuracy.tolist() for name, history in found.items()},
        "BPTT, one spike an input": backward.tolist(),
        "readouts of layers left as drawn, one spike an input": plain.tolist(),
        "epochs to 90 % of the final accuracy": {"local errors": reached(top), "BPTT": reached(backward.mean(-1))},
    }
    figure = canvas(10.0, 3.8)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, history) in zip(axes, found.items(), strict=True):
        for layer in range(3):
            role, marker = SERIES[layer]
            accuracy = 100 * history.accuracy[:, layer]
            ax.plot(accuracy.mean(-1), marker + "-", color=COLORS[role], markersize=4, label=f"layer {layer + 1}")
            ax.fill_between(range(epochs + 1), accuracy.min(-1), accuracy.max(-1), color=COLORS[role], alpha=0.15, lw=0)
        label(ax, "epoch", "", f"local errors, {name}")
    axes[0].plot(100 * backward.mean(-1), color=COLORS["spike"], ls="--", label="BPTT, readout of the top")
    axes[0].axhline(100 * plain[-1].mean(), color=COLORS["muted"], ls=":", label="layers as drawn, readout of the top")
    axes[0].set_ylabel("accuracy, test images (%)")
    axes[0].set_ylim(0, 100)
    axes[0].legend(frameon=False, fontsize="small", loc="lower right")
    axes[1].legend(frameon=False, fontsize="small", loc="lower right")
    paper = {
        "Fig. 7": "three convolutional layers on DVS Gesture: each layer classifies better than the one below; better "
        "than BPTT methods with fewer training iterations by orders of magnitude",
        "Sec. V-D": "on par with BP or BPTT",
    }
    settings = {
        "data": "digits, 128 inputs (ON and OFF)", "layers": local.SIZES, "steps": local.STEPS, "dt (ms)": local.DT,
        "seeds": seeds, "seeds of BPTT": min(seeds, 2), "epochs": epochs, "batch": local.BATCH,
        "rates": {"local errors": local.RATE, "BPTT": 0.05}, "readouts": "fixed, random",
        "bands": "lowest to highest seed",
    }  # fmt: skip
    save(args.out, "tutorial_fig7", figure, {"paper": paper, "here": here, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
