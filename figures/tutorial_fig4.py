"""Tutorial Fig. 4 (Neftci, Mostafa & Zenke 2019): a loss that is a staircase, and the surrogate's smooth one.

The paper's is a cartoon. Here it is the loss of one LIF neuron with one weight that should fire as a target train says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from common import COLORS, arguments, canvas, label, save

from snnlearn.lessons.missing_derivative_numbers import WEIGHTS, Problem, descend, downhill, edge, problem, sweep
from snnlearn.surrogate import FastSigmoid

WIDTHS = (0.03, 0.1, 0.3, 1.0)
SHOWN = 0.3
STARTS = tuple(round(0.213 + 0.05 * i, 3) for i in range(20))  # at 1, a spike comes or goes


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    rows = here["by width"]
    return {
        "the gradient of the true loss vanishes almost everywhere": here["weights of 401 with a gradient that is not 0"]
        <= 4,
        "gradient descent on the true loss fails from a stair": here["starts that move by the true gradient"] == 0,
        "the surrogate gradient is finite at every weight": all(row["finite"] for row in rows.values()),
        "the surrogate gradient is smooth: where the true loss jumps, it moves by less than 1 % of its range": all(
            row["largest jump of the surrogate gradient, share of its range"] < 0.01 for row in rows.values()
        ),
        "the surrogate loss is smooth: there it moves by less than 1 % of its range": all(
            row["largest jump of the surrogate loss, share of its range"] < 0.01 for row in rows.values()
        ),
        "the surrogate loss is least where the true loss is 0": all(
            low <= row["weight of the least surrogate loss"] <= high
            for row in rows.values()
            for low, high in [here["weights with a true loss of 0"]]
        ),
        "descent by the surrogate gradient ends at the true minimum from most starts, at some width": any(
            row["starts that reach the least loss by the surrogate gradient"] > 0.5 for row in rows.values()
        ),
        "it does so at every width": all(
            row["starts that reach the least loss by the surrogate gradient"] > 0.5 for row in rows.values()
        ),
        "the surrogate gradient points downhill on the true loss at more than nine weights of ten": all(
            row["share of weights where it points downhill"] > 0.9 for row in rows.values()
        ),
        "the surrogate gradient is the gradient of the surrogate loss": all(
            row["cosine of surrogate gradient and surrogate loss's gradient"] > 0.99 for row in rows.values()
        ),
    }


def _rise(task: Problem, weights: Sequence[float]) -> torch.Tensor:
    """The true loss's central difference at weights, over 2e-9."""
    w = torch.tensor(weights, dtype=torch.float64)
    ahead, behind = (sweep(task, w + h, FastSigmoid()).loss for h in (1e-9, -1e-9))
    return (ahead - behind) / 2e-9


def _jump(sides: torch.Tensor, whole: torch.Tensor) -> float:
    """The largest change from the first half of ``sides`` to the second, as a share of the range of ``whole``."""
    below, above = sides.chunk(2)
    return float((above - below).abs().max() / (whole.max() - whole.min()))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    updates = 50 if args.quick else 400
    task = problem()
    true = sweep(task, WEIGHTS, FastSigmoid(width=SHOWN))
    same = true.loss.diff() == 0
    pairs = [(float(WEIGHTS[i]), float(WEIGHTS[i + 1])) for i in (~same).nonzero().flatten().tolist()]
    edges = torch.tensor([edge(task, low, high) for low, high in pairs], dtype=torch.float64)
    sides = torch.cat([torch.nextafter(edges, edges - 1), edges])
    found = {}
    for width in WIDTHS:
        surrogate = FastSigmoid(width=width)
        here, smooth = sweep(task, WEIGHTS, surrogate), sweep(task, WEIGHTS, surrogate, smooth=True)
        goes = downhill(WEIGHTS, true.loss, here.gradient)
        path = descend(task, STARTS, surrogate, smooth=False, rate=2e-4, updates=updates)
        best = sweep(task, path.flatten(), surrogate).loss.view(path.shape).amin(0)  # the least on the way
        last = sweep(task, path[-1], surrogate).loss
        found[str(width)] = {
            "finite": bool(torch.isfinite(here.gradient).all()),
            "largest jump of the surrogate gradient, share of its range": _jump(
                sweep(task, sides, surrogate).gradient, here.gradient
            ),
            "largest jump of the surrogate loss, share of its range": _jump(
                sweep(task, sides, surrogate, smooth=True).loss, smooth.loss
            ),
            "weight of the least surrogate loss": float(WEIGHTS[smooth.loss.argmin()]),
            "share of weights where it points downhill": float((goes < 0).sum() / (goes != 0).sum()),
            "cosine of surrogate gradient and surrogate loss's gradient": float(
                torch.cosine_similarity(here.gradient, smooth.gradient, 0)
            ),
            "starts that reach the least loss by the surrogate gradient": float(
                (last <= true.loss.min() + 1e-9).double().mean()
            ),
            "starts that pass the least loss on the way": float((best <= true.loss.min() + 1e-9).double().mean()),
        }
    numbers = {
        "weights of 401 with a gradient that is not 0": int((_rise(task, WEIGHTS.tolist()) != 0).sum()),
        "weights with a true loss of 0": [float(v) for v in WEIGHTS[true.loss == 0].aminmax()],
        "share of weights on a stair": float(same.double().mean()),
        "stairs": int((~same).sum()) + 1,
        "starts that move by the true gradient": int((_rise(task, STARTS) != 0).sum()),
        "by width": found,
    }
    figure = canvas(10.0, 3.8)
    loss, gradient = figure.subplots(1, 2)
    smooth = sweep(task, WEIGHTS, FastSigmoid(width=SHOWN), smooth=True)
    loss.step(WEIGHTS, true.loss, color=COLORS["loss"], where="post", label="true loss")
    loss.plot(WEIGHTS, smooth.loss, color=COLORS["surrogate"], ls="--", label=f"surrogate loss, width {SHOWN}")
    loss.plot([0.6], [0], "o", color=COLORS["spike"], label="target: w = 0.6")
    loss.set_ylim(-0.5, min(30.0, 1.05 * float(true.loss.max())))
    gradient.axhline(0, color=COLORS["loss"], label="true gradient, on the stairs")
    gradient.plot(WEIGHTS, true.gradient, color=COLORS["membrane"], lw=1, label="surrogate gradient")
    gradient.plot(WEIGHTS, smooth.gradient, color=COLORS["surrogate"], ls="--", label="gradient of the surrogate loss")
    loss.legend(frameon=False, fontsize="small")
    gradient.legend(frameon=False, fontsize="small")
    label(loss, "weight w (units of θ)", "van Rossum loss", "one neuron, one weight")
    label(gradient, "weight w (units of θ)", "dL/dw (1/θ)")
    paper = {
        "Fig. 4": "a loss whose gradient vanishes almost everywhere, so that descent fails; a surrogate loss and its "
        "gradient that are smooth and finite"
    }
    settings = {
        "surrogate": "fast sigmoid", "widths": WIDTHS, "weights": [0.2, 1.2, 401], "steps (ms)": 40, "tau_mem (ms)": 20,
        "starts": len(STARTS), "rate": 2e-4, "updates": updates, "reset": "subtraction, kept in the gradient",
    }  # fmt: skip
    save(args.out, "tutorial_fig4", figure, {"paper": paper, "here": numbers, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
