"""Compiles the C++ sources of this folder into one library, once for each kind of machine, and keeps it in a cache.

The library is made for the processor it is made on, so the cache tells machines apart: the name of the file is a hash
of the sources, of torch, and of all that the compiler says of itself and of this processor. It is compiled in a
private folder and moved to its place when it is whole. The lock around that is the operating system's, which frees it
when its holder dies: a build that was killed blocks nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

_fcntl: ModuleType | None
try:
    import fcntl as _fcntl
except ImportError:  # not a POSIX system
    _fcntl = None

HERE = Path(__file__).parent
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fno-trapping-math")
THREADS = "-fopenmp"
STEM = "kernels"
SHOWN = 30  # lines of what a compiler says


class BuildError(RuntimeError):
    """The kernels cannot be compiled or loaded here; says why and what to do."""


class MissingTool(BuildError):
    """There is no compiler, or no ninja; says what to install."""


class Plan(NamedTuple):
    """What would be compiled, by what, and into which file."""

    sources: tuple[Path, ...]
    compiler: str
    version: str
    flags: tuple[str, ...]
    library: Path
    files: tuple[tuple[str, bytes], ...] = ()  # sources and headers as read: what is hashed is what is compiled


def cache() -> Path:
    """The folder of compiled libraries: ``SNNLEARN_CACHE``, or snnlearn in the user's cache."""
    own = os.environ.get("SNNLEARN_CACHE")
    try:
        if own:
            return Path(own).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "snnlearn"
    except RuntimeError as error:
        raise BuildError(f"no cache folder: {error}\nset SNNLEARN_CACHE to a folder that can be written") from error


def any_library() -> bool:
    """Whether the cache holds a library at all, of whatever key. Runs no compiler."""
    return next(cache().glob(f"{STEM}-*.so"), None) is not None


def plan(folder: Path | None = None) -> Plan:
    """What is to be compiled from a folder, or from this one; asks the compiler about itself, which takes some 10 ms.

    Raises:
        MissingTool: there is no C++ compiler.
        BuildError: the folder has no sources, or the compiler does not take the flags.
    """
    folder = HERE if folder is None else folder
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".h"))
    files = tuple((path.name, path.read_bytes()) for path in paths)
    sources = tuple(path for path in paths if path.suffix == ".cpp")
    if not sources:
        raise BuildError(f"the folder {folder.name} of this installation has no C++ sources; install snnlearn again")
    compiler = _compiler()
    flags, macros = _accepted(compiler)
    version = _ask(compiler, "--version").stdout.partition("\n")[0]
    key = hashlib.sha256()
    abi = str(torch.compiled_with_cxx11_abi())
    for part in (torch.__version__, abi, compiler, version, *flags, macros):
        key.update(part.encode() + b"\0")
    for name, data in files:
        key.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return Plan(sources, compiler, version, flags, cache() / f"{STEM}-{key.hexdigest()[:16]}.so", files)


def find(wanted: Plan) -> Path | None:
    """The library of a plan, if it is there and whole."""
    try:
        data = wanted.library.read_bytes()
        return wanted.library if _sum_of(wanted).read_text() == _sum(data) else None
    except (OSError, UnicodeDecodeError):
        return None


