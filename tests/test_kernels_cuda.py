"""The CUDA kernels: compiled for every architecture, and the fused scan run on the CPU against the reference in torch.

Without a GPU the same .cu files are compiled as C++ with `cuda_on_cpu.h`, which runs the threads of a block. With one,
every comparison runs on it as well.
"""

import ctypes
import itertools
import math
import shutil
import subprocess
import sys

import pytest
import torch
from cuda_tools import F32, F64, FIRES, RESETS, SLOPES, SOURCES, emulation, noise, put, same, states
from cuda_tools import emulated as emulated
from cuda_tools import gpu as gpu
from cuda_tools import kernel as kernel
from kernel_tools import compiled as compiled

from snnlearn import kernels
from snnlearn.kernels import cuda
from snnlearn.kernels.event_launches import EventDriver
from snnlearn.neurons import Neuron, State, Threshold, Trace
from snnlearn.resets import Bounded, subtract, to_zero, to_zero_with_input
from snnlearn.sparse import Near
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import TSSLBP, Adjoint, Reset, fused


def each_of(neuron, like):
    """alpha, beta and theta as arrays where they are tensors."""
    constants = [c for c in neuron.constants if isinstance(c, torch.Tensor)]
    return [c.detach().expand_as(like).contiguous() for c in constants]


def forward(kernel, neuron, a, state):
    driver, device = kernel
    shape = fused.shape(neuron)
    each = each_of(neuron, a[0])
    I, U, s = driver.scan_forward(*put(device, a, *state), put(device, *each), shape.numbers, shape.kinds)
    return Trace(I if shape.synapse else a.to(device), U, s)


def reverse(kernel, method, neuron, surrogate, trace, state, errors, constants=False, later=(None, None, None)):
    """kap, the first lam, gradients of the state and of the constants."""
    driver, device = kernel
    shape, credit = fused.shape(neuron), method.compiled(neuron, surrogate, trace)
    slope = credit.slope or fused.Slope(fused.codes.Slope.STRAIGHT, (1.0, 1.0, math.inf))
    seen = (int(credit.seen), int(slope.code), int(credit.intra), int(credit.leak))
    tensors = put(device, *errors, trace.I, trace.U, *state, *later, credit.psc)
    each = put(device, *each_of(neuron, trace.U[0]))
    return driver.scan_reverse(*tensors, each, shape.numbers, shape.kinds, slope.numbers, credit.times, seen, constants)


def reference(method, neuron, surrogate, a, state, errors, linked=True):
    """The trace, and by autograd through the library's own recursion what `reverse` returns, without lam."""
    leaves = [a.clone().requires_grad_(), *(x.clone().requires_grad_(linked) for x in state)]
    with kernels.off():
        trace = method.run(neuron, surrogate, leaves[0], state=type(state)(*leaves[1:]))
    learned = [c for c in neuron.constants if isinstance(c, torch.Tensor)]
    wanted = [x for x in (*leaves, *learned) if x.requires_grad]
    loss = sum((e * x).sum() for e, x in zip(errors, trace, strict=True) if e is not None)
    return Trace(*(x.detach() for x in trace)), torch.autograd.grad(loss, wanted, allow_unused=True)


def compare(kernel, method, neuron, surrogate, a, state, errors):
    trace, wanted = reference(method, neuron, surrogate, a, state, errors)
    learned = len(wanted) == 7
    got = reverse(kernel, method, neuron, surrogate, trace, state, errors, constants=learned)
    for x, y in zip((got[0], *got[2:]), wanted, strict=False):
        same(x, torch.zeros_like(x, device="cpu") if y is None else y)
    if not learned:
        assert all(x.numel() == 0 for x in got[5:])


# The fused scan.


