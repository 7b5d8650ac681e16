"""The CUDA kernels that are driven by events against dense torch, run on the CPU and where there is one on a GPU."""

import pytest
import torch
from cuda_tools import F32, RESETS, SLOPES, noise, put, same
from cuda_tools import emulated as emulated
from cuda_tools import kernel as kernel
from kernel_tools import compiled as compiled

from snnlearn import eventpath, kernels, lif, readout
from snnlearn.eventlayers import LinearLIF
from snnlearn.eventpath import Path
from snnlearn.kernels import cuda
from snnlearn.neurons import Analog, Neuron, Threshold
from snnlearn.resets import no_reset, subtract, to_zero_with_input
from snnlearn.sparse import Near
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Adjoint, Reset, fused

EVENT_SHAPES = ((70, 2, 70, 130), (1, 1, 1, 1), (64, 3, 64, 64), (129, 1, 5, 65))  # T, B, inputs, outputs


def bits_of(x):
    """0 and 1 (T, B, N) as words (T, B, words), written out."""
    words = torch.nn.functional.pad(x.bool(), (0, -x.shape[2] % 64)).unflatten(2, (-1, 64)).long()
    return (words << torch.arange(64)).sum(-1)


def in_order(x, mask, *axes):
    """The values where a mask holds, read in this order of axes."""
    return x.permute(*axes)[mask.permute(*axes)]


class Events:
    """A layer and what dense torch makes of it. Weights are multiples of 1/8, so that their sums have no rounding."""

    def __init__(self, seed, shape, reset, fire, alpha=0.7, within=0.3):
        (self.T, self.B, self.inputs, self.outputs), self.within = shape, within
        self.x = (noise(seed, *shape[:3]) > 1.0).float()
        self.W = (8 * noise(seed + 1, shape[3], shape[2]).clamp(-2, 2)).round().float() / 8 + 0.125
        self.bias = (8 * noise(seed + 2, shape[3]) / 4).round().float() / 8 + 0.25
        self.neuron = Neuron(alpha, 0.8, 1.0, reset, fire)
        self.numbers, kinds = fused.shape(self.neuron)
        self.kinds = (kinds[0], kinds[2])
        self.a = (self.x @ self.W.T + self.bias).requires_grad_()

    def trace(self, method, surrogate):
        with kernels.off():
            return method.run(self.neuron, surrogate, self.a)

    def arrays(self, driver, device):
        """Spikes, weights by blocks, bias by blocks."""
        bias = torch.nn.functional.pad(self.bias, (0, -self.outputs % 64)).view(-1, 64)
        return put(device, bits_of(self.x), driver.events_blocks(self.W.to(device)), bias)

    def wanted(self, kap, below):
        """dL/dW, dL/dbias, dL/da, and the errors at some neurons below in the order of (b, t, neuron)."""
        return torch.einsum("tbo,tbi->oi", kap, self.x), kap.sum((0, 1)), kap, in_order(kap @ self.W, below, 1, 0, 2)


@pytest.fixture(params=[0, 1], ids=["in order", "reversed"])
def order(request, emulated):
    """Which threads of a block go first, in the emulation."""
    emulated[0].cuda_on_cpu_order(request.param)
    yield
    emulated[0].cuda_on_cpu_order(0)


