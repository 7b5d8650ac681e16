"""The build of the kernels: once, by whoever comes first, whole or not at all, and never needed.

Most tests compile a tiny source of their own, into a cache of their own.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from kernel_tools import compiled as compiled

from snnlearn import LIF, cli, kernels, lif
from snnlearn.kernels import build, cuda

TINY = 'extern "C" int answer() { return 42; }\n'
BROKEN = 'extern "C" int answer() { return fourty_two; }\n'
# A compiler that notes each compilation, and does not begin one before the file "go" is there.
WRAPPED = """#!/bin/sh
echo asked >> "{here}/asked"
case " $* " in *" -c "*)
  echo compiled >> "{here}/compilations"
  until [ -e "{here}/go" ]; do sleep 0.05; done
esac
exec c++ {more} "$@"
"""
LOAD = """
import sys
from pathlib import Path
from snnlearn import kernels
from snnlearn.kernels import build
build.HERE = Path(sys.argv[1])
print(kernels.load())
"""

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))) or os.name != "posix", reason="needs a C++ compiler"
)


class Place:
    """Sources, a cache and a compiler of a test's own."""

    def __init__(self, folder):
        self.source, self.cache = folder / "source", folder / "ca che"
        self.source.mkdir()
        (self.source / "tiny.cpp").write_text(TINY)
        self.compiler = folder / "wrapped-g++"
        self.folder = folder
        self.started = []

    def wrap(self, more="", go=True):
        self.compiler.write_text(WRAPPED.format(here=self.folder, more=more))
        self.compiler.chmod(0o755)
        if go:
            (self.folder / "go").touch()

    def count(self, what):
        path = self.folder / what
        return len(path.read_text().splitlines()) if path.exists() else 0

    def process(self, code=LOAD):
        """Another process that loads the kernels."""
        environment = os.environ | {"CXX": str(self.compiler), "SNNLEARN_CACHE": str(self.cache)}
        with self.said().open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(self.source)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def said(self, number=None):
        """The file of what a process says on stderr; of the next one, without a number."""
        return self.folder / f"stderr {len(self.started) if number is None else number}"

    def end(self):
        (self.folder / "go").touch()
        for process in self.started:
            process.kill()
            process.wait()
            process.stdout.close()

    def left(self):
        return sorted(path.suffix for path in self.cache.iterdir())


