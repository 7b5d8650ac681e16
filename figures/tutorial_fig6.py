"""Tutorial Fig. 6 (Neftci, Mostafa & Zenke 2019): temporal XOR by first spikes, before and after training.

Two inputs fire early or late; four hidden neurons, two outputs, and the output that fires first is the answer. The
neurons are the paper's (Eq. 18), trained by the exact gradient of their spike times, and as the paper's is one run,
many seeds are counted here, with and without the cost that wakes silent neurons, and on a time grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import arguments, canvas, save

from snnlearn.lessons import spike_times_training as training
from snnlearn.lessons.spike_times_xor import draw_xor

RUNS = ("exact", "exact, without the cost of silence", "surrogate on a grid of 1 ms")


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    exact, silent, grid = (here["solved, of all seeds"][name] for name in RUNS)
    return {
        "four hidden neurons suffice: some network answers all four patterns by its first output spike": exact > 0,
        "the network shown answers all four": all(row["right"] for row in here["the network shown"].values()),
        "training works from any start: all seeds are solved": exact == 1.0,
        "without the cost of silence fewer seeds are solved": silent < exact,
        "a surrogate gradient on a grid of 1 ms solves as many of the same seeds": grid
        >= here["solved exactly, of the grid's seeds"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    seeds, steps = (4, 20) if args.quick else (100, 200)
    exact = training.train_exactly(seeds, steps)
    asleep = training.train_exactly(seeds, steps, wake=0.0)
    runs = dict(zip(RUNS, (exact, asleep, training.train_on_grid(min(seeds, 20), steps)), strict=True))
    last = len(exact.steps) - 1
    shown = int(exact.solved[-1].argmax())
    found = training.respond(exact.first[last, shown], exact.second[last, shown])
    patterns = {}
    for name, out, wanted in zip(training.NAMES, found.out, training.LABELS.tolist(), strict=True):
        patterns[name] = {"output spikes (ms)": (1e3 * out).tolist(), "right": bool(out[wanted] < out[1 - wanted])}
    here = {
        "solved, of all seeds": {name: float(run.solved[-1].mean()) for name, run in runs.items()},
        "solved exactly, of the grid's seeds": float(exact.solved[-1, : runs[RUNS[-1]].solved.shape[1]].mean()),
        "seeds": {name: run.solved.shape[1] for name, run in runs.items()},
        "median step at which a solved seed stays solved": _settled(exact),
        "the network shown": patterns,
        "seed shown": shown,
        "silent hidden neurons at the end, mean share": {
            name: float(run.silent[-1].mean()) for name, run in runs.items()
        },
    }
    figure = canvas(9.0, 7.6)
    axes = list(figure.subplots(4, 2).flat)
    draw_xor(axes, None, history=exact, seed=shown, record=last)
    for i, ax in enumerate(axes):
        ax.set_ylabel(("hidden U (θ = 1)", "output U (θ = 1)")[i % 2])
    paper = {
        "Fig. 6": "a network of one hidden layer of four and two outputs; after training the identity of the output "
        "that spikes first is the class, for all four patterns; one network is shown, and no rate of success is given"
    }
    settings = {
        "early, late (ms)": [0, 10], "tau_syn (ms)": 5, "neurons": "Eq. 18, no leak, first spikes", "seeds": seeds,
        "updates": steps, "rate": 0.05, "weights": "N(1, 0.5**2)", "loss": "cross-entropy of -t / 2 ms",
    }  # fmt: skip
    save(args.out, "tutorial_fig6", figure, {"paper": paper, "here": here, "settings": settings, "claims": claims})


def _settled(history: training.History) -> float | None:
    """The median over solved seeds of the step from which they are solved at every record."""
    solved = history.solved
    since = [
        int(history.steps[0 if run.all() else len(run) - int((~run)[::-1].argmax())]) for run in solved.T if run[-1]
    ]
    return float(sorted(since)[len(since) // 2]) if since else None


if __name__ == "__main__":
    main()