@pytest.mark.parametrize("fire", [Threshold(), Threshold(strict=True)], ids=["reach", "exceed"])
@pytest.mark.parametrize("reset", RESETS, ids=lambda r: r.__name__)
def test_events_forward(kernel, order, reset, fire):
    driver, device = kernel
    for k, shape in enumerate(EVENT_SHAPES):
        layer = Events(k, shape, reset, fire, within=(0.3, 1.5)[k // 2])  # 1.5: outputs that fill up a block are near
        _, U, s = layer.trace(Adjoint(), FastSigmoid())
        close = (U - 1).abs() < layer.within
        assert k == 1 or (s.any() and close.any() and not close.all())
        numbers = (*layer.numbers[:3], layer.within)
        arrays = layer.arrays(driver, device)
        out = driver.events_forward(*arrays, layer.outputs, numbers, layer.kinds, True, True)
        blocks = torch.nn.functional.pad(U, (0, -layer.outputs % 64)).unflatten(2, (-1, 64))
        near = torch.nn.functional.pad(close, (0, -layer.outputs % 64)).unflatten(2, (-1, 64))
        for x, y in zip(out[:3], (bits_of(s), bits_of(close), in_order(blocks, near, 1, 2, 0, 3)), strict=True):
            same(x, y, exact=True)
        assert out[3].numel() == 0
        for chunk in range(1, out[4].shape[2]):
            same(out[4][:, :, chunk, 1], blocks[64 * chunk - 1], exact=True)
        plain = driver.events_forward(*arrays, layer.outputs, numbers, layer.kinds, False, False)
        same(plain[0], bits_of(s), exact=True)
        assert [x.numel() for x in plain[1:]] == [0] * 4


@pytest.mark.parametrize("seen", Reset, ids=lambda r: r.value)
@pytest.mark.parametrize("reset", RESETS, ids=lambda r: r.__name__)
def test_events_backward(kernel, reset, seen):
    """A dense error, and errors at near neurons alone: the same gradients, since the slope is zero elsewhere."""
    driver, device = kernel
    for k, shape in enumerate(EVENT_SHAPES):
        layer = Events(k + 10, shape, reset, Threshold(strict=k % 2 == 1), alpha=(0.7, 0.0)[k % 2])
        surrogate = Near(SLOPES[(k + RESETS.index(reset)) % 8], layer.within)
        trace, e = layer.trace(Adjoint(seen), surrogate), noise(k, *layer.a.shape, dtype=F32)
        below = noise(k + 1, *layer.x.shape) > 0.5
        wanted = layer.wanted(torch.autograd.grad(trace.s, layer.a, e)[0], below)
        arrays = layer.arrays(driver, device)
        found = driver.events_forward(
            *arrays, layer.outputs, (*layer.numbers[:3], layer.within), layer.kinds, True, True
        )
        slope = fused.slope(surrogate)
        how = (layer.outputs, (*layer.numbers[:3], *slope.numbers), (*layer.kinds, slope.code, fused.SEEN[seen]), True)
        asked = (bits_of(below).to(device), int(below.sum()))
        got = driver.events_backward(*arrays, e.to(device), found[4], None, None, None, None, *asked, *how)
        for x, y in zip(got, wanted, strict=True):
            same(x, y)
        again = driver.events_backward(*arrays, e.to(device), found[4], None, None, None, None, *asked, *how)
        assert all(torch.equal(x, y) for x, y in zip(got, again, strict=True))
        close = (trace.U - 1).abs() < layer.within
        values = in_order(e, close, 1, 0, 2).to(device)
        sparse = (*arrays, None, None, values, found[1], found[2], found[0], *asked, *how)
        if reset is to_zero_with_input and seen is not Reset.IGNORED:
            with pytest.raises(ValueError, match="no sparse gradient"):
                driver.events_backward(*sparse)
            continue
        for x, y in zip(driver.events_backward(*sparse), wanted, strict=True):
            same(x, y)


def test_events_readout(kernel):
    driver, device = kernel
    for k, shape in enumerate(EVENT_SHAPES):
        layer = Events(k + 20, shape, no_reset, Analog())
        trace, e = layer.trace(Adjoint(), FastSigmoid()), noise(k, *layer.a.shape, dtype=F32)
        below = noise(k + 1, *layer.x.shape) > 0.5
        arrays = layer.arrays(driver, device)
        out = driver.events_forward(*arrays, layer.outputs, (*layer.numbers[:3], 1.0), layer.kinds, True, True)
        same(out[3], trace.U, exact=True)
        assert [x.numel() for x in (*out[:3], out[4])] == [0] * 4
        got = driver.events_backward(
            *arrays, e.to(device), None, None, None, None, None, bits_of(below).to(device), int(below.sum()),
            layer.outputs, (*layer.numbers[:3], 1.0, 1.0, 1.0), (*layer.kinds, 0, 0), False,
        )  # fmt: skip
        wanted = layer.wanted(torch.autograd.grad(trace.U, layer.a, e)[0], below)
        for x, y in zip((*got[:2], got[3]), (*wanted[:2], wanted[3]), strict=True):
            same(x, y)
        assert got[2].numel() == 0


def test_events_that_do_not_fit_are_refused(kernel):
    driver, device = kernel
    layer = Events(1, (3, 2, 70, 5), subtract, Threshold())
    spikes, weight, bias = layer.arrays(driver, device)
    numbers = (*layer.numbers[:3], 1.0)
    with pytest.raises(ValueError, match=r"spikes must be torch.int64 of shape \(3, 2, 2\)"):
        driver.events_forward(spikes[:, :, :1], weight, bias, 5, numbers, layer.kinds, False, False)
    with pytest.raises(ValueError, match=r"weight must be torch.float32 of shape \(2, 70, 64\)"):
        driver.events_forward(spikes, weight, bias, 65, numbers, layer.kinds, False, False)
    with pytest.raises(ValueError, match="at most one spike a step"):
        driver.events_forward(spikes, weight, bias, 5, numbers, (0, 2), False, False)
    back = (5, (*layer.numbers[:3], 1.0, 1.0, 1.0), (*layer.kinds, 0, 0), False)
    with pytest.raises(ValueError, match="either a dense error or values"):
        driver.events_backward(spikes, weight, bias, *([None] * 7), 0, *back)
    e = torch.zeros(3, 2, 5, device=device)
    with pytest.raises(ValueError, match="made again from checkpoints"):
        driver.events_backward(spikes, weight, bias, e, *([None] * 6), 0, *back)


class Emulated:
    """torch, with the emulated launches behind its ops."""

    def __init__(self, driver):
        self.ops = type("ops", (), {"snnlearn": driver})

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.mark.parametrize("within", [None, 0.3])
def test_layers_of_events_by_the_launches(compiled, emulated, monkeypatch, within):
    """Two layers and a readout, so that every result of the backward op has its use; against the CPU's ops."""
    inner = FastSigmoid(0.05)
    surrogate = inner if within is None else Near(inner, within)
    generator = torch.Generator().manual_seed(0)
    sizes = ((70, 65, lif()), (65, 40, lif()), (40, 5, readout()))
    model = torch.nn.Sequential(
        *(LinearLIF(i, o, neuron, surrogate=surrogate, path=Path.EVENTS, generator=generator) for i, o, neuron in sizes)
    )
    with torch.no_grad():
        for layer in model:
            layer.weight.mul_(4).mul_(64).round_().div_(64)
            layer.bias.zero_()
    x = (torch.rand(70, 3, 70, generator=generator) < 0.1).float().requires_grad_()
    found = []
    for launches in (False, True):
        if launches:
            monkeypatch.setattr(eventpath, "torch", Emulated(emulated[1]))
        U = model(x)
        gradients = torch.autograd.grad(U.square().sum(), [x, *model.parameters()])
        assert all(g.abs().max() > 0 for g in gradients)
        assert model[0].report.sparse == (within is not None)
        found.append((U, *gradients))
    for ours, theirs in zip(*found, strict=True):
        same(theirs, ours)


def test_the_ops_of_the_cpu_have_twins_for_cuda(compiled, emulated):
    """The same arguments, the same results in the same order; and the dispatcher finds them for CUDA tensors."""
    driver, ops = emulated[1], torch.ops.snnlearn
    layer = Events(3, EVENT_SHAPES[0], subtract, Threshold())
    numbers = (*layer.numbers[:3], layer.within)
    arrays = (bits_of(layer.x), driver.events_blocks(layer.W), None)
    same(arrays[1], ops.events_blocks(layer.W), exact=True)
    found = driver.events_forward(*arrays, layer.outputs, numbers, layer.kinds, True, True)
    for x, y in zip(found, ops.events_forward(*arrays, layer.outputs, numbers, layer.kinds, True, True), strict=True):
        same(x, y, exact=True)
    back = (layer.outputs, (*layer.numbers[:3], 2.5, 1.0, layer.within), (*layer.kinds, 1, 0), True)
    values, below = noise(1, len(found[2]), dtype=F32), bits_of(noise(2, *layer.x.shape) > 1)
    sparse = (
        *arrays,
        None,
        None,
        values,
        found[1],
        found[2],
        found[0],
        below,
        int((noise(2, *layer.x.shape) > 1).sum()),
    )
    for x, y in zip(driver.events_backward(*sparse, *back), ops.events_backward(*sparse, *back), strict=True):
        same(x, y)
    dense = (*arrays, noise(5, *layer.a.shape, dtype=F32), found[4], *([None] * 4), None, 0, *back[:3], False, layer.W)
    for x, y in zip(driver.events_backward(*dense), ops.events_backward(*dense), strict=True):
        same(x, y)
    with pytest.raises(ValueError, match="either dL/da is wanted"):
        driver.events_backward(*dense[:-2], True, layer.W)
    drive = noise(4, *layer.a.shape, dtype=F32)
    same(driver.events_down(drive, layer.W), ops.events_down(drive, layer.W))
    same(driver.pack_bits(layer.x), ops.pack_bits(layer.x), exact=True)
    same(driver.unpack_bits(arrays[0], layer.inputs), ops.unpack_bits(arrays[0], layer.inputs), exact=True)
    for pack in (driver.pack_bits, ops.pack_bits):
        with pytest.raises(ValueError, match="spikes are 0 or 1"):
            pack(layer.x + 1)
    cuda.register()
    cuda.register()
    for name in cuda.OPS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"snnlearn::{name}", "CUDA")
