"""The training loop. An interrupted run goes on to the same numbers, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from snnlearn import _checks
from snnlearn.events import EventNetwork
from snnlearn.network import Network
from snnlearn.rule import Rule
from snnlearn.tasks import Task
from snnlearn.training.checkpoints import (
    CHECKPOINT,
    METRICS,
    RESULT,
    WEIGHTS,
    prepare,
    read_checkpoint,
    write,
    write_checkpoint,
)
from snnlearn.training.distributed import Group, check_parts, is_sum
from snnlearn.training.evaluation import like_network, loss_like_network, share_right
from snnlearn.training.metrics import Row, board, write_metrics
from snnlearn.training.precision import PRECISIONS, check_precision, place, products
from snnlearn.training.weights import save_weights, writable

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Result:
    """What a run came to. Accuracies are shares of 1; seconds include those before an interruption."""

    rule: str
    dataset: str
    seed: int
    epochs: int
    train_accuracy: float
    val_accuracy: float
    test_accuracy: float
    seconds: float
    peak_memory_mb: float


def train(
    task: Task,
    rule: Rule | Callable[[Any, torch.Generator], Rule],
    *,
    name: str = "",
    seed: int = 0,
    epochs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    precision: str | None = None,
    accumulate: int = 1,
    device: str = "cpu",
    checkpoint_every: int | None = None,
    tensorboard: bool = False,
) -> tuple[Network | EventNetwork, Result]:
    """Train a task's network by a rule.

    After every epoch, and when interrupted (Ctrl-C, SIGTERM), a checkpoint is written to ``out``; with ``resume`` the
    run goes on from there as if it had never stopped, were it killed at any moment.

    In a process group of torch.distributed (see `launched`) all processes train one network, each on its share of every
    batch; the first one writes.

    Args:
        task: data, network, loss and settings.
        rule: the learning rule; or, where it has weights that belong to a network, a function that makes it for one:
            (network, generator) -> Rule, such as ``recipes.feedback_alignment``.
        name: the rule's name, for the record.
        seed: of the weights and of the order of the data.
        epochs: passes over the data, the task's own number if not given.
        out: folder for the checkpoint, the metrics of each epoch, the weights (where safetensors is installed)
            and the result; None writes nothing.
        resume: go on from the checkpoint in ``out``.
        progress: show a progress bar on stderr.
        precision: "float32"; "float64"; or "bf16", which computes the products of synapses in bfloat16 and all else in
            float32; None for float32 or float64 as the task makes its network (`snnlearn.training.precision`).
        accumulate: micro batches that a process takes its share of a batch in, one after another. The gradient is the
            whole batch's, the memory that of one of them.
        device: where to compute, "cpu" or "cuda".
        checkpoint_every: steps between checkpoints within an epoch; None for none.
        tensorboard: show the metrics in TensorBoard too, from ``out/tensorboard``.

    Raises:
        ValueError: the folder holds an unfinished run and ``resume`` is not set, there is no checkpoint to resume, it
            is damaged, or it belongs to other settings; the network cannot be computed in this precision or device, or
            not in parts of a batch; a package is missing.
        OSError: the folder cannot be written.
        KeyboardInterrupt: after the checkpoint was written.
    """
    if not (isinstance(task, Task) and (isinstance(rule, Rule) or callable(rule))):
        raise TypeError(
            f"train takes a Task and a Rule, such as tasks.digits() and recipes.bptt(); got {type(task).__name__} and "
            f"{type(rule).__name__}"
        )
    epochs = task.epochs if epochs is None else epochs
    _checks.whole("epochs", epochs, least=1)
    _checks.whole("accumulate", accumulate, least=1)
    _checks.whole("checkpoint_every", 1 if checkpoint_every is None else checkpoint_every, least=1)
    _checks.whole("seed", seed)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")
    where = place(device)
    folder = None if out is None else Path(out)
    if folder is None and (resume or tensorboard):
        raise ValueError(f"{'resume' if resume else 'tensorboard'} needs a folder: give out")
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed + 2)  # for modules that draw, such as dropout, and know no generator
        run = _Run(task, rule, name, seed, epochs, precision=precision, accumulate=accumulate, device=where)
        if folder is not None:
            if not writable():
                warnings.warn(f'safetensors is missing for {WEIGHTS}: pip install "snnlearn[scale]"', stacklevel=2)
            run.group.first(lambda: prepare(folder, resume))
            if resume:
                run.load(folder / CHECKPOINT)
        with (
            board(folder / "tensorboard", run.done)
            if folder is not None and tensorboard and run.group.rank == 0
            else nullcontext() as show,
            products(run.settings["precision"]),
        ):
            return run.net, run.through(folder, checkpoint_every, progress, show)


def _called(function: Any) -> str | None:
    """A function's name without its address; None for none."""
    function = getattr(function, "func", function)  # of a partial
    if function is None:
        return None
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


