"""The kernels on a GPU: compiled by nvcc alone on first use, called through ctypes, and behind the same ops.

The ``.cu`` files know pointers and a stream, and nothing of torch, so that nvcc needs seconds for them and they fit any
torch. `ready` compiles them for the GPU at hand and puts them behind the CPU's ops of the same names (`OPS`), the fused
scan and the layer driven by events: callers see no difference. There is no kernel for recurrent layers here; on a GPU
they run the fused scan one time step after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import threading
import warnings
from pathlib import Path
from typing import Any

import torch

from snnlearn import kernels
from snnlearn.kernels import build
from snnlearn.kernels.event_launches import EventDriver

FLAGS = ("-O3", "--fmad=false", "-std=c++17", "-cudart", "static", "-Xcompiler", "-fPIC", "-shared")
STEM = "cuda"
OPS = {
    "scan_forward": 0,
    "scan_reverse": 4,
    "events_blocks": 0,
    "events_forward": 0,
    "events_backward": 0,
    "events_down": 0,
    "pack_bits": 0,
    "unpack_bits": 0,
}
"""The ops, and which of their arguments is always a tensor."""

_lock = threading.RLock()
_drivers: dict[str, EventDriver] = {}  # by architecture
_registered: torch.library.Library | None = None
_failure: str | None = None


def missing() -> str | None:
    """What is missing for kernels on a GPU, and how to get it; None where nothing is."""
    if torch.version.cuda is None:
        return "this build of torch has no CUDA; install a CUDA build of torch"
    if not torch.cuda.is_available():
        return f"torch has CUDA {torch.version.cuda}, but no GPU or driver was found"
    if nvcc() is None:
        return f"no nvcc; install the CUDA toolkit {torch.version.cuda}, or set CUDA_HOME to its folder"
    return None


def status() -> str:
    """What there is of the kernels for a GPU, or what is missing and how to get it. Compiles nothing."""
    lacking = missing() or _failure
    if lacking is not None:
        return f"not available: {lacking.partition(chr(10))[0]}"
    found = build.find(plan(architecture(torch.device("cuda"))))
    return "not built yet; the first large use on the GPU builds them" if found is None else f"built: {found.name}"


def nvcc() -> str | None:
    """The path of nvcc: on PATH, or in the toolkit's usual places."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    inside = (shutil.which(f"{home}/bin/nvcc") for home in homes if home)
    return shutil.which("nvcc") or next(filter(None, inside), None)


def architecture(device: torch.device) -> str:
    """The name that nvcc has for a GPU, such as sm_90."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def plan(arch: str, folder: Path = build.HERE) -> build.Plan:
    """What is to be compiled for an architecture.

    Raises:
        MissingTool: there is no nvcc.
    """
    compiler = nvcc()
    if compiler is None:
        raise build.MissingTool("no nvcc; install the CUDA toolkit, or set CUDA_HOME to its folder")
    asked = subprocess.run([compiler, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    version = " ".join(asked.stdout.split()[-2:])
    flags, sources = (*FLAGS, f"-arch={arch}"), tuple(sorted(folder.glob("*.cu")))
    key = hashlib.sha256()
    for part in (compiler, version, *flags):
        key.update(part.encode() + b"\0")
    for path in (*sources, *sorted(folder.glob("*.cuh")), folder / "lif.h"):
        key.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return build.Plan(sources, compiler, version, flags, build.cache() / f"{STEM}-{key.hexdigest()[:16]}.so")


@functools.cache
def _planned(arch: str, compiler: str | None, cache: Path) -> build.Plan:
    """`plan`, which starts a program, once for each compiler and cache: small uses ask again and again."""
    return plan(arch)


def make(wanted: build.Plan) -> Path:
    """The library of a plan: found in the cache, or compiled while other processes that want it wait.

    Raises:
        BuildError: nvcc refuses the sources or the architecture, or the cache cannot be written.
    """
    return build.make(wanted, _compile)


def _compile(wanted: build.Plan, private: Path) -> Path:
    build._say("snnlearn: compiling its CUDA kernels for this GPU, about 20 s, once ...")
    compiled = private / "library.so"
    command = [wanted.compiler, *wanted.flags, "--threads=0", "-o", str(compiled), *map(str, wanted.sources)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=private)
    if done.returncode != 0:
        build._say(" failed\n")
        said = done.stderr + done.stdout
        raise build.BuildError(f"{wanted.compiler}: {build._first_error(said)}\n{build._last_lines(said)}")
    build._say(" done\n")
    return compiled


def driver(device: torch.device) -> EventDriver:
    """The kernels for a GPU, compiled first if need be.

    Raises:
        BuildError: the reason why that cannot be done, and what to install or set.
    """
    lacking = missing()
    if lacking is not None:
        raise build.MissingTool(f"no kernels for a GPU: {lacking}")
    arch = architecture(device)
    with _lock:
        if arch not in _drivers:
            library = make(plan(arch))
            try:
                _drivers[arch] = EventDriver(ctypes.CDLL(str(library)), "cuda")
            except OSError as error:
                raise build.BuildError(
                    f"the compiled kernels do not load: {error}\ndelete {library} to have them compiled again"
                ) from error
        return _drivers[arch]


def ready(device: torch.device, work: int = 0) -> bool:
    """Whether the ops may be called with tensors on this GPU; the twin of `snnlearn.kernels.ready`.

    The ops' names come with the CPU's library, so that one must be loaded. Compiles only for ``work`` of at least
    `snnlearn.kernels.WORTH` elements. After a compilation that failed it says no for good, with one warning. Under
    ``torch.compile`` it neither loads nor compiles.
    """
    global _failure
    if not kernels.ready(work) or _failure is not None:
        return False
    if torch.compiler.is_compiling():
        return _registered is not None
    if _registered is not None and architecture(device) in _drivers:
        return True
    if missing() is not None:
        return False
    with _lock:
        if work < kernels.WORTH and build.find(_planned(architecture(device), nvcc(), build.cache())) is None:
            return False
        try:
            driver(device)
        except build.BuildError as error:
            _failure = str(error)
            warnings.warn(f"snnlearn goes on without its kernels for the GPU: {error}", stacklevel=2)
            return False
        register()
    return True


def register() -> None:
    """Put the launches behind ``torch.ops.snnlearn`` for CUDA tensors. Does nothing the second time."""
    global _registered
    with _lock:
        if _registered is not None:
            return
        _registered = torch.library.Library("snnlearn", "IMPL")
        for name, first in OPS.items():
            _registered.impl(name, functools.partial(_call, name, first), "CUDA")


def _call(name: str, first: int, *arguments: Any) -> Any:
    """An op on the GPU of its argument number ``first``."""
    return getattr(driver(arguments[first].device), name)(*arguments)


def _after_fork() -> None:
    """A child has none of its parent's threads: a lock that one of them held would stay shut."""
    global _lock
    _lock = threading.RLock()


with contextlib.suppress(AttributeError):  # not a POSIX system
    os.register_at_fork(after_in_child=_after_fork)
