"""The training loop. An interrupted run goes on to the same numbers, bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from snnlearn import _checks
from snnlearn.datasets import Split
from snnlearn.events import EventNetwork
from snnlearn.losses import accuracy
from snnlearn.network import Network
from snnlearn.rule import Rule
from snnlearn.tasks import Task

CHECKPOINT = "checkpoint.pt"
MAGIC = b"snnlearn checkpoint 1 sha256 "
RESULT = "result.json"


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


def evaluate(net: Network | EventNetwork, rule: Rule, task: Task, split: Split, batch: int = 256) -> float:
    """The share of a split that the network answers rightly."""
    if len(split) == 0:
        raise ValueError("the split is empty; nothing to evaluate")
    right, mode = 0.0, net.training
    net.eval()
    with torch.no_grad():
        for x, y in zip(split.x.split(batch), split.y.split(batch), strict=True):
            outputs: Any = net(task.encode(x), rule)
            answer = outputs[-1] if isinstance(net, EventNetwork) else rule.spatial.answer(outputs)
            right += accuracy(task.loss.scores(answer), y) * len(y)
    net.train(mode)
    return right / len(split)


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
) -> tuple[Network | EventNetwork, Result]:
    """Train a task's network by a rule.

    After every epoch, and when interrupted (Ctrl-C, SIGTERM), a checkpoint is written to ``out``; with ``resume`` the
    run goes on from there as if it had never stopped.

    Args:
        task: data, network, loss and settings.
        rule: the learning rule; or, where it has weights that belong to a network, a function that makes it for one:
            (network, generator) -> Rule, such as ``recipes.feedback_alignment``.
        name: the rule's name, for the record.
        seed: of the weights and of the order of the data.
        epochs: passes over the data, the task's own number if not given.
        out: folder for the checkpoint and the result; None writes nothing.
        resume: go on from the checkpoint in ``out``.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: the folder holds an unfinished run and ``resume`` is not set, there is no checkpoint to resume, it
            is damaged, or it belongs to other settings.
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
    _checks.whole("seed", seed)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")
    run = _Run(task, rule, name, seed, epochs)
    folder = None if out is None else Path(out)
    if folder is not None:
        _prepare(folder, resume)
        if resume:
            run.load(folder / CHECKPOINT)
    elif resume:
        raise ValueError("resume needs the folder with the checkpoint: give out")

    started = time.perf_counter() - run.seconds
    total = epochs * run.steps
    with (
        _interruptible() as interrupted,
        tqdm(total=total, initial=run.done, desc=name or task.name, unit="step", disable=not progress) as bar,
    ):
        while run.done < total:
            loss = run.step()
            run.seconds = time.perf_counter() - started
            bar.update()
            bar.set_postfix(epoch=f"{run.done // run.steps}/{epochs}", loss=f"{loss:.3f}", refresh=False)
            if folder is not None and (run.done % run.steps == 0 or interrupted.is_set()):
                run.save(folder / CHECKPOINT)
            if interrupted.is_set():
                raise KeyboardInterrupt
    train_share, val_share, test_share = (evaluate(run.net, run.rule, task, split) for split in run.data[:3])
    seconds = time.perf_counter() - started
    result = Result(
        name, task.name, seed, epochs, train_share, val_share, test_share, seconds, peak_memory_mb=peak_memory_mb()
    )
    if folder is not None:
        write(folder / RESULT, (json.dumps(asdict(result), indent=1) + "\n").encode())
    return run.net, result


def _settings(task: Task, rule: Rule, name: str, seed: int, epochs: int) -> dict[str, Any]:
    """What two runs must share to come to the same numbers. Sums depend on the number of threads."""
    own = {"dataset": task.name, "rule": name, "method": repr(rule), "seed": seed, "epochs": epochs}
    return own | {"batch": task.batch, "rate": task.rate, "decay": task.decay, "threads": torch.get_num_threads()}


class _Run:
    """All that changes while a run goes on, and how it is saved."""

    def __init__(
        self, task: Task, rule: Rule | Callable[[Any, torch.Generator], Rule], name: str, seed: int, epochs: int
    ):
        self.task, self.data = task, task.load()
        self.generator = torch.Generator().manual_seed(seed)
        self.net = task.network(self.generator)
        # a generator of its own, so that the order of the data is the same under every rule
        feedback = torch.Generator().manual_seed(seed + 1)
        self.rule = rule if isinstance(rule, Rule) else rule(self.net, feedback)
        if not isinstance(self.rule, Rule):
            raise TypeError(f"rule must make a Rule for a network, it made a {type(self.rule).__name__}")
        self.settings = settings = _settings(task, self.rule, name, seed, epochs)
        parameters = self.rule.parameters(self.net)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=task.rate)
        if task.decay:
            self.optimizer = torch.optim.AdamW(parameters, lr=task.rate, weight_decay=task.decay)
        self.steps = -(-len(self.data.train) // task.batch)  # a epoch
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, settings["epochs"] * self.steps)
        self.done, self.seconds = 0, 0.0
        self.order = torch.empty(0, dtype=torch.long)

    def step(self) -> float:
        """One batch."""
        position = self.done % self.steps
        if position == 0:
            self.order = torch.randperm(len(self.data.train), generator=self.generator)
        chosen = self.order[position * self.task.batch : (position + 1) * self.task.batch]
        x, y = self.data.train.x[chosen], self.data.train.y[chosen]
        self.optimizer.zero_grad()
        loss = self.rule.backward(self.net, self.task.encode(x), y, self.task.loss).item()
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        return loss

    def save(self, path: Path) -> None:
        state = {
            "settings": self.settings,
            "done": self.done,
            "seconds": self.seconds,
            "order": self.order,
            "generator": self.generator.get_state(),
            "network": self.net.state_dict(),
            "feedback": self.rule.spatial.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        write_checkpoint(path, state)

    def load(self, path: Path) -> None:
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
            self.done, self.seconds, self.order = state["done"], state["seconds"], state["order"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not fit this network: {error}; delete it and start again") from error


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state behind a line with its checksum; the file is there whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write(path, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint; nothing in the file is executed.

    Raises:
        ValueError: the file is missing, not a checkpoint of this package, or damaged, be it by a single bit.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path} to resume; start without resume, or name its folder as out")
    first, _, content = path.read_bytes().partition(b"\n")
    if not first.startswith(MAGIC):
        raise ValueError(f"{path} is not a checkpoint of snnlearn; delete it or name another folder")
    if first.removeprefix(MAGIC) != hashlib.sha256(content).hexdigest().encode():
        raise ValueError(f"{path} is damaged: its checksum is wrong; delete it and start again")
    try:
        return torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # the checksum is right, but what it covers was never a state
        raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it and start again") from error


def _prepare(folder: Path, resume: bool) -> None:
    """Make the folder, see that it can be written, and protect an unfinished run in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    if resume or not (folder / CHECKPOINT).exists():
        return
    if not (folder / RESULT).exists():
        raise ValueError(f"{folder} holds an unfinished run; add --resume to go on with it, or name another folder")
    (folder / RESULT).unlink()
    (folder / CHECKPOINT).unlink()


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A file to write under a temporary name, which takes the name ``path`` only when it is complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with _replacing(path) as file:
        file.write(content)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is never cut in the middle. A second one stops at once."""
    event = threading.Event()
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    with suppress(ValueError):  # not the main thread: signals are its own business
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, stop)
    try:
        yield event
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
