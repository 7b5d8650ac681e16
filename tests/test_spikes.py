"""Spikes as bits: there and back, with and without the kernels; what carries the gradient; what is refused."""

import copy

import pytest
import torch
from kernel_tools import compiled as compiled

from snnlearn import kernels
from snnlearn.spikes import Spikes, _pack, count, unpack, words

SIZES = [1, 63, 64, 65, 100, 128, 700]


@pytest.fixture(params=["kernels", "torch"])
def way(request):
    """Both ways give the same bits."""
    if request.param == "kernels":
        request.getfixturevalue("compiled")
        yield request.param
    else:
        with kernels.off():
            yield request.param


def drawn(T=5, B=3, N=100, p=0.3, seed=0):
    return (torch.rand(T, B, N, generator=torch.Generator().manual_seed(seed)) < p).float()


@pytest.mark.parametrize("N", SIZES)
def test_there_and_back(N, way):
    x = drawn(N=N)
    spikes = Spikes.pack(x)
    assert spikes.shape == (5, 3, N)
    assert spikes.bits.shape == (5, 3, words(N)) == (5, 3, -(-N // 64))
    assert torch.equal(spikes.dense(), x)
    assert spikes.density() == pytest.approx(x.mean().item())
    for t, b, k in ((0, 0, 0), (4, 2, words(N) - 1)):
        ones = [j for j in range(64) if 64 * k + j < N and x[t, b, 64 * k + j]]
        assert [j for j in range(64) if spikes.bits[t, b, k].item() >> j & 1] == ones
    other = x.clone()
    other[2, 1, N - 1] = 1 - other[2, 1, N - 1]  # one neuron: one bit
    changed = Spikes.pack(other).bits ^ spikes.bits
    assert count(changed) == 1
    assert changed[2, 1, (N - 1) // 64].item() & (2**64 - 1) == 1 << (N - 1) % 64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bool, torch.uint8, torch.float32])
def test_dtypes(dtype, way):
    x = drawn()
    assert torch.equal(Spikes.pack(x.to(dtype)).bits, Spikes.pack(x).bits)
    assert torch.equal(Spikes.pack(x).dense(dtype), x.to(dtype))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_and_none(p, way):
    spikes = Spikes.pack(drawn(p=p, N=130))
    assert spikes.density() == p
    assert torch.equal(spikes.dense(), torch.full((5, 3, 130), p))
    assert spikes.bits[..., 0].unique().item() == -p  # 64 ones are -1


def test_strided_and_expanded(way):
    x = drawn(B=6, N=140)
    for view in (x[:, ::2], x[..., ::2], x.transpose(0, 1), x[::2, 1:4, 5:75], x[:1].expand(4, 6, 140)):
        assert torch.equal(Spikes.pack(view).dense(), view)
        assert torch.equal(Spikes.pack(view).bits, Spikes.pack(view.contiguous()).bits)
    bits = Spikes.pack(x).bits
    assert torch.equal(unpack(bits[:, ::2], 140), x[:, ::2])
    assert count(bits[:, ::2]) == x[:, ::2].sum()


@pytest.mark.parametrize("N", SIZES)
def test_the_kernels_and_torch_agree(N, compiled):
    x = drawn(N=N)
    packed, dense, number = _pack(x), unpack(_pack(x), N), count(_pack(x))
    with kernels.off():
        assert torch.equal(_pack(x), packed)
        assert torch.equal(unpack(packed, N), dense)
        assert count(packed) == number == x.sum()


# What carries the gradient.


def test_the_tensor_that_was_packed_carries_its_gradient(way):
    x = drawn().requires_grad_()
    spikes = Spikes.pack(x)
    assert spikes.carrier is x
    assert spikes.near is None
    e = torch.randn(5, 3, 100, generator=torch.Generator().manual_seed(1))
    (spikes.dense() * e).sum().backward()
    assert torch.equal(x.grad, e)
    assert not Spikes.pack(drawn()).dense().requires_grad


def test_a_carrier_of_every_neuron_without_memory():
    x = drawn()
    seed = torch.zeros((), requires_grad=True)
    carrier = seed.expand(5, 3, 100)
    assert carrier.stride() == (0, 0, 0)
    seen = []
    carrier.register_hook(seen.append)
    Spikes(Spikes.pack(x).bits, 100, carrier).dense().square().sum().backward()
    assert torch.equal(seen[0], 2 * x)


def test_a_carrier_of_the_near_neurons():
    x, near = drawn(), drawn(p=0.1, seed=2)
    carrier = torch.zeros(int(near.sum()), requires_grad=True)
    e = torch.randn(5, 3, 100, generator=torch.Generator().manual_seed(1))
    spikes = Spikes(Spikes.pack(x).bits, 100, carrier, Spikes.pack(near).bits)
    (spikes.dense() * e).sum().backward()
    wanted = [e[t, b, j] for b in range(3) for t in range(5) for j in range(100) if near[t, b, j]]
    assert torch.equal(carrier.grad, torch.stack(wanted))


def test_another_dtype_of_the_carrier():
    x = drawn().double().requires_grad_()
    Spikes.pack(x).dense().sum().backward()
    assert x.grad.dtype == torch.float64
    assert (x.grad == 1).all()


# What is refused.


@pytest.mark.parametrize("bad", [0.5, 2.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 70, 139])
def test_what_is_neither_0_nor_1(bad, place, way):
    x = drawn(N=140)
    Spikes.pack(x)
    x[3, 2, place] = bad
    with pytest.raises(ValueError, match=r"spikes are 0 or 1 and the tensor holds something else"):
        Spikes.pack(x)
    with pytest.raises(ValueError, match=r"spikes are 0 or 1"):
        Spikes.pack(x.double())


def test_uint8_beyond_1(way):
    with pytest.raises(ValueError, match="spikes are 0 or 1"):
        Spikes.pack(torch.full((2, 2, 2), 3, dtype=torch.uint8))


def test_refused_tensors():
    for bad in (torch.zeros(2, 2, 2, dtype=torch.int64), torch.zeros(2, 2, 2, dtype=torch.complex64), [0, 1], None):
        with pytest.raises(TypeError, match=r"must be a floating-point, boolean or uint8 tensor \(T, B, N\)"):
            Spikes.pack(bad)
    for shape in ((2, 2), (2, 2, 2, 2), (0, 2, 2), (2, 0, 2), (2, 2, 0)):
        with pytest.raises(ValueError, match=r"must be \(T, B, N\), each at least 1"):
            Spikes.pack(torch.zeros(shape))


def test_refused_parts():
    good = Spikes.pack(drawn())
    with pytest.raises(TypeError, match="bits must be an int64 tensor"):
        Spikes(good.bits.int(), 100)
    with pytest.raises(TypeError, match="bits must be an int64 tensor"):
        Spikes(None, 100)
    for size in (64, 129):
        with pytest.raises(ValueError, match=r"bits must be \(T, B, "):
            Spikes(good.bits, size)
    with pytest.raises(ValueError, match=r"bits must be \(T, B, 2\)"):
        Spikes(good.bits[0], 100)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Spikes(good.bits, 0)
    with pytest.raises(ValueError, match="bits set beyond its 99 neurons"):
        Spikes(Spikes.pack(torch.ones(1, 1, 100)).bits, 99)
    Spikes(Spikes.pack(torch.ones(1, 1, 100)).bits, 100)
    Spikes(Spikes.pack(torch.ones(1, 1, 128)).bits, 128)  # the last bit of a word is its sign
    with pytest.raises(ValueError, match="near has bits set beyond"):
        Spikes(good.bits, 100, torch.zeros(1), torch.full_like(good.bits, -1))
    with pytest.raises(ValueError, match="near has shape"):
        Spikes(good.bits, 100, torch.zeros(1), good.bits[:2])
    with pytest.raises(ValueError, match=r"carrier of an error of every neuron must have shape \(5, 3, 100\)"):
        Spikes(good.bits, 100, torch.zeros(7))
    with pytest.raises(ValueError, match="carrier of errors of near neurons must have one axis"):
        Spikes(good.bits, 100, torch.zeros(5, 3, 100), good.bits)
    with pytest.raises(TypeError, match="carrier of a gradient must be a floating-point tensor"):
        Spikes(good.bits, 100, good.bits)


def test_a_container():
    spikes = Spikes.pack(drawn())
    assert torch.equal(copy.deepcopy(spikes).bits, spikes.bits)
    with pytest.raises(AttributeError):
        spikes.size = 3


def test_ops(compiled):
    x = drawn()
    for op, arguments in (("pack_bits", (x,)), ("unpack_bits", (_pack(x), 100)), ("bits_set", (_pack(x),))):
        torch.library.opcheck(getattr(torch.ops.snnlearn, op), arguments)
