"""What the scripts of this folder share: their arguments, the data, the style of a picture, and how results are kept.

A script ``figures/NAME.py`` draws one figure of a paper as this library measures it and writes two files, ``NAME.png``
and ``NAME.json``. It has a function ``main(argv)``, and a function ``claims(here)`` that says of the measured numbers
which of the paper's statements they bear out.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import snnlearn
from snnlearn import datasets
from snnlearn.datasets import Dataset
from snnlearn.plots import COLORS as COLORS
from snnlearn.plots import label as label
from snnlearn.training import write

FOLDER = Path(__file__).parent
LARGEST = 150_000
"""Bytes that a picture may have."""
KEYS = ("paper", "here", "settings", "claims")
SERIES = [("membrane", "o"), ("threshold", "s"), ("current", "^"), ("surrogate", "D"), ("loss", "v"), ("spike", "X")]
"""Role of a colour and marker, for lines that have no role of their own."""

torch.set_num_threads(1)  # the same additions in the same order, whatever the machine


def arguments(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments that every script takes.

    Args:
        description: what the script shows, such as its ``__doc__``.
        argv: instead of the command line's.

    Returns:
        data (Path or None), quick (bool) and out (Path, made if it is not there).
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="ROOT", help="folder with the real data sets, where you have them")
    parser.add_argument("--quick", action="store_true", help="seconds of work, to see that it runs; needs --out")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the two files go; by default beside the script"
    )
    args = parser.parse_args(argv)
    if args.quick and args.out is None:
        parser.error("--quick measures too little to keep beside the script; name a folder with --out")
    args.out = FOLDER if args.out is None else args.out
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def data(name: str, root: Path | None, shipped: Callable[[], Dataset] = datasets.digits) -> tuple[Dataset, str]:
    """The paper's data set where it is there, else one that comes with this library; says which.

    Args:
        name: of the paper's data set, as `snnlearn.datasets.load` knows it.
        root: the folder given by ``--data``, or None.
        shipped: what to take in its place.

    Returns:
        The data, and the name of what was taken.
    """
    instead = shipped.__name__
    if root is None:
        print(f"data: {instead}, which are shipped; for {name} give --data ROOT")
        return shipped(), instead
    try:
        found = datasets.load(name, root=root)
    except FileNotFoundError as error:
        print(f"data: {instead}, which are shipped, since {name} is not there: {error}")
        return shipped(), instead
    print(f"data: {name}, from {root}")
    return found, name


def canvas(width: float = 9.0, height: float = 3.4) -> Figure:
    """An empty figure, inches, whose layout looks after itself."""
    return Figure(figsize=(width, height), layout="constrained")


def seeds(ax: Axes, x: Sequence[float], runs: Sequence[Sequence[float | None]], name: str, series: int = 0) -> None:
    """A line through the mean of the runs, and a dot for each run.

    Args:
        ax: where.
        x: (points,).
        runs: (points, seeds); None is left out.
        name: of the line, for the legend.
        series: which colour and marker of `SERIES`.
    """
    role, marker = SERIES[series % len(SERIES)]
    found = [[v for v in run if v is not None] for run in runs]
    means = [sum(run) / len(run) if run else math.nan for run in found]
    ax.plot(x, means, marker + "-", color=COLORS[role], label=name, markersize=6, linewidth=1.4)
    for at, run in zip(x, found, strict=True):
        ax.plot([at] * len(run), run, ".", color=COLORS[role], markersize=4, alpha=0.6)


def rounded(value: Any, digits: int = 4) -> Any:
    """A value for JSON: numbers of so many significant digits, None for what is not finite, names for keys."""
    if isinstance(value, Mapping):
        return {str(k): rounded(v, digits) for k, v in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [rounded(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def save(out: Path, name: str, figure: Figure, numbers: Mapping[str, Any]) -> None:
    """Write NAME.png and NAME.json, each whole or not at all, and print the claims.

    Args:
        out: the folder.
        name: of the script, without its ending.
        figure: the picture; its resolution is lowered until the file is small.
        numbers: "paper" (what it says), "here" (what was measured), "settings", and "claims": short sentences, each
            true or false of "here", or a function that makes them from "here" as the file has it (`rounded`).

    Raises:
        ValueError: a key is missing or unknown, a claim is neither true nor false, or the picture is too large.
    """
    if set(numbers) != set(KEYS):
        raise ValueError(f"numbers must have the keys {', '.join(KEYS)}, got {', '.join(numbers)}")
    kept = {key: rounded(numbers[key]) for key in KEYS if key != "claims"}
    claims = numbers["claims"](kept["here"]) if callable(numbers["claims"]) else dict(numbers["claims"])
    wrong = [sentence for sentence, holds in claims.items() if not isinstance(holds, bool)]
    if wrong:
        raise ValueError(f"a claim must be True or False; {wrong[0]!r} is {claims[wrong[0]]!r}")
    kept |= {"claims": claims, "versions": {"torch": torch.__version__, "snnlearn": snnlearn.__version__}}
    picture = _png(figure, name)
    write(out / f"{name}.json", (json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    write(out / f"{name}.png", picture)
    for sentence, holds in claims.items():
        print(f"{'yes' if holds else ' no'}  {sentence}")


def _png(figure: Figure, name: str) -> bytes:
    for dpi in (120, 100, 80, 64):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if buffer.tell() < LARGEST:
            return buffer.getvalue()
    raise ValueError(f"the picture of {name} has {buffer.tell()} bytes at 64 dots an inch, more than {LARGEST}")
