"""What the tests of the CUDA kernels share: a library that runs them on the CPU, and who is compared with whom."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from snnlearn.kernels import build, cuda
from snnlearn.kernels.event_launches import EventDriver
from snnlearn.neurons import Analog, State, Threshold
from snnlearn.resets import no_reset, subtract, subtract_decayed, to_zero, to_zero_with_input
from snnlearn.surrogate import StraightThrough
from snnlearn.temporal import fused

HERE = Path(__file__).parent
SOURCES = sorted(build.HERE.glob("*.cu"))
RESETS = (subtract, subtract_decayed, to_zero, to_zero_with_input, no_reset)
FIRES = (Threshold(), Threshold(strict=True), Threshold(most=3), Analog())
SLOPES = tuple(shape(peak=0.8) if shape is StraightThrough else shape(0.4, 0.8) for shape in fused.SLOPES)
F64, F32 = torch.float64, torch.float32


def emulation(folder, sources):
    """The sources as C++, in a library that runs them on the CPU."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler, which stands in for a GPU; install g++")
    library = folder / "emulated.so"
    own = ("-x", "c++", "-std=c++17", "-O1", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fPIC", "-shared")
    quiet = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
    command = [compiler, *own, *quiet, "-include", HERE / "cuda_on_cpu.h", *sources, "-o", library]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


_made: list[ctypes.CDLL] = []


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """The library and its launches; compiled once, though each module that imports this has a fixture of its own."""
    if not _made:
        _made.append(emulation(tmp_path_factory.mktemp("cuda"), SOURCES))
    return _made[0], EventDriver(_made[0], "cpu")


@pytest.fixture(params=["emulated", "gpu"] if cuda.missing() is None else ["emulated"])
def kernel(request):
    """The launches, and the device whose tensors they take."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")[1], torch.device("cpu")
    return cuda.driver(torch.device("cuda", 0)), torch.device("cuda", 0)


@pytest.fixture
def gpu():
    if cuda.missing() is not None:
        pytest.skip(f"the kernels are not tested on a GPU: {cuda.missing()}")
    return torch.device("cuda", 0)


def noise(seed, *shape, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def states(seed, shape, dtype=F64):
    """A current, a membrane and spikes from which a sequence goes on."""
    return State(noise(seed, *shape, dtype=dtype), noise(seed + 1, *shape, dtype=dtype),
                 (noise(seed + 2, *shape, dtype=dtype) > 0).to(dtype))  # fmt: skip


def put(device, *values):
    return [x.detach().to(device) if isinstance(x, torch.Tensor) else x for x in values]


def same(got, wanted, exact=False):
    wanted, got = wanted.detach(), got.cpu()
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if wanted.dtype == F64 else {"rtol": 2e-4, "atol": 2e-5}
    torch.testing.assert_close(got, wanted, equal_nan=True, **({"rtol": 0, "atol": 0} if exact else tolerance))
