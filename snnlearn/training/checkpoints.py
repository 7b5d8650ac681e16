"""Files that are there whole or not at all, and the checkpoint, which can be believed or is refused."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.csv"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
MAGIC = b"snnlearn checkpoint 1 sha256 "


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


def prepare(folder: Path, resume: bool) -> None:
    """Make the folder, see that it can be written, and protect an unfinished run in it.

    What a killed run left half written under a temporary name is removed; so are the files of a finished run, unless it
    is resumed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    for name in (CHECKPOINT, METRICS, RESULT, WEIGHTS, ".writable"):
        for half in folder.glob(f"{name}.*.tmp"):
            half.unlink(missing_ok=True)
    if resume or not (folder / CHECKPOINT).exists():
        return
    if not (folder / RESULT).exists():
        raise ValueError(f"{folder} holds an unfinished run; add --resume to go on with it, or name another folder")
    for name in (WEIGHTS, METRICS, RESULT, CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A file to write under a temporary name, which takes the name ``path`` only when it is complete and on disk."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for {path.name}; make it first")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """See that a file's new name outlasts a loss of power."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with _replacing(path) as file:
        file.write(content)
