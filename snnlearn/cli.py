"""The command line: ``snnlearn lab``, ``train``, ``rules``, ``info``."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from snnlearn import __version__, recipes, tasks, training
from snnlearn.notebooks import copy_notebooks, open_lab


class CommandError(Exception):
    """Something the user can put right; shown without a traceback."""


def nearest(kind: str, name: str, known: Sequence[str]) -> str:
    """``name`` if it is known; otherwise an error that suggests the nearest ones."""
    if name in known:
        return name
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    suggestion = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}"
    raise CommandError(f"unknown {kind} {name!r}; {suggestion}")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(prog="snnlearn", description="Learn how spiking neural networks learn.")
    top.add_argument("--version", action="version", version=f"snnlearn {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lab = commands.add_parser("lab", help="copy the tutorials to a folder of yours and open JupyterLab there")
    lab.add_argument("folder", nargs="?", default="snnlearn-tutorials", type=Path, help="default: %(default)s")
    lab.add_argument("--copy-only", action="store_true", help="do not start JupyterLab")
    lab.add_argument("--no-browser", action="store_true", help="start JupyterLab without opening a browser")
    lab.add_argument("--port", type=int, help="port of JupyterLab")
    lab.set_defaults(run=run_lab)

    train = commands.add_parser("train", help="train a task by a rule")
    train.add_argument("task", help=f"one of: {', '.join(tasks.TASKS)}")
    train.add_argument("--rule", default="bptt", help="see `snnlearn rules` (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="of weights and data order (default: %(default)s)")
    train.add_argument("--epochs", type=int, help="passes over the data (default: the task's own)")
    train.add_argument("--out", type=Path, help="folder of checkpoint and result (default: runs/TASK-RULE-seedN)")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in that folder")
    train.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    train.add_argument(
        "--threads", type=int, default=1, help="CPU threads; small networks are fastest on one (default)"
    )
    train.set_defaults(run=run_train)

    rules = commands.add_parser("rules", help="list the recipes with their papers")
    rules.set_defaults(run=run_rules)
    info = commands.add_parser("info", help="versions, devices, and what is available here and why not")
    info.set_defaults(run=run_info)
    return top


def run_lab(arguments: argparse.Namespace) -> None:
    """``snnlearn lab``."""
    for line in copy_notebooks(arguments.folder):
        print(line)
    if not arguments.copy_only:
        extra = ["--no-browser"] if arguments.no_browser else []
        extra += [] if arguments.port is None else [f"--port={arguments.port}"]
        raise SystemExit(open_lab(arguments.folder, extra))


def run_train(arguments: argparse.Namespace) -> None:
    """``snnlearn train``."""
    known = recipes.listing()
    task = tasks.TASKS[nearest("task", arguments.task, list(tasks.TASKS))]()
    name = nearest("rule", arguments.rule, list(known))
    if not 1 <= arguments.threads <= 1024:
        raise CommandError(f"--threads must be at least 1 and at most 1024, got {arguments.threads}")
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("runs") / f"{task.name}-{name}-seed{arguments.seed}"
    try:
        _, result = training.train(
            task,
            known[name](),
            name=name,
            seed=arguments.seed,
            epochs=arguments.epochs,
            out=out,
            resume=arguments.resume,
            progress=True,
        )
    except KeyboardInterrupt:
        saved = (out / training.CHECKPOINT).exists()
        there = (
            f"the checkpoint is in {out}: the same command with --resume goes on" if saved else "nothing was saved yet"
        )
        print(f"\nstopped; {there}", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{task.name} by {name}, seed {result.seed}, {result.epochs} epochs, {result.seconds:.1f} s")
    print(f"  {'':24}train   validation   test")
    print(f"  {name:24}{result.train_accuracy:5.1%}   {result.val_accuracy:10.1%}  {result.test_accuracy:5.1%}")
    for model, share in tasks.baselines(task.load()).items():
        print(f"  {model:24}{'':21}{share:5.1%}")
    print(f"saved in {out}")
    if arguments.json:
        print(json.dumps(asdict(result)))


def run_rules(arguments: argparse.Namespace) -> None:
    """``snnlearn rules``."""
    for name, recipe in recipes.listing().items():
        print(f"{name:12} {recipe.__doc__.splitlines()[0]}\n{'':12} {recipe.paper}")


def run_info(arguments: argparse.Namespace) -> None:
    """``snnlearn info``."""
    from snnlearn.info import report

    for name, value in report():
        print(f"{name:18} {value}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, or 2 for an error of use."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (CommandError, ValueError, TypeError, OSError) as error:
        print(f"snnlearn: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
