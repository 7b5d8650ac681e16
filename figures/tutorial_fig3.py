"""Tutorial Fig. 3 (Neftci, Mostafa & Zenke 2019): the step's derivative, three surrogates, and what each comes to.

The paper draws the three shapes and says that success does not hang on the choice. Here each is measured (peak, width,
area), and each trains the same small network at several widths, beside the step's own derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import COLORS, SERIES, arguments, canvas, label, save

from snnlearn.lessons.missing_derivative_numbers import measured
from snnlearn.lessons.missing_derivative_training import CLASSES, train
from snnlearn.surrogate import Exponential, FastSigmoid, PiecewiseLinear, Surrogate

SHAPES: dict[str, type[Surrogate]] = {
    "piecewise linear": PiecewiseLinear,
    "fast sigmoid": FastSigmoid,
    "exponential": Exponential,
}
WIDTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
STEP = "the step's own"


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    rows, none = here["accuracy"], here["accuracy"][STEP]
    best = {name: max(float(np.mean(runs)) for runs in rows[name]) for name in SHAPES}
    one = {name: {str(w): float(np.mean(runs)) for w, runs in zip(WIDTHS, rows[name], strict=True)} for name in SHAPES}
    same_width = [[one[name][str(w)] for name in SHAPES] for w in WIDTHS]
    return {
        "the step's derivative is 0 away from the threshold": here["largest slope of the step away from 0"] == 0.0,
        "every slope rises up to the threshold and falls behind it": here["one peak, at the threshold"] is True,
        "each surrogate, at its best width, beats the step's own derivative": min(best.values())
        > float(np.mean(none)) + 0.05,
        "the details of the shape are not crucial: at their best widths the three differ by less than 5 points": max(
            best.values()
        )
        - min(best.values())
        < 0.05,
        "the shape is not crucial at any width: at each the three differ by less than 5 points": all(
            max(row) - min(row) < 0.05 for row in same_width
        ),
        "the width is not crucial: each shape stays within 5 points from 0.01 to 3": all(
            max(found.values()) - min(found.values()) < 0.05 for found in one.values()
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    seeds, updates = (2, 5) if args.quick else (10, 100)
    x = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)
    step = (x >= 0).double()
    jump = ((x + 1e-6 >= 0).double() - (x - 1e-6 >= 0).double()) / 2e-6  # of the step
    slopes = {name: shape(0.3).slope(x) for name, shape in SHAPES.items()}
    parts: list[Surrogate | None] = [None] + [shape(w) for shape in SHAPES.values() for w in WIDTHS]
    outcome = train(parts, seeds=seeds, updates=updates)
    rows = outcome.accuracy.reshape(len(parts), seeds)
    accuracy = {STEP: rows[0].tolist()} | {
        name: rows[1 + i * len(WIDTHS) : 1 + (i + 1) * len(WIDTHS)].tolist() for i, name in enumerate(SHAPES)
    }
    here = {
        "largest slope of the step away from 0": float(jump[x.abs() > 1e-5].abs().max()),
        "slope of the step at 0, over 2e-6": float(jump.max()),
        "one peak, at the threshold": all(
            bool((f.diff()[:299] >= 0).all() and (f.diff()[301:] <= 0).all() and f.argmax() == 300)
            for f in slopes.values()
        ),
        "peak, half width at half maximum and area at width 0.3": {
            name: dict(zip(("peak", "half width", "area"), measured(shape(0.3)), strict=True))
            for name, shape in SHAPES.items()
        },
        "accuracy": accuracy,
    }
    figure = canvas(10.0, 3.8)
    shapes, learned = figure.subplots(1, 2)
    shapes.plot(x, step, color=COLORS["muted"], lw=1, ls=":", label="step Θ")
    shapes.plot([-1.5, 1.5], [0, 0], color=COLORS["spike"], lw=1.5, label="its derivative")
    for i, (name, f) in enumerate(slopes.items()):
        role, marker = SERIES[i]
        shapes.plot(x, f, color=COLORS[role], ls=("-", "--", "-.")[i], label=name)
        mean = 100 * np.mean(accuracy[name], 1)
        learned.plot(WIDTHS, mean, marker + "-", color=COLORS[role], label=name)
        for width, runs in zip(WIDTHS, accuracy[name], strict=True):
            learned.plot([width] * len(runs), 100 * np.array(runs), ".", color=COLORS[role], markersize=3, alpha=0.5)
    learned.axhline(100 * np.mean(accuracy[STEP]), color=COLORS["spike"], label="the step's own: readout alone")
    learned.axhline(100 / CLASSES, color=COLORS["muted"], ls=":", label="chance")
    learned.set_xscale("log")
    learned.set_ylim(25, 101)
    shapes.legend(frameon=False, fontsize="small")
    learned.legend(frameon=False, fontsize="small", loc="center", bbox_to_anchor=(0.6, 0.32))
    label(shapes, "U - θ (units of θ)", "slope (1/θ), peak 1", "surrogates of width 0.3")
    label(learned, "width (units of θ)", "accuracy, new samples (%)", f"12-16-3 LIF, mean and {seeds} seeds")
    paper = {
        "Fig. 3": "the step's derivative is zero but at 0, where it is ill defined; piecewise linear, fast sigmoid, "
        "exponential; functions rescaled one by one",
        "Sec. IV-B": "all are non-linear and rise towards the threshold; success is not crucially dependent on details",
    }
    settings = {
        "widths": WIDTHS, "seeds": seeds, "updates": updates, "rate": 0.02, "reset": "kept in the gradient",
        "task": "3 classes of 3 latency patterns each, 12 inputs, 36 samples to learn and 36 new ones",
    }  # fmt: skip
    save(args.out, "tutorial_fig3", figure, {"paper": paper, "here": here, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