@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
@pytest.mark.parametrize("reset", RESETS, ids=lambda r: r.__name__)
def test_forward_is_the_reference_to_the_last_bit(kernel, reset, dtype):
    bounds = [None, False] if reset is to_zero_with_input else [None, False, True]
    for k, (bound, fire, alpha) in enumerate(itertools.product(bounds, FIRES, (0.0, 0.7))):
        T, shape = ((9, (3, 43)), (1, (1, 1)), (16, (1, 2)))[k % 3]
        update = reset if bound is None else Bounded(reset, -0.25, before_input=bound)
        neuron = Neuron(alpha, 0.8, 0.9, update, fire)
        a, state = noise(k, T, *shape, dtype=dtype), states(k + 1, shape, dtype)
        with kernels.off():
            wanted = neuron.simulate(a, state=state)
        for x, y in zip(forward(kernel, neuron, a, state), wanted, strict=True):
            same(x, y, exact=True)


@pytest.mark.parametrize("seen", Reset, ids=lambda r: r.value)
@pytest.mark.parametrize("reset", RESETS, ids=lambda r: r.__name__)
def test_reverse_is_the_reference(kernel, reset, seen):
    """All resets, gradients, ways to fire and slopes; bounds, errors and synapses in turn."""
    for k, (fire, slope) in enumerate(itertools.product(FIRES, SLOPES)):
        T, shape = ((6, (2, 3)), (1, (1, 1)), (9, (1, 131)))[k % 16 % 3]
        bound = (None, False, True)[k % 3] if reset is not to_zero_with_input else (None, False)[k % 2]
        update = reset if bound is None else Bounded(reset, -0.25, before_input=bound)
        neuron = Neuron((0.0, 0.7)[k % 2], 0.8, 0.9, update, fire)
        surrogate = Near(slope, within=0.5) if k % 5 == 0 else slope
        errors = [noise(9 * k + j, T, *shape) if k % 7 & (1 << j) or k % 7 == 0 else None for j in range(3)]
        compare(kernel, Adjoint(seen), neuron, surrogate, noise(k, T, *shape), states(k + 1, shape), errors)


@pytest.mark.parametrize("seen", Reset, ids=lambda r: r.value)
def test_learned_constants(kernel, seen):
    for k, (reset, fire) in enumerate(itertools.product(RESETS, FIRES)):
        T, shape = ((7, (2, 5)), (1, (2, 2)))[k % 4 == 3]
        bound = (None, False, True)[k % 3] if reset is not to_zero_with_input else (None, False)[k % 2]
        update = reset if bound is None else Bounded(reset, -0.25, before_input=bound)
        constants = [(torch.rand(shape, generator=torch.Generator().manual_seed(k + j), dtype=F64) * 0.5 + low)
                     .requires_grad_() for j, low in enumerate((0.3, 0.45, 0.7))]  # fmt: skip
        neuron = Neuron(*constants, update, fire)
        errors = [noise(9 * k + j, T, *shape) for j in range(3)]
        compare(kernel, Adjoint(seen), neuron, FastSigmoid(0.3), noise(k, T, *shape), states(k, shape), errors)


def test_reverse_in_single_precision(kernel):
    for k, slope in enumerate(SLOPES):
        neuron = Neuron(0.7, 0.8, 0.9, RESETS[k % 5])
        a, state, e = noise(k, 11, 4, 33, dtype=F32), states(k + 1, (4, 33), F32), noise(99, 11, 4, 33, dtype=F32)
        compare(kernel, Adjoint(), neuron, slope, a, state, [None, None, e])