def make(wanted: Plan, compile: Callable[[Plan, Path], Path] | None = None) -> Path:
    """The library of a plan: found, or compiled while other processes that want it wait.

    Args:
        wanted: what to compile; its library's name is a stem, "-" and a key.
        compile: makes the library of a plan in a private folder and returns its path; None is the C++ compiler.

    Raises:
        MissingTool: there is no ninja.
        BuildError: the cache cannot be written, or the compiler refuses the sources.
    """
    found = find(wanted)
    if found:
        return found
    folder, stem = wanted.library.parent, wanted.library.stem.rpartition("-")[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{stem}.lock") as alone:
            found = find(wanted)  # by the process that we waited for
            if found:
                return found
            if alone:
                for left in folder.glob(f"{stem}-*.tmp"):  # by a build that was killed
                    shutil.rmtree(left, ignore_errors=True)
            private = Path(tempfile.mkdtemp(prefix=f"{stem}-", suffix=".tmp", dir=folder))
            try:
                compiled = (compile or _compile)(wanted, private)
                # First the sum: a library without its sum, or with an older one, counts as none.
                summed = private / "sum"
                summed.write_text(_sum(compiled.read_bytes()))
                os.replace(summed, _sum_of(wanted))
                os.replace(compiled, wanted.library)
            finally:
                shutil.rmtree(private, ignore_errors=True)
    except OSError as error:
        raise BuildError(
            f"the cache folder {folder} cannot be written: {error.strerror or error}\n"
            "set SNNLEARN_CACHE to a folder that can"
        ) from error
    return wanted.library


def _compiler() -> str:
    """The path of the compiler: CXX, or the first of the usual names."""
    chosen = os.environ.get("CXX")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise MissingTool(
                f"no C++ compiler: CXX is {chosen!r}, which is no program here\nset CXX to one, or unset it"
            )
        return path
    for name in ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return path
    raise MissingTool("no C++ compiler; install g++ (Debian, Ubuntu: apt install g++)\nor set CXX to the path of one")


def _ask(compiler: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            [compiler, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
        )
    except OSError as error:
        raise MissingTool(
            f"no C++ compiler: {compiler} does not start: {error.strerror}\nset CXX to another"
        ) from error


def _accepted(compiler: str) -> tuple[tuple[str, ...], str]:
    """Flags that the compiler takes, and the macros that it then defines: they name the processor's instructions."""
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    own = shlex.split(os.environ.get("SNNLEARN_CXXFLAGS", ""))
    for threads in ((THREADS,), ()):  # Apple's compiler has no OpenMP
        flags = (*FLAGS, native, *threads, *own)
        asked = _ask(compiler, *flags, "-E", "-dM", "-x", "c++", os.devnull)
        if asked.returncode == 0:
            return flags, asked.stdout
    raise BuildError(f"{compiler} does not take the flags {' '.join(flags)}:\n{_last_lines(asked.stderr)}")


def _compile(wanted: Plan, private: Path) -> Path:
    """Compile in a private folder, without loading."""
    from torch.utils import cpp_extension  # not at the top: it brings setuptools with it

    for name, data in wanted.files:
        (private / name).write_bytes(data)
    with _tools(wanted.compiler), _note():
        flags = [shlex.quote(flag) for flag in wanted.flags]
        try:
            # As a "standalone" program that is a shared library: the one way in which cpp_extension compiles and does
            # not load. Loading comes after the move, so that the file that is mapped is the file that stays.
            path = cpp_extension.load(
                STEM,
                [str(private / source.name) for source in wanted.sources],
                extra_cflags=flags,
                extra_ldflags=["-shared", *flags],
                build_directory=str(private),
                is_python_module=False,
                is_standalone=True,
            )
        except (RuntimeError, subprocess.SubprocessError) as error:
            raise BuildError(f"{wanted.compiler}: {_first_error(str(error))}\n{_last_lines(str(error))}") from error
    return Path(path)


@contextlib.contextmanager
def _tools(compiler: str) -> Iterator[None]:
    """CXX, and ninja on PATH: an environment that is used but not activated has its programs elsewhere."""
    before = {name: os.environ.get(name) for name in ("CXX", "PATH")}
    folders = [before["PATH"] or os.defpath]
    with contextlib.suppress(ImportError):
        import ninja

        folders.insert(0, ninja.BIN_DIR)
    path = os.pathsep.join(folders)
    if shutil.which("ninja", path=path) is None:
        raise MissingTool(
            "no ninja, which runs the compiler; pip install ninja\n(Debian, Ubuntu: apt install ninja-build)"
        )
    try:
        os.environ |= {"CXX": compiler, "PATH": path}
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock that dies with its holder; yields whether it is held: some file systems have none.

    Without a lock two processes may both compile; each does so in a folder of its own, and the last move wins.
    """
    if _fcntl is None:
        yield False
        return
    with path.open("a") as file:
        try:
            _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            _say("snnlearn: another process is compiling these kernels; waiting for it\n")
            _fcntl.flock(file, _fcntl.LOCK_EX)
            held = True
        except OSError:
            held = False
        try:
            yield held
        finally:
            if held:  # by name, and not by closing: a forked child may have the file open too
                _fcntl.flock(file, _fcntl.LOCK_UN)


@contextlib.contextmanager
def _note() -> Iterator[None]:
    """One line on stderr around a compilation."""
    start = time.perf_counter()
    _say("snnlearn: compiling its CPU kernels for this machine, about a minute, once ...")
    try:
        yield
    except BaseException:
        _say(" failed\n")
        raise
    _say(f" done, {time.perf_counter() - start:.1f} s\n")


def _say(words: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(words)
        sys.stderr.flush()


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sum_of(wanted: Plan) -> Path:
    return wanted.library.with_suffix(".sha256")


def _first_error(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if "error:" in line), "compiling failed")


def _last_lines(text: str) -> str:
    lines = text.strip().splitlines()
    return "\n".join(["[...]", *lines[-SHOWN:]] if len(lines) > SHOWN else lines)
