"""The command line: ``snnlearn lab``, ``train``, ``compare``, ``rules``, ``grid``, ``build``, ``bench``,
``info``."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from snnlearn import __version__, grid, kernels, microscope, recipes, tasks, training
from snnlearn.events import EventNetwork
from snnlearn.network import Network
from snnlearn.notebooks import copy_notebooks, open_lab
from snnlearn.rule import Rule


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
    train.add_argument(
        "--preset", help="a network of the task's own choice by name (default: the one that suits the rule)"
    )
    train.add_argument("--seed", type=int, default=0, help="of weights and data order (default: %(default)s)")
    train.add_argument("--epochs", type=int, help="passes over the data (default: the task's own)")
    train.add_argument("--out", type=Path, help="folder of all that is written (default: runs/TASK-RULE-seedN)")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in that folder")
    train.add_argument(
        "--readout-only", action="store_true", help="leave the hidden layers as they were drawn, for comparison"
    )
    train.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    train.add_argument(
        "--threads", type=int, default=1, help="CPU threads; small networks are fastest on one (default)"
    )
    train.add_argument(
        "--precision",
        help="float32, float64, or bf16 for synapses in bfloat16 and all else in float32 (default: the task's own)",
    )
    train.add_argument(
        "--accumulate", type=int, default=1, metavar="K", help="take a batch in K pieces, to save memory"
    )
    train.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    train.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="not only at the end of each epoch")
    train.add_argument("--tensorboard", action="store_true", help="show the metrics in TensorBoard too")
    train.set_defaults(run=run_train)

    compare = commands.add_parser("compare", help="one batch of a task through several rules: gradients, memory, time")
    compare.add_argument(
        "task", nargs="?", default="digits", help=f"one of: {', '.join(tasks.TASKS)} (default: digits)"
    )
    compare.add_argument(
        "--rules", default="bptt,exodus,slayer", help="names with commas between (default: %(default)s)"
    )
    compare.add_argument("--reference", help="the rule that the others are compared with (default: the first)")
    compare.add_argument(
        "--suited-to",
        metavar="RULE",
        help="take the task's loss and network as this rule needs them (default: one that serves most of the rules)",
    )
    compare.add_argument("--same-surrogate", action="store_true", help="give every rule the reference's surrogate")
    compare.add_argument("--samples", type=int, default=64, help="training samples in a batch (default: %(default)s)")
    compare.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    compare.add_argument("--trials", type=int, default=1, help="batches to take the bias over (default: %(default)s)")
    compare.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    compare.set_defaults(run=run_compare)

    rules = commands.add_parser("rules", help="list the recipes with their papers")
    rules.set_defaults(run=run_rules)
    pairs = commands.add_parser("grid", help="every way through time with every way through layers: name, bias, cost")
    pairs.add_argument("time", nargs="?", help=f"one of: {', '.join(time.name for time in grid.TIMES)}")
    pairs.add_argument("space", nargs="?", help=f"one of: {', '.join(space.name for space in grid.SPACES)}")
    pairs.set_defaults(run=run_grid)
    build = commands.add_parser("build", help="compile the CPU kernels now rather than at their first large use")
    build.set_defaults(run=run_build)
    bench = commands.add_parser("bench", help="how fast the kernels are here, beside a naive loop and other libraries")
    bench.add_argument("--quick", action="store_true", help="small sizes, seconds instead of minutes, no goals")
    bench.add_argument(
        "--against",
        metavar="LIBRARIES",
        help="names with commas between, of snntorch, norse, spikingjelly, sinabs (default: those installed)",
    )
    bench.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    bench.add_argument("--rows", metavar="WORDS", help="with commas between: only rows that hold one of them")
    bench.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    bench.set_defaults(run=run_bench)
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
    name = nearest("rule", arguments.rule, list(known))
    task = tasks.suited(nearest("task", arguments.task, list(tasks.TASKS)), name, arguments.preset)
    if arguments.readout_only:
        task = tasks.readout_only(task)
    if not 1 <= arguments.threads <= 1024:
        raise CommandError(f"--threads must be at least 1 and at most 1024, got {arguments.threads}")
    torch.set_num_threads(arguments.threads)
    preset = "" if arguments.preset is None else f"-{arguments.preset}"
    out = arguments.out or Path("runs") / f"{task.name.removesuffix(preset)}{preset}-{name}-seed{arguments.seed}"
    with training.launched(arguments.device) as group:
        try:
            _, result = training.train(
                task,
                partial(recipes.make, name),
                name=name,
                seed=arguments.seed,
                epochs=arguments.epochs,
                out=out,
                resume=arguments.resume,
                progress=True,
                precision=arguments.precision,
                accumulate=arguments.accumulate,
                device=arguments.device,
                checkpoint_every=arguments.checkpoint_every,
                tensorboard=arguments.tensorboard,
            )
        except KeyboardInterrupt:
            if group.rank == 0:
                saved = (out / training.CHECKPOINT).exists()
                goes_on = f"the checkpoint is in {out}: the same command with --resume goes on"
                print(f"\nstopped; {goes_on if saved else 'nothing was saved yet'}", file=sys.stderr)
            raise SystemExit(130) from None
    if group.rank == 0:
        _tell(task, name, result, out)
        if arguments.json:
            print(json.dumps(asdict(result)))


def _tell(task: tasks.Task, name: str, result: training.Result, out: Path) -> None:
    """What a run came to, beside models that know no time."""
    print(f"{task.name} by {name}, seed {result.seed}, {result.epochs} epochs, {result.seconds:.1f} s")
    others = tasks.baselines(task.load())
    width = max(24, 2 + max(map(len, [name, *others])))
    print(f"  {'':{width}}train   validation   test")
    print(f"  {name:{width}}{result.train_accuracy:5.1%}   {result.val_accuracy:10.1%}  {result.test_accuracy:5.1%}")
    for model, share in others.items():
        print(f"  {model:{width}}{'':20}{share:5.1%}")
    print(f"saved in {out}")


def run_compare(arguments: argparse.Namespace) -> None:
    """``snnlearn compare``."""
    known, named = list(recipes.listing()), nearest("task", arguments.task, list(tasks.TASKS))
    names = [name.strip() for name in arguments.rules.split(",") if name.strip()]
    if not names:
        raise CommandError(f"--rules names no rule; there are: {', '.join(known)}")
    reference = arguments.reference or names[0]
    for name in (*names, reference, arguments.suited_to or reference):
        nearest("rule", name, known)
    wanted = dict.fromkeys([*names, reference])
    suited = arguments.suited_to or _serving(named, [reference, *names], reference)
    task = tasks.suited(named, suited)
    data, generator = task.load().train, _generator(arguments.seed)
    samples, trials = arguments.samples, arguments.trials
    if samples < 1 or trials < 1 or samples * trials > len(data):
        raise CommandError(
            f"--samples and --trials must be at least 1, and their product at most {len(data)}, the training samples; "
            f"got {samples} and {trials}"
        )
    torch.set_num_threads(1)  # small networks are fastest on one
    net = task.network(generator)
    rules, refused = _made(wanted, net, arguments.seed, arguments.same_surrogate, reference)
    chosen = torch.randperm(len(data), generator=generator)[: samples * trials].split(samples)
    batch, *more = [(task.encode(data.x[k]), data.y[k]) for k in chosen]
    found = microscope.compare(rules, net, *batch, task.loss, reference=reference, trials=more)
    found = replace(found, refused=found.refused | refused)
    own = "the reference's surrogate for all" if arguments.same_surrogate else "each with its own surrogate"
    print(f"{named} as {suited} needs it, {samples} samples, seed {arguments.seed}; {own}\n\n{found}")
    if arguments.json:
        about = {"task": named, "suited_to": suited, "samples": samples, "seed": arguments.seed}
        print(json.dumps(about | found.record(), allow_nan=False))


def _serving(named: str, names: Sequence[str], reference: str) -> str:
    """The first of the rules, beginning with the reference, whose network and loss suit as many of them as any."""

    def served(name: str) -> int:
        task, number = tasks.suited(named, name), 0
        net = task.network(torch.Generator().manual_seed(0))
        for rule in _made(dict.fromkeys(names), net, 0, False, reference)[0].values():
            with suppress(ValueError, TypeError):
                rule.check(net, task.loss)
                number += 1
        return number

    return max(dict.fromkeys(names), key=served)


def _made(
    names: Iterable[str], net: Network | EventNetwork, seed: int, same: bool, reference: str
) -> tuple[dict[str, Rule], dict[str, str]]:
    """Rules by the names of their recipes, and why some cannot be made for this network."""
    rules, refused = {}, {}
    for name in names:
        try:
            rules[name] = recipes.make(name, net, torch.Generator().manual_seed(seed + 1))
        except (ValueError, TypeError) as error:
            if name == reference:
                raise
            refused[name] = str(error)
    if same:
        rules = {name: replace(rule, surrogate=rules[reference].surrogate) for name, rule in rules.items()}
    return rules, refused


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed < 2**63:
        raise CommandError(f"--seed must be at least 0 and below 2**63, got {seed}")
    return torch.Generator().manual_seed(seed)


def run_rules(arguments: argparse.Namespace) -> None:
    """``snnlearn rules``."""
    known = recipes.listing()
    width = max(map(len, known))
    for name, recipe in known.items():
        print(f"{name:{width}}  {recipe.__doc__.splitlines()[0]}\n{'':{width}}  {recipe.paper}")


def run_grid(arguments: argparse.Namespace) -> None:
    """``snnlearn grid``: all of it, a row, or one pair."""
    if arguments.time is None:
        print(grid.table())
        return
    time = nearest("way through time", arguments.time, [time.name for time in grid.TIMES])
    spaces = [space.name for space in grid.SPACES]
    chosen = spaces if arguments.space is None else [nearest("way through layers", arguments.space, spaces)]
    for space in chosen:
        found = grid.pair(time, space)
        print(f"{time} x {space}")
        if found.refused:
            print(f"  refused    {found.refused}")
            continue
        print(f"  name       {found.name or 'none that we know of'}")
        print(f"  gradient   {found.gradient}")
        print(f"  memory     {found.time.memory} for a sample and layer, work {found.time.work} a step")
        print(f"  needs      {found.time.needs or 'any network and loss'}")


def run_build(arguments: argparse.Namespace) -> None:
    """``snnlearn build``."""
    start = time.perf_counter()
    try:
        library = kernels.load()
    except kernels.BuildError as error:
        raise CommandError(error) from error
    print(f"CPU kernels in {library}, loaded after {time.perf_counter() - start:.1f} s")
    for name, state in kernels.status().items():
        print(f"{name:18} {state}")


def run_bench(arguments: argparse.Namespace) -> None:
    """``snnlearn bench``."""
    from snnlearn import bench

    against, only = (
        None if words is None else [word.strip() for word in words.split(",") if word.strip()]
        for words in (arguments.against, arguments.rows)
    )
    found = bench.run(quick=arguments.quick, against=against, device=arguments.device, only=only or ())
    print(found)
    if arguments.json:
        print(json.dumps(found.record(), allow_nan=False))


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
