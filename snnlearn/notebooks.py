"""The tutorials in a folder of the reader's, and JupyterLab on it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from snnlearn.training import write

RECORD = ".snnlearn.json"


def tutorials() -> Path:
    """The folder with the tutorials: in an installed package inside it, in a checkout beside it."""
    here = Path(__file__).parent
    for folder in (here / "_tutorials", here.parent / "tutorials"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise FileNotFoundError(f"the tutorials are missing beside {here}; install snnlearn again")


def copy_notebooks(folder: Path) -> Iterator[str]:
    """Copy the tutorials; a notebook that its reader has changed stays as it is. Yields a line on each.

    A record of what was copied tells an edited notebook from an old one, which is brought up to date.

    Raises:
        OSError: the folder cannot be written.
        ValueError: its record is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = _read_record(folder / RECORD)
    for source in sorted(tutorials().glob("*.ipynb")):
        content, target = source.read_bytes(), folder / source.name
        mine = _digest(content)
        there = _digest(target.read_bytes()) if target.exists() else None
        if there is None or (there != mine and there == record.get(source.name)):
            write(target, content)
            yield f"{target}: {'copied' if there is None else 'brought up to date'}"
        elif there == mine:
            yield f"{target}: up to date"
        else:
            yield f"{target}: kept, since you have changed it (rename it to get the new one)"
            continue
        record[source.name] = mine
    write(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_record(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it: changed notebooks will be kept") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not a record of snnlearn; delete it: changed notebooks will be kept")
    return record


def open_lab(folder: Path, extra: Sequence[str] = ()) -> int:
    """Run JupyterLab on a folder, the first tutorial open, until it is stopped; returns its exit status.

    Raises:
        ValueError: JupyterLab is not installed.
    """
    for module in ("jupyterlab", "ipywidgets"):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f'{module} is not installed; pip install "snnlearn[lab]"')
    first = min(folder.glob("[0-9]*.ipynb")).name
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    command += [f"--LabApp.default_url=/lab/tree/{first}", *extra]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # Jupyter refuses to run as root without it
    try:
        return subprocess.call(command)
    except KeyboardInterrupt:
        return 0