WHOLE = [".lock", ".sha256", ".so"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A `Place`, and the package of the kernels as it is after an import."""
    fresh = {
        "_loaded": None,
        "_traceable": False,
        "_failure": None,
        "_wanted": None,
        "_unplanned": False,
    }
    for name, value in fresh.items():
        monkeypatch.setattr(kernels, name, value)
    made = Place(tmp_path)
    monkeypatch.setattr(build, "HERE", made.source)
    monkeypatch.setenv("SNNLEARN_CACHE", str(made.cache))
    for name in ("CXX", "SNNLEARN_KERNELS", "SNNLEARN_CXXFLAGS"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.end()


def wait_until(condition, *running):
    """Wait for a condition while the processes that are to bring it about live."""
    while not condition():
        for process in running:
            assert process.poll() is None, process.returncode
        time.sleep(0.02)


# Building


@needs_compiler
def test_it_builds_once_and_loads(place, monkeypatch, capfd):
    place.wrap()
    monkeypatch.setenv("CXX", str(place.compiler))
    assert not place.cache.exists()
    library = kernels.load()
    assert library.parent == place.cache
    assert str(library) in torch.ops.loaded_libraries
    shown = capfd.readouterr().err
    assert shown.startswith("snnlearn: compiling its CPU kernels for this machine, about a minute, once ... done, ")
    assert shown.count("\n") == 1
    assert place.left() == WHOLE
    assert kernels.ready()
    # from the cache, as another process would
    monkeypatch.setattr(kernels, "_loaded", None)
    assert kernels.load() == library
    assert place.count("compilations") == 1
    assert capfd.readouterr().err == ""


@needs_compiler
def test_the_library_is_what_the_sources_say(place):
    import ctypes

    (place.source / "more.cpp").write_text('#include "more.h"\nextern "C" int other() { return OTHER; }\n')
    (place.source / "more.h").write_text("#define OTHER 43\n")
    library = ctypes.CDLL(str(kernels.load()))
    assert (library.answer(), library.other()) == (42, 43)


@needs_compiler
def test_what_is_hashed_is_what_is_compiled(place):
    """An edit during the compilation must not end in the library of the sources before it."""
    import ctypes

    before = build.plan()
    (place.source / "tiny.cpp").write_text(TINY.replace("42", "43"))
    assert ctypes.CDLL(str(build.make(before))).answer() == 42
    assert ctypes.CDLL(str(build.make(build.plan()))).answer() == 43


@needs_compiler
def test_two_at_once_compile_once(place):
    place.wrap(go=False)
    first = place.process()
    wait_until(lambda: place.count("compilations") == 1, first)
    second = place.process()
    wait_until(lambda: place.said(1).read_text(), first, second)
    assert place.said(1).read_text() == "snnlearn: another process is compiling these kernels; waiting for it\n"
    (place.folder / "go").touch()
    found = [process.communicate()[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], place.said(0).read_text()
    assert found[0] == found[1] != ""
    assert place.count("compilations") == 1
    assert place.left() == WHOLE


@needs_compiler
def test_a_killed_build_blocks_nobody_and_leaves_nothing(place):
    place.wrap(go=False)
    killed = place.process()
    wait_until(lambda: place.count("compilations") == 1, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert place.left() == [".lock", ".tmp"]  # what the next one must clear
    second = place.process()
    wait_until(lambda: place.count("compilations") == 2, second)
    (place.folder / "go").touch()
    out, _ = second.communicate()
    assert second.returncode == 0, place.said(1).read_text()
    assert Path(out.strip()).exists()
    assert place.count("compilations") == 2
    assert place.left() == WHOLE


@needs_compiler
@pytest.mark.parametrize("damage", ["garbage", "truncated", "no sum"])
def test_a_damaged_library_is_built_again(place, damage):
    library = build.make(build.plan())
    whole = library.read_bytes()
    if damage == "garbage":
        library.write_bytes(b"\x7fELF not really")
    elif damage == "truncated":
        library.write_bytes(whole[: len(whole) // 2])
    else:
        library.with_suffix(".sha256").unlink()
    assert build.find(build.plan()) is None
    assert kernels.status()["cpu kernels"].startswith("not built yet")
    assert kernels.load() == library
    assert len(library.read_bytes()) > len(whole) // 2
    assert place.left() == WHOLE


@needs_compiler
def test_a_library_that_does_not_load_is_named(place, monkeypatch):
    library = build.make(build.plan())
    library.write_bytes(b"no library")
    library.with_suffix(".sha256").write_text(build._sum(b"no library"))
    with pytest.raises(kernels.BuildError, match="do not load") as caught:
        kernels.load()
    assert f"delete {library}" in str(caught.value)


@needs_compiler
def test_the_key_holds_all_that_the_library_depends_on(place, monkeypatch):
    place.wrap()
    monkeypatch.setenv("CXX", str(place.compiler))
    seen = [build.plan().library]

    def changed():
        seen.append(build.plan().library)
        return len(set(seen)) == len(seen)

    assert not changed()  # the same twice
    seen.pop()
    (place.source / "tiny.cpp").write_text(TINY.replace("42", "43"))
    assert changed()
    (place.source / "tiny.h").write_text("// a header\n")
    assert changed()
    (place.source / "tiny.h").rename(place.source / "tinz.h")
    assert changed()
    monkeypatch.setenv("SNNLEARN_CXXFLAGS", "-O1")
    assert changed()
    place.wrap("-DANOTHER_PROCESSOR")  # the same compiler and flags on another machine: other macros
    assert changed()
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    assert changed()
    place.compiler.rename(place.folder / "second-g++")
    monkeypatch.setenv("CXX", str(place.folder / "second-g++"))
    assert changed()


@needs_compiler
def test_further_flags_reach_the_compiler(place, monkeypatch):
    import ctypes

    (place.source / "tiny.cpp").write_text('extern "C" int answer() { return ANSWER; }\n')
    monkeypatch.setenv("SNNLEARN_CXXFLAGS", "-DANSWER='4 + 3'")
    assert ctypes.CDLL(str(kernels.load())).answer() == 7


@needs_compiler
def test_flags_that_the_compiler_refuses(place, monkeypatch):
    monkeypatch.setenv("SNNLEARN_CXXFLAGS", "-fno-such-flag")
    with pytest.raises(kernels.BuildError, match=r"does not take the flags .*-fno-such-flag"):
        build.plan()


@needs_compiler
def test_without_openmp(place, monkeypatch):
    """A compiler that refuses -fopenmp, such as Apple's, compiles without it."""
    ask = build._ask

    def refusing(compiler, *arguments):
        return ask(compiler, *arguments, *["-fno-such-flag"] * (build.THREADS in arguments))

    assert build.THREADS in build.plan().flags
    monkeypatch.setattr(build, "_ask", refusing)
    assert build.THREADS not in build.plan().flags


# What is missing


@needs_compiler
def test_broken_sources_name_the_compiler_s_error(place, monkeypatch):
    (place.source / "tiny.cpp").write_text(BROKEN + "// filler\n" * 100)
    with pytest.raises(kernels.BuildError, match="fourty_two") as caught:
        kernels.load()
    lines = str(caught.value).splitlines()
    assert "error:" in lines[0]
    assert len(lines) <= build.SHOWN + 2
    assert place.left() == [".lock"]
    assert "fourty_two" in kernels.status()["cpu kernels"]
    assert not kernels.ready(2**30)
    # put right, an explicit call tries again
    (place.source / "tiny.cpp").write_text(TINY)
    assert kernels.load().exists()
    assert kernels.ready()


def test_a_wall_of_errors_is_cut():
    text = "\n".join(f"line {i}" for i in range(100))
    assert build._last_lines(text).splitlines() == ["[...]", *(f"line {i}" for i in range(70, 100))]
    assert build._last_lines("one\ntwo\n") == "one\ntwo"


def test_no_compiler(place, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not kernels.ready()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kernels.ready(10**9)
        assert not kernels.ready(10**9)
        a = torch.full((4, 2, 3), 0.6, dtype=torch.float64, requires_grad=True)
        LIF(lif())(a).sum().backward()
    assert a.grad.abs().sum() > 0
    assert "not available: no C++ compiler; install g++" in kernels.status()["cpu kernels"]
    assert "apt install g++" in kernels.status()["cpu kernels"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(kernels.MissingTool, match="CXX is 'no-such-compiler', which is no program here"):
        kernels.load()


@needs_compiler
def test_no_ninja(place, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("c++", "as", "ld"):
        if path := shutil.which(name):
            (tools / name).symlink_to(path)
    monkeypatch.setenv("PATH", str(tools))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ninja", None)
        with pytest.raises(kernels.MissingTool, match="pip install ninja") as caught:
            kernels.load()
    assert len(str(caught.value).splitlines()) == 2
    # the one of the package is found, though its folder is not on PATH; PATH is as it was afterwards
    assert kernels.load().exists()
    assert (os.environ["PATH"], os.environ.get("CXX")) == (str(tools), None)


@needs_compiler
@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a file system that refuses to be written")
def test_a_cache_that_cannot_be_written(place, monkeypatch, tmp_path):
    monkeypatch.setenv("SNNLEARN_CACHE", "/proc/snnlearn")
    with pytest.raises(kernels.BuildError, match="/proc/snnlearn cannot be written") as caught:
        kernels.load()
    assert "set SNNLEARN_CACHE" in str(caught.value)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SNNLEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(kernels.BuildError, match="file cannot be written"):
        kernels.load()


@needs_compiler
def test_a_cache_that_is_read_only_serves(place, monkeypatch):
    library = build.make(build.plan())
    monkeypatch.setattr(build, "_locked", None)  # would be called for anything that writes
    assert kernels.load() == library


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SNNLEARN_CACHE", str(tmp_path / "own"))
    assert build.cache() == tmp_path / "own"
    monkeypatch.delenv("SNNLEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache() == tmp_path / "snnlearn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert build.cache() == tmp_path / "home/.cache/snnlearn"


def test_an_installation_without_sources(place):
    (place.source / "tiny.cpp").unlink()
    with pytest.raises(kernels.BuildError, match="no C\\+\\+ sources"):
        build.plan()


# When


@needs_compiler
def test_only_a_large_use_compiles_and_any_use_loads(place, monkeypatch):
    place.wrap()
    monkeypatch.setenv("CXX", str(place.compiler))
    assert not kernels.ready()
    assert not kernels.ready(kernels.WORTH - 1)
    assert place.count("asked") == 0
    assert "not built yet" in kernels.status()["cpu kernels"]
    assert kernels.ready(kernels.WORTH)
    assert place.count("compilations") == 1
    monkeypatch.setattr(kernels, "_loaded", None)
    assert kernels.ready()  # the cache has it now
    assert place.count("compilations") == 1
    assert kernels.status()["cpu kernels"].startswith(f"built: {kernels.load().name}, ")


@needs_compiler
def test_a_small_use_does_not_ask_the_compiler_again_and_again(place, monkeypatch):
    build.make(build.plan())
    (place.source / "tiny.cpp").write_text(TINY.replace("42", "43"))  # the cache has a library, of other sources
    place.wrap()
    monkeypatch.setenv("CXX", str(place.compiler))
    assert not kernels.ready()
    asked = place.count("asked")
    assert asked > 0
    assert not kernels.ready()
    assert place.count("asked") == asked
    build.make(build.plan())  # as another process would
    assert kernels.ready()


@needs_compiler
def test_off(place, monkeypatch):
    monkeypatch.setenv("SNNLEARN_KERNELS", "off")
    assert not kernels.ready(2**30)
    assert not place.cache.exists()
    assert kernels.status()["cpu kernels"] == "off: SNNLEARN_KERNELS=off"
    monkeypatch.delenv("SNNLEARN_KERNELS")
    with kernels.off():
        assert not kernels.ready(2**30)
        assert not place.cache.exists()
    assert kernels.ready(2**30)
    with kernels.off():
        with kernels.off():
            assert not kernels.ready()
        assert not kernels.ready()
    assert kernels.ready()
    monkeypatch.setenv("SNNLEARN_KERNELS", "OFF")
    assert not kernels.ready()


@needs_compiler
def test_off_is_of_a_context(place):
    import threading

    kernels.load()
    found = []
    with kernels.off():
        thread = threading.Thread(target=lambda: found.append(kernels.ready()))
        thread.start()
        thread.join()
        found.append(kernels.ready())
    assert found == [True, False]


@needs_compiler
def test_threads_build_once(place, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    place.wrap()
    monkeypatch.setenv("CXX", str(place.compiler))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(kernels.ready, [2**30] * 4)) == [True] * 4
    assert place.count("compilations") == 1


@needs_compiler
def test_a_trace_neither_builds_nor_forgets(place):
    """torch.compile traces through `ready`, with a trace for each answer."""

    @torch.compile(backend="eager", fullgraph=True)
    def path(x):
        return x + 1 if kernels.ready(2**30) else x - 1

    x = torch.zeros(2, dtype=torch.float64)
    assert path(x).tolist() == [-1, -1]
    assert not place.cache.exists()
    kernels.load()
    assert path(x).tolist() == [1, 1]
    with kernels.off():
        assert path(x).tolist() == [-1, -1]
    assert path(x).tolist() == [1, 1]


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_during_a_build_does_not_hang(place):
    code = """
import os, signal, sys, threading
from snnlearn import kernels
held, done = threading.Event(), threading.Event()
def hold():
    with kernels._lock:
        held.set()
        done.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends a child that waits for ever
    os._exit(kernels.ready())
status = os.waitpid(child, 0)[1]
done.set()
sys.exit(status)
"""
    place.wrap()
    process = place.process(code)
    process.communicate()
    assert process.returncode == 0, place.said(0).read_text()


def test_an_import_compiles_and_loads_nothing(place):
    place.wrap()
    code = (
        "import sys, snnlearn, snnlearn.cli, snnlearn.kernels, torch\n"
        "names = ('torch.utils.cpp_extension', 'torch._dynamo', 'setuptools', 'ninja')\n"
        "print([name for name in names if name in sys.modules], list(torch.ops.loaded_libraries))"
    )
    process = place.process(code)
    out, _ = process.communicate()
    assert (out, place.said(0).read_text()) == ("[] []\n", "")
    assert place.count("asked") == 0
    assert not place.cache.exists()


# What is said


def test_what_is_said_of_cuda(place, monkeypatch):
    def said():
        return kernels.status()["cuda kernels"]

    monkeypatch.setattr(torch.version, "cuda", None)
    assert said() == "not available: this build of torch has no CUDA; install a CUDA build of torch"
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU or driver was found" in said()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "nvcc", lambda: None)
    assert "no nvcc; install the CUDA toolkit 12.8" in said()


@needs_compiler
def test_the_command_builds(place, capsys):
    assert cli.main(["build"]) == 0
    out = capsys.readouterr().out
    assert str(place.cache) in out
    assert "cpu kernels        built: kernels-" in out
    assert "cuda kernels       " in out


def test_the_command_says_why_it_cannot(place, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["build"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("snnlearn: no C++ compiler; install g++ (Debian, Ubuntu: apt install g++)\n")
    assert cli.main(["info"]) == 0
    assert "cpu kernels        not available: no C++ compiler; install g++" in capsys.readouterr().out


def test_the_real_kernels(compiled):
    assert compiled.load().exists()
    assert compiled.status()["cpu kernels"].startswith("built: ")
