"""How much memory a step takes at its peak, as the operating system counts it.

What is counted is by how much the resident memory of the process grows, at its highest, over what it was before the
step: pages in use, whoever asked for them, a pool of buffers included. Each contender has a process of its own
(`snnlearn.bench.child`), so that nobody uses what another has left behind.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def growth(step: Callable[[], object]) -> int:
    """Bytes by which the peak of resident memory lies above what was there before the step.

    On Linux the kernel's mark of the peak is reset first. Elsewhere it cannot be, and what an earlier peak covers is
    not seen.
    """
    gc.collect()
    _give_back()
    before, marked = _resident(), _reset_mark()
    if not marked:
        before = _peak()
    result = step()
    peak = _peak()
    del result
    return max(0, peak - before)


def in_child(job: dict[str, Any], threads: int = 1) -> int:
    """Bytes of a job of `snnlearn.bench.child`, in a process of its own.

    Raises:
        RuntimeError: the process failed; says the last line of what it wrote.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "snnlearn.bench.child", json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        raise RuntimeError(f"the process that measures memory ended with status {done.returncode}: {last}")
    return int(done.stdout.split()[-1])


def _status(name: str) -> int | None:
    """A line of /proc/self/status, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _resident() -> int:
    return _status("VmRSS") or _peak()


def _peak() -> int:
    marked = _status("VmHWM")
    if marked is not None:
        return marked
    import resource  # not on every system

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _reset_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _give_back() -> None:
    """Have the C library return what it holds but does not use, so that the step cannot use it unseen."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