@pytest.mark.parametrize("method", [
    TSSLBP.authors_code(4.0), TSSLBP.paper(), TSSLBP(intra=False, tau_s=4.0), TSSLBP(leak=False, tau_s=4.0, largest=2),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
def test_tsslbp(kernel, method, dtype):
    neuron = Neuron(0.75, 0.8, 1.0, to_zero, Threshold(strict=True))
    for T, shape in ((13, (2, 70)), (1, (1, 1))):
        a, errors = noise(5, T, *shape, dtype=dtype) + 0.5, [noise(6, T, *shape, dtype=dtype) for _ in range(3)]
        state = neuron.start(a[0]) if method.fallback else states(7, shape, dtype)  # where a membrane above 1 can fall
        trace, (wanted,) = reference(method, neuron, FastSigmoid(), a, state, errors, linked=False)
        got = reverse(kernel, method, neuron, FastSigmoid(), trace, state, errors)
        assert T == 1 or (wanted != 0).any()
        same(got[0], wanted)


@pytest.mark.parametrize("reset", [to_zero_with_input, Bounded(subtract, -0.25, before_input=False)])
def test_a_sequence_in_two_pieces(kernel, reset):
    """lam, kap and I of the step after the last carry the recursion on: bit for bit, since nothing else changes."""
    neuron, surrogate, state = Neuron(0.7, 0.8, 0.9, reset), FastSigmoid(0.3), states(2, (3, 5))
    errors = [noise(j, 10, 3, 5) for j in range(3)]
    trace = Trace(*(x.cpu() for x in forward(kernel, neuron, noise(1, 10, 3, 5), state)))
    whole = reverse(kernel, Adjoint(), neuron, surrogate, trace, state, errors)
    for cut in (1, 4, 9):
        middle = State(*(x[cut - 1] for x in trace))
        late, early = (Trace(*(x[piece] for x in trace)) for piece in (slice(cut, None), slice(cut)))
        second = reverse(kernel, Adjoint(), neuron, surrogate, late, middle, [e[cut:] for e in errors])
        later = (second[1], second[0][0], trace.I[cut])
        first = reverse(kernel, Adjoint(), neuron, surrogate, early, state, [e[:cut] for e in errors], later=later)
        same(torch.cat([first[0], second[0]]), whole[0].cpu(), exact=True)
        for x, y in zip(first[1:5], whole[1:5], strict=True):
            same(x, y.cpu(), exact=True)
    alone = reverse(kernel, Adjoint(), neuron, surrogate, early, state, [e[:cut] for e in errors])
    assert not torch.equal(alone[0].cpu(), whole[0][:cut].cpu())


def test_errors_that_are_the_same_at_every_step_are_not_copied(kernel):
    neuron, state, a = Neuron(0.7, 0.8, 0.9), states(2, (3, 5)), noise(1, 6, 3, 5)
    trace = Trace(*(x.cpu() for x in forward(kernel, neuron, a, state)))
    steady, turned = noise(3, 3, 5).expand(6, 3, 5), noise(4, 5, 3, 6).permute(2, 1, 0)
    got = reverse(kernel, Adjoint(), neuron, FastSigmoid(), trace, state, [turned, steady, steady])
    wanted = reverse(kernel, Adjoint(), neuron, FastSigmoid(), trace, state,
                     [x.contiguous() for x in (turned, steady, steady)])  # fmt: skip
    same(got[0], wanted[0].cpu(), exact=True)


def test_what_does_not_fit_is_refused(kernel):
    driver, device = kernel
    neuron, a, state = Neuron(0.7, 0.8, 0.9), noise(1, 6, 3, 5), states(2, (3, 5))
    numbers, kinds = fused.shape(neuron)
    x = put(device, a, *state)
    with pytest.raises(ValueError, match=r"U before the first step must be torch.float64 of shape \(3, 5\)"):
        driver.scan_forward(x[0], x[1], x[2][:, :4], x[3], [], numbers, kinds)
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        driver.scan_forward(x[0], x[1], x[2], x[3].float(), [], numbers, kinds)
    with pytest.raises(ValueError, match=r"float32 or float64, got torch\.float16"):
        driver.scan_forward(x[0].half(), *x[1:], [], numbers, kinds)
    with pytest.raises(RuntimeError, match="snn_scan_forward: the kernel was not launched: cudaErrorInvalidValue"):
        driver.scan_forward(*x, [], numbers, (9, 0, 0, 1))
    with pytest.raises(ValueError, match="looks at the current I"):
        driver.scan_reverse(None, None, x[0], None, *x[:1], *x[1:], None, None, None, None, [], numbers, kinds,
                            (1.0, 1.0, 1.0), (), (0, 1, 0, 0), True)  # fmt: skip
    empty = driver.scan_forward(x[0][:0], *x[1:], [], numbers, kinds)
    assert [y.shape for y in empty] == [(0, 3, 5)] * 3


# The compiler, the cache, and a GPU.


@pytest.fixture(scope="module")
def nvcc():
    if cuda.nvcc() is None:
        pytest.skip("no nvcc; install the CUDA toolkit, or set CUDA_HOME to its folder")
    if shutil.which("g++") is None:
        pytest.skip("nvcc needs a C++ compiler of the host; install g++")
    return cuda.nvcc()


def test_nvcc_compiles_for_every_architecture_and_nothing_spills(nvcc, tmp_path):
    """With the flags of the build, into a library that loads without a GPU and then says what is missing."""
    architectures, library = (75, 80, 90, 100), tmp_path / "all.so"
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
    more = ("-Werror=all-warnings", "-Xptxas=-v", "--threads=2")
    done = subprocess.run(
        [nvcc, *cuda.FLAGS, *more, *targets, "-o", library, *SOURCES], capture_output=True, text=True, cwd=tmp_path
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for n in architectures:
        assert said.count(f"for 'sm_{n}'") >= 22 + 19  # kernels of scan.cu and events.cu
    frames = [line.strip() for line in said.splitlines() if "bytes stack frame" in line]
    assert len(frames) == said.count("Compiling entry function")
    assert set(frames) == {"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"}
    registers = [int(line.split("Used ")[1].split()[0]) for line in said.splitlines() if "registers" in line]
    assert len(registers) == len(frames)
    assert max(registers) <= 128  # of 65536: four blocks of 128 threads at once
    loaded = ctypes.CDLL(str(library))
    EventDriver(loaded, "cuda")
    assert loaded.snn_error(1) == b"cudaErrorInvalidValue"
    if not torch.cuda.is_available():
        code = loaded.snn_events_count(None, None, ctypes.c_int64(1), None)
        assert code != 0
        assert b"cudaError" in loaded.snn_error(code)


NEEDS_A_BARRIER = """
namespace snn {
__global__ void turned(const float* from, float* to, bool waits) {
  __shared__ float kept[64];
  kept[threadIdx.x] = from[threadIdx.x];
  if (waits) __syncthreads();
  to[threadIdx.x] = kept[63 - threadIdx.x];
}
__global__ void parted(float* to) {
  if (threadIdx.x < 40) __syncthreads();
  to[threadIdx.x] = 1;
}
}
extern "C" void turn(const float* from, float* to, int waits) {
  snn::launch(snn::turned, 1, 64, nullptr, from, to, bool(waits));
}
extern "C" void part(float* to) { snn::launch(snn::parted, 1, 64, nullptr, to); }
"""


def test_the_emulation_shows_a_missing_barrier(tmp_path):
    """The control: with a barrier both orders agree, without one they do not; a barrier that some miss ends it all."""
    (tmp_path / "barrier.cu").write_text(NEEDS_A_BARRIER)
    library = emulation(tmp_path, [tmp_path / "barrier.cu"])

    def turned(waits, reversed):
        x, y = torch.arange(64, dtype=F32), torch.zeros(64)
        library.cuda_on_cpu_order(reversed)
        library.turn(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), waits)
        return y

    assert not torch.equal(turned(0, 0), torch.arange(63.0, -1, -1))
    assert torch.equal(turned(1, 0), torch.arange(63.0, -1, -1))
    assert torch.equal(turned(1, 1), turned(1, 0))
    code = f"import ctypes as c; l = c.CDLL({str(tmp_path / 'emulated.so')!r}); l.part(c.byref((c.c_float * 64)()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "__syncthreads is not reached by all threads" in done.stderr


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_nvcc(folder, monkeypatch, script):
    """A program in nvcc's place, which notes each time that it is asked to compile."""
    folder.mkdir()
    path = folder / "nvcc"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo release 1, V1; exit; fi\necho x >> {folder}/runs\n{script}'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return lambda: len((folder / "runs").read_text().split())


def test_compiled_once_and_found_again(tmp_path, own_cache, monkeypatch, capfd):
    runs = fake_nvcc(tmp_path / "bin", monkeypatch, 'while [ "$1" != -o ]; do shift; done; echo made > "$2"\n')
    library = cuda.make(cuda.plan("sm_90"))
    assert library.read_text() == "made\n"
    assert cuda.make(cuda.plan("sm_90")) == library
    assert runs() == 1
    assert "compiling its CUDA kernels" in capfd.readouterr().err
    assert cuda.make(cuda.plan("sm_80")) != library
    assert runs() == 2
    library.write_text("half")  # what does not match its sum is made again
    cuda.make(cuda.plan("sm_90"))
    assert runs() == 3
    assert not list(own_cache.glob("*.tmp"))


def test_what_nvcc_says_is_handed_on(tmp_path, own_cache, monkeypatch):
    fake_nvcc(tmp_path / "bin", monkeypatch, "echo 'nvcc fatal: Unsupported gpu architecture' >&2; exit 1\n")
    with pytest.raises(kernels.BuildError, match=r"Unsupported gpu architecture"):
        cuda.make(cuda.plan("sm_999"))
    assert not list(own_cache.glob("*.so"))


def test_a_build_that_fails_is_warned_of_once_and_not_tried_for_little(tmp_path, own_cache, monkeypatch):
    runs = fake_nvcc(tmp_path / "bin", monkeypatch, "echo 'x.cu(1): error: no' >&2; exit 1\n")
    monkeypatch.setattr(cuda, "_failure", None)
    monkeypatch.setattr(cuda, "missing", lambda: None)
    monkeypatch.setattr(cuda, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(kernels, "ready", lambda work: True)
    device = torch.device("cuda")
    assert not cuda.ready(device, kernels.WORTH - 1)
    assert "not built yet" in cuda.status()
    assert not (tmp_path / "bin" / "runs").exists()
    with pytest.warns(UserWarning, match="goes on without its kernels for the GPU"):
        assert not cuda.ready(device, kernels.WORTH)
    assert not cuda.ready(device, kernels.WORTH)
    assert runs() == 1
    assert cuda.status().startswith("not available: ")
    assert "x.cu(1): error: no" in cuda.status()


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert cuda.status() == "not available: this build of torch has no CUDA; install a CUDA build of torch"
    with pytest.raises(kernels.MissingTool, match="install a CUDA build of torch"):
        cuda.driver(torch.device("cuda"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU or driver was found" in cuda.status()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "nvcc", lambda: None)
    assert "no nvcc; install the CUDA toolkit 13.0" in cuda.status()
    with pytest.raises(kernels.MissingTool, match="no nvcc"):
        cuda.plan("sm_90")


def test_streams_devices_and_the_ops_on_a_gpu(gpu, request):
    request.getfixturevalue("compiled")  # now, and not before it is known that there is a GPU
    assert cuda.ready(gpu, kernels.WORTH)
    neuron, state = Neuron(0.7, 0.8, 0.9), states(2, (64, 256), F32)
    numbers, kinds = fused.shape(neuron)
    a = noise(1, 50, 64, 256, dtype=F32)
    wanted = neuron.simulate(a, state=state)
    for device in (torch.device("cuda", n) for n in range(torch.cuda.device_count())):
        stream = torch.cuda.Stream(device)
        x = [y.to(device) for y in state]
        with torch.cuda.stream(stream):
            late = torch.zeros_like(a, device=device)
            torch.cuda._sleep(100_000_000)  # a launch on another stream would not see the copy after this
            late.copy_(a, non_blocking=True)
            got = torch.ops.snnlearn.scan_forward(late, *x, [], numbers, kinds)
        stream.synchronize()
        for y, z in zip(got, wanted, strict=True):
            assert y.device == device
            same(y, z, exact=True)