class _Run:
    """All that changes while a run goes on, and how it is saved."""

    def __init__(
        self,
        task: Task,
        rule: Rule | Callable[[Any, torch.Generator], Rule],
        name: str,
        seed: int,
        epochs: int,
        *,
        precision: str | None = None,
        accumulate: int = 1,
        device: torch.device = CPU,
    ):
        if precision is not None:
            check_precision(precision)
        self.data, self.group, self.accumulate = task.load(), Group.present(), accumulate
        for part, split in zip(("training", "validation", "test"), self.data[:3], strict=True):
            if not len(split):
                raise ValueError(f"the {part} split is empty; a run wants samples in all three")
        self.generator = torch.Generator().manual_seed(seed)
        self.net = task.network(self.generator)
        # a generator of its own, so that the order of the data is the same under every rule
        feedback = torch.Generator().manual_seed(seed + 1)
        self.rule = rule if isinstance(rule, Rule) else rule(self.net, feedback)
        if not isinstance(self.rule, Rule):
            raise TypeError(f"rule must make a Rule for a network, it made a {type(self.rule).__name__}")
        if precision is None:
            precision = "float64" if next(self.net.parameters()).dtype == torch.float64 else "float32"
        check_precision(precision, self.net)
        if self.group.size > 1 or accumulate > 1:
            check_parts(self.net, self.rule)
        for module in (self.net, self.rule.spatial):
            module.to(device, PRECISIONS[precision])
        self.group.alike(self.net, self.rule.spatial)
        self.like = next(self.net.parameters())
        self.task = replace(task, loss=loss_like_network(task.loss, self.like))
        self.sums = is_sum(task.loss)
        self.settings: dict[str, Any] = {
            "dataset": task.name, "rule": name, "method": repr(self.rule), "seed": seed, "epochs": epochs,
            "batch": task.batch, "rate": task.rate, "decay": task.decay, "threads": torch.get_num_threads(),
            "processes": self.group.size, "accumulate": accumulate, "precision": precision, "device": device.type,
            "encode": _called(task.encode), "augment": _called(task.augment), "loss": type(task.loss).__name__,
        }  # fmt: skip
        self.parameters = self.rule.parameters(self.net)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.parameters, lr=task.rate)
        if task.decay:
            self.optimizer = torch.optim.AdamW(self.parameters, lr=task.rate, weight_decay=task.decay)
        self.steps = -(-len(self.data.train) // task.batch)  # a epoch
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs * self.steps)
        self.done, self.seconds = 0, 0.0
        self.order = torch.empty(0, dtype=torch.long)
        self.cost = 0.0  # of all samples of this epoch so far
        self.rows: list[Row] = []
        self.stopping, self.stopped = threading.Event(), False  # this process is told to, and all know

    def through(
        self, folder: Path | None, every: int | None, progress: bool, show: Callable[[Row], None] | None
    ) -> Result:
        """All steps that are left, and what they come to."""
        settings, net, rule = self.settings, self.net, self.rule
        epochs, name = settings["epochs"], settings["rule"]
        started, total = time.perf_counter() - self.seconds, settings["epochs"] * self.steps
        with (
            _interruptible(self.stopping),
            tqdm(
                total=total,
                initial=self.done,
                desc=name or self.task.name,
                unit="step",
                disable=not progress or self.group.rank > 0,
            ) as bar,
        ):
            while self.done < total:
                loss = self.step()
                self.seconds = time.perf_counter() - started
                bar.update()
                bar.set_postfix(epoch=f"{self.done // self.steps}/{epochs}", loss=f"{loss:.3f}", refresh=False)
                whole = self.done % self.steps == 0
                if folder is not None:
                    if whole:
                        self.rows.append(self.row())
                    if whole or self.stopped or (every and self.done % every == 0):
                        self.save(folder)
                    if whole and show is not None:
                        show(self.rows[-1])
                if self.stopped:
                    raise KeyboardInterrupt
        learned, val, test = (share_right(net, rule, self.task, split, group=self.group) for split in self.data[:3])
        seconds = time.perf_counter() - started
        result = Result(name, self.task.name, settings["seed"], epochs, learned, val, test, seconds, peak_memory_mb())
        if folder is not None:
            self.group.first(lambda: self.finish(folder, result))
        return result

    def step(self) -> float:
        """One batch; returns its loss."""
        position = self.done % self.steps
        if position == 0:
            self.order = torch.randperm(len(self.data.train), generator=self.generator)
            self.cost = 0.0
        chosen = self.order[position * self.task.batch : (position + 1) * self.task.batch]
        loss = self.gradient(chosen)
        self.cost += loss if self.sums else loss * len(chosen)
        self.optimizer.step()
        self.rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        self.done += 1
        return loss

    def gradient(self, chosen: Tensor) -> float:
        """Fill every parameter's ``.grad`` for the chosen samples, part by part, and return their loss."""
        found: list[Tensor | None] = [None] * len(self.parameters)
        loss = 0.0
        samples = self.data.train.x[chosen]
        if self.task.augment is not None:  # of the whole batch, so that every way of sharing it sees the same draws
            samples = self.task.augment(samples, self.generator)
        for part in self.group.parts(torch.arange(len(chosen)), self.accumulate):
            self.optimizer.zero_grad()
            x = like_network(self.task.encode(samples[part]), self.like)
            y = self.data.train.y[chosen[part]].to(self.like.device)
            share = 1.0 if self.sums else len(part) / len(chosen)
            loss += share * self.rule.backward(self.net, x, y, self.task.loss).item()
            for i, p in enumerate(self.parameters):
                if p.grad is not None:
                    more = p.grad if share == 1 else share * p.grad
                    before = found[i]
                    found[i] = more if before is None else before + more
        found, (loss, stops) = self.group.add_up(found, self.parameters, [loss, self.stopping.is_set()])
        for p, gradient in zip(self.parameters, found, strict=True):
            p.grad = gradient
        self.stopped = stops > 0
        return loss

    def row(self) -> Row:
        """The epoch that has just ended."""
        cost = self.cost / len(self.data.train)
        share = share_right(self.net, self.rule, self.task, self.data.validation, group=self.group)
        return Row(self.done // self.steps, self.done, cost, share, self.rate, self.seconds)

    def save(self, folder: Path) -> None:
        """Metrics and checkpoint, by the first process."""
        state = {
            "settings": self.settings,
            "done": self.done,
            "seconds": self.seconds,
            "order": self.order,
            "cost": self.cost,
            "metrics": [tuple(row) for row in self.rows],
            "generator": self.generator.get_state(),
            "draws": torch.get_rng_state(),
            "network": self.net.state_dict(),
            "feedback": self.rule.spatial.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        if self.like.is_cuda:
            state["draws on cuda"] = torch.cuda.get_rng_state()

        def both() -> None:
            write_metrics(folder / METRICS, self.rows)
            write_checkpoint(folder / CHECKPOINT, state)

        self.group.first(both)

    def load(self, path: Path) -> None:
        """Go back to a checkpoint, and the metrics with it."""
        state = read_checkpoint(path)
        theirs = state["settings"]
        differ = [k for k, v in self.settings.items() if theirs.get(k) != v]
        if differ:
            was = ", ".join(f"{k} {theirs.get(k)!r}, not {self.settings[k]!r}" for k in differ)
            raise ValueError(f"{path} belongs to another run: it has {was}; give the same settings or another folder")
        try:
            self.net.load_state_dict(state["network"])
            self.rule.spatial.load_state_dict(state["feedback"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["draws"])
            if self.like.is_cuda:
                torch.cuda.set_rng_state(state["draws on cuda"])
            self.done, self.seconds, self.order = state["done"], state["seconds"], state["order"]
            self.cost, self.rows = state["cost"], [Row(*row) for row in state["metrics"]]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not fit this network: {error}; delete it and start again") from error
        self.group.first(lambda: write_metrics(path.with_name(METRICS), self.rows))

    def finish(self, folder: Path, result: Result) -> None:
        """Weights, and the result, which says that the run is complete."""
        told = {k: str(self.settings[k]) for k in ("dataset", "rule", "method", "seed", "epochs")}
        if writable():
            save_weights(self.net, folder / WEIGHTS, told, rule=self.rule)
        write(folder / RESULT, (json.dumps(asdict(result), indent=1) + "\n").encode())


@contextmanager
def _interruptible(event: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set an event, so that a step is never cut in the middle. A second one stops at once."""
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    with suppress(ValueError):  # not the main thread: signals are its own business
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def peak_memory_mb() -> float:
    """The largest resident size of this process so far, in 10**6 bytes; NaN where the system has no such count."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6  # macOS counts bytes, Linux kibibytes
