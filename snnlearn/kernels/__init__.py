"""The compiled kernels: loaded when they are worth it, and never needed for a result.

Nothing is compiled or loaded by an import. Whoever has an op to call asks `ready` first, and takes the reference path
where it says no. The ops are ``torch.ops.snnlearn.<name>``.

``SNNLEARN_KERNELS=off`` keeps to the reference path, ``SNNLEARN_CACHE`` is the folder of compiled libraries, ``CXX``
the compiler, ``SNNLEARN_CXXFLAGS`` further flags for it.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from snnlearn.kernels import build, ops
from snnlearn.kernels.build import BuildError as BuildError
from snnlearn.kernels.build import MissingTool as MissingTool

WORTH = 2**18  # elements: a first use of this size is worth the seconds of compiling

_off: contextvars.ContextVar[bool] = contextvars.ContextVar("snnlearn_kernels_off", default=False)
_lock = threading.RLock()
_loaded: build.Plan | None = None
_traceable = False  # loaded, and no context is inside off(): a plain flag that torch.compile can read and guard
_inside_off = 0
_failure: str | None = None  # of the last build
_wanted: build.Plan | None = None  # what a small use looks for in the cache
_unplanned = False  # a small use found that there is nothing to look for


def load() -> Path:
    """Load the kernels, compiled first if need be; returns the library's path.

    Raises:
        BuildError: the reason why that cannot be done, and what to install or set.
    """
    global _loaded, _failure, _traceable
    with _lock:
        if _loaded is None:
            try:
                wanted = build.plan()
                library = build.make(wanted)
                _open(library)
            except BuildError as error:
                _failure = str(error)
                raise
            _loaded, _failure, _traceable = wanted, None, _inside_off == 0
        return _loaded.library


def _open(library: Path) -> None:
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise BuildError(
            f"the compiled kernels do not load: {error}\ndelete {library} to have them compiled again"
        ) from error
    ops.register()


def ready(work: int = 0) -> bool:
    """Whether the ops may be called now.

    Loads what is in the cache; compiles only for ``work`` of at least `WORTH` elements, such as T * B * N, with a note
    on stderr. After a compilation that failed it says no for good, with one warning, and where there is no compiler
    without one; `load` may still be called.

    Under ``torch.compile`` it neither loads nor compiles; it says what holds, and the trace is made again when that
    changes. A context that is inside `off` counts there for all.
    """
    if torch.compiler.is_compiling():
        return _traceable and not _switched_off()
    if _off.get() or _switched_off():
        return False
    if _loaded is not None:
        return True
    if _failure is not None:
        return False
    return _load_if_worth(work)


def _switched_off() -> bool:
    return os.environ.get("SNNLEARN_KERNELS", "").lower() in ("off", "0", "no", "false")


def _load_if_worth(work: int) -> bool:
    with _lock:
        if _loaded is not None or _failure is not None:  # by another thread
            return _loaded is not None
        if work < WORTH and not _in_cache():
            return False
        try:
            load()
        except MissingTool:  # no news to whoever has no compiler; `status` tells
            return False
        except BuildError as error:
            warnings.warn(f"snnlearn goes on without its compiled kernels: {error}", stacklevel=3)
            return False
        return True


def _in_cache() -> bool:
    """Whether the cache holds the library. The compiler is asked once a process, and not for an empty cache."""
    global _wanted, _unplanned
    if _unplanned:
        return False
    if _wanted is None:
        try:
            if not build.any_library():
                return False
            _wanted = build.plan()
        except BuildError:
            _unplanned = True
            return False
    return build.find(_wanted) is not None


@contextlib.contextmanager
def off() -> Iterator[None]:
    """The reference path in this context, whatever is loaded: for what begins in it.

    A layer of events whose forward pass was compiled goes back as it came.
    """
    token = _off.set(True)
    _count_off(+1)
    try:
        yield
    finally:
        _count_off(-1)
        _off.reset(token)


def _count_off(change: int) -> None:
    global _inside_off, _traceable
    with _lock:
        _inside_off += change
        _traceable = _loaded is not None and _inside_off == 0


def status() -> dict[str, str]:
    """What there is of the kernels for CPU and CUDA, or what is missing and how to get it. Compiles nothing."""
    return {"cpu kernels": _cpu(), "cuda kernels": _cuda()}


def _cpu() -> str:
    if _switched_off():
        return f"off: SNNLEARN_KERNELS={os.environ['SNNLEARN_KERNELS']}"
    if _loaded is not None:
        return f"built: {_loaded.library.name}, {_loaded.version}"
    if _failure is not None:
        return f"not available: {_first_line(_failure)}"
    try:
        wanted = build.plan()
    except BuildError as error:
        return f"not available: {_first_line(str(error))}"
    if build.find(wanted) is None:
        return "not built yet; the first large use builds them, or run snnlearn build"
    return f"built: {wanted.library.name}, {wanted.version}"


def _cuda() -> str:
    from snnlearn.kernels import cuda  # which looks for nvcc, and imports this package

    return cuda.status()


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _after_fork() -> None:
    """A child has none of its parent's threads: a lock that one of them held would stay shut."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
