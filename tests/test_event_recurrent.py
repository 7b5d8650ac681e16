"""The recurrent layer driven by events against a plain loop: spikes to the last bit, every gradient, every knob."""

import math

import pytest
import torch
from kernel_tools import compiled as compiled
from torch import nn
from torch.nn import functional as F

from snnlearn import kernels, surrogate
from snnlearn.eventrecurrent import RecurrentLIF, _known, recurrent_lif
from snnlearn.kernels import codes
from snnlearn.neurons import Neuron, Threshold, readout
from snnlearn.resets import Bounded, no_reset, subtract, subtract_decayed, to_zero, to_zero_with_input
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes, unpack
from snnlearn.surrogate import SHAPES, FastSigmoid, PiecewiseLinear
from snnlearn.temporal import Adjoint, Reset, Unrolled

SIXTY_FOURTH = 2.0**-6
NEURON = Neuron(0.75, 0.875, 1.0)


@pytest.fixture(autouse=True)
def loaded(request):
    if "without" not in request.node.name:
        request.getfixturevalue("compiled")


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, U, theta, strict, shape):
        ctx.save_for_backward(U - theta)
        ctx.shape = shape
        x = U - theta
        return (x > 0 if strict else x >= 0).to(U.dtype)

    @staticmethod
    def backward(ctx, e):
        return e * ctx.shape.slope(ctx.saved_tensors[0]), None, None, None


def loop(a, V, neuron, shape, seen=Reset.KEPT):
    """The layer as a beginner writes it; autograd does the rest."""
    I = U = s = torch.zeros_like(a[0])
    out = []
    for x in a.unbind(0):
        back = s.detach() if seen is not Reset.KEPT else s
        I = neuron.alpha * I + (x + F.linear(s, V))
        if seen is Reset.IGNORED:  # the value of the reset, the gradient of none
            free = no_reset(U, back, I, neuron.beta, neuron.theta)
            U = free + (neuron.reset(U, back, I, neuron.beta, neuron.theta) - free).detach()
        else:
            U = neuron.reset(U, back, I, neuron.beta, neuron.theta)
        s = Spike.apply(U, neuron.theta, neuron.fire.strict, shape)
        out.append(s)
    return torch.stack(out)


def coarse(x):
    """Multiples of 2**-6, whose sums float32 has exactly: any order of additions gives the same spikes."""
    return (x / SIXTY_FOURTH).round() * SIXTY_FOURTH


def problem(T, B, N, seed=0, drive=0.4):
    g = torch.Generator().manual_seed(seed)
    a = coarse(torch.randn(T, B, N, generator=g) * drive)
    V = coarse(torch.randn(N, N, generator=g) / N**0.5)
    return a, V, torch.randn(T, B, N, generator=g)


def gradients(run, a, V, e):
    a, V = a.clone().requires_grad_(), V.clone().requires_grad_()
    s = run(a, V)
    s.backward(e)
    return s.detach(), a.grad, V.grad


def by_events(neuron=NEURON, shape=FastSigmoid(0.1), seen=Reset.KEPT, temporal=None):
    return lambda a, V: recurrent_lif(a, V, neuron, shape, temporal or Adjoint(seen)).dense()


def by_loop(neuron=NEURON, shape=FastSigmoid(0.1), seen=Reset.KEPT):
    return lambda a, V: loop(a, V, neuron, shape, seen)


def distance(x, y):
    return float((x.double() - y.double()).norm() / y.double().norm().clamp(min=1e-30))


def agree(a, V, e, neuron=NEURON, shape=FastSigmoid(0.1), seen=Reset.KEPT, tolerance=2e-5):
    s, da, dV = gradients(by_events(neuron, shape, seen), a, V, e)
    s64, da64, dV64 = gradients(by_loop(neuron, shape, seen), a.double(), V.double(), e.double())
    assert torch.equal(s.double(), s64)
    assert distance(da, da64) < tolerance
    assert distance(dV, dV64) < tolerance
    return s, da, dV


@pytest.mark.parametrize(
    "size", [(1, 1, 1), (1, 3, 200), (2, 1, 65), (17, 9, 64), (40, 11, 65), (33, 8, 200), (48, 19, 1), (70, 130, 3)]
)
def test_spikes_and_gradients_are_those_of_the_loop(size):
    s, da, dV = agree(*problem(*size))
    if size[0] > 2 and size[2] > 1:
        assert 0.02 < s.mean() < 0.6
        assert dV.norm() > 0
    assert da.norm() > 0


RESETS = (subtract, subtract_decayed, to_zero, no_reset)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seen", Reset)
def test_resets_and_what_the_gradient_sees_of_them(reset, strict, seen):
    # a short memory keeps the products of many carries within what float32 can tell
    neuron = Neuron(0.5, 0.75, 1.0, reset, Threshold(strict))
    agree(*problem(35, 9, 70), neuron, FastSigmoid(0.3), seen, tolerance=1e-4)


def test_the_resets_and_the_choices_differ():
    """A control: were a knob without effect, the test above could not tell."""
    a, V, e = problem(35, 9, 70)
    found = {}
    for reset in RESETS:
        for strict in (False, True):
            neuron = Neuron(0.5, 0.75, 1.0, reset, Threshold(strict))
            for seen in Reset:
                s, da, _ = gradients(by_events(neuron, FastSigmoid(0.3), seen), a, V, e)
                found[reset.__name__, strict, seen] = s, da
    for strict in (False, True):
        spikes = [found[reset.__name__, strict, Reset.KEPT][0] for reset in RESETS]
        assert all(not torch.equal(x, y) for i, x in enumerate(spikes) for y in spikes[:i])
    for reset in (subtract, subtract_decayed, to_zero):
        kept, detached, ignored = (found[reset.__name__, False, seen][1] for seen in Reset)
        assert distance(detached, kept) > 1e-2
        assert (distance(ignored, detached) > 1e-2) == (reset is to_zero)
    reached, exceeded = (Neuron(0.0, 1.0, 1.0, subtract, Threshold(strict)) for strict in (False, True))
    at, above = agree(a, V, e, reached)[0], agree(a, V, e, exceeded)[0]  # these reach 1 exactly, now and then
    assert not torch.equal(at, above)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("within", [math.inf, 0.15])
def test_slopes(shape, within):
    inner = shape(peak=0.3) if shape is surrogate.StraightThrough else shape(0.3, 0.5)
    agree(*problem(30, 9, 70), Neuron(0.5, 0.75, 1.0), Near(inner, within), tolerance=1e-4)


def test_narrow_and_broad_slopes_differ():
    a, V, e = problem(30, 9, 70)
    one, other = (gradients(by_events(shape=FastSigmoid(width)), a, V, e)[1] for width in (0.1, 0.11))
    assert distance(one, other) > 1e-3


# Sparse error.


@pytest.mark.parametrize("drive", [0.05, 0.4])
@pytest.mark.parametrize("below", [0.0, 2.0])
def test_near_neurons_by_dot_products_or_by_the_whole_product(drive, below, monkeypatch):
    monkeypatch.setattr("snnlearn.eventrecurrent.SPARSE_BELOW", below)
    agree(*problem(37, 9, 130, drive=drive), shape=Near(FastSigmoid(0.1), 0.2))


def test_near_is_exact_against_its_own_dense_slope_and_differs_from_the_whole_one():
    a, V, e = problem(37, 9, 130)
    near = gradients(by_events(shape=Near(FastSigmoid(0.1), 0.1)), a, V, e)
    whole = gradients(by_events(shape=FastSigmoid(0.1)), a, V, e)
    limitless = gradients(by_events(shape=Near(FastSigmoid(0.1), math.inf)), a, V, e)
    assert torch.equal(near[0], whole[0])
    assert distance(near[1], whole[1]) > 0.1
    assert torch.equal(limitless[1], whole[1])
    assert torch.equal(limitless[2], whole[2])


def test_the_kernel_knows_a_limit_of_a_limit_and_leaves_the_extremes_to_torch():
    known = lambda within, neuron=NEURON: _known(neuron, Near(FastSigmoid(), within), Adjoint())  # noqa: E731
    assert known(0.1).near
    assert not known(math.inf).near
    assert _known(NEURON, Near(Near(FastSigmoid(), 0.2), 0.3), Adjoint()).numbers[3] == 0.2
    assert known(1e-9) is known(1e30) is None  # theta +- 2 within is theta, or no number
    assert known(0.1, Neuron(0.5, 0.5, 0.0, fire=Threshold(strict=True))) is None


def test_near_asks_for_an_error_where_the_slope_is_not_zero():
    a, V, _ = problem(20, 5, 70)
    shape = Near(PiecewiseLinear(0.4), 0.25)
    spikes = recurrent_lif(a.requires_grad_(), V, NEURON, shape, Adjoint())
    I = U = s = torch.zeros(5, 70)
    for n in range(20):
        I = NEURON.alpha * I + (a[n].detach() + s @ V.T)
        U = NEURON.beta * U - NEURON.theta * s + I
        s = (U >= 1).float()
        assert torch.equal(unpack(spikes.near, 70)[n] == 1, (U - 1).abs() < 0.25)
    assert spikes.carrier.shape == (int(unpack(spikes.near, 70).sum()),)


def test_many_near_neurons_want_a_dense_error():
    a, V, _ = problem(20, 5, 70)
    few, many = (
        recurrent_lif(a.requires_grad_(), V, NEURON, Near(FastSigmoid(0.1), within), Adjoint())
        for within in (0.05, 2.0)
    )
    assert few.carrier.dim() == 1
    assert many.near is None
    assert many.carrier.shape == a.shape


@pytest.mark.parametrize("within", [0.3, 1.5])
@pytest.mark.parametrize("reset", RESETS)
def test_near_neurons_with_every_reset(reset, within, monkeypatch):
    """What is not near has no membrane kept: its spike must still be seen, and its slope be 0."""
    monkeypatch.setattr("snnlearn.eventrecurrent.SPARSE_BELOW", 2.0)
    agree(*problem(35, 9, 70), Neuron(0.5, 0.75, 1.0, reset), Near(FastSigmoid(0.3), within), tolerance=1e-4)


def test_the_error_stands_in_the_order_of_sample_step_neuron():
    a, V, e = problem(20, 5, 70)
    shape = Near(FastSigmoid(0.1), 0.25)
    by_hand = a.clone().requires_grad_()
    spikes = recurrent_lif(by_hand, V, NEURON, shape, Adjoint())
    wanted = unpack(spikes.near, 70, torch.bool).transpose(0, 1)
    spikes.carrier.backward(e.transpose(0, 1)[wanted])
    assert torch.equal(by_hand.grad, gradients(by_events(shape=shape), a, V, e)[1])
    by_hand.grad = None
    spikes = recurrent_lif(by_hand, V, NEURON, shape, Adjoint())
    spikes.carrier.backward(e[unpack(spikes.near, 70, torch.bool)])  # a control: by step first
    assert distance(by_hand.grad, gradients(by_events(shape=shape), a, V, e)[1]) > 0.1


# Densities, threads, memory.


@pytest.mark.parametrize(("level", "density"), [(-1.0, 0.0), (64.0, 1.0)])
def test_silence_and_every_neuron_at_every_step(level, density):
    a, V, e = problem(20, 9, 70)
    a = torch.full_like(a, level)
    neuron = Neuron(0.0, 0.0, 1.0, no_reset)
    s, _, dV = agree(a, coarse(V * 0.1), e, neuron, FastSigmoid(30.0))
    assert s.mean() == density
    assert (dV.norm() > 0) == (density > 0)


@pytest.mark.parametrize("shape", [FastSigmoid(0.1), Near(FastSigmoid(0.1), 0.2)])
def test_one_and_two_threads_give_the_same_bits(shape):
    g = torch.Generator().manual_seed(3)
    a, V, e = (
        torch.randn(30, 37, 70, generator=g),
        torch.randn(70, 70, generator=g),
        torch.randn(30, 37, 70, generator=g),
    )
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(gradients(by_events(shape=shape), a, V, e))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_samples_do_not_mix():
    a, V, e = problem(30, 37, 70)
    s, da, _ = gradients(by_events(), a, V, e)
    some = [0, 3, 8, 36]
    s1, da1, _ = gradients(by_events(), a[:, some], V, e[:, some])
    assert torch.equal(s[:, some], s1)
    assert distance(da[:, some], da1) < 1e-5


def test_the_error_may_be_of_any_layout_and_the_pass_be_repeated():
    a, V, _ = problem(20, 5, 70)
    a, V = a.requires_grad_(), V.requires_grad_()
    y = recurrent_lif(a, V, NEURON, FastSigmoid(0.1), Adjoint()).dense()
    first = torch.autograd.grad(y.sum(), (a, V), retain_graph=True)  # an error expanded from one number
    again = torch.autograd.grad(y, (a, V), torch.ones(70, 5, 20).permute(2, 1, 0))
    assert all(torch.equal(p, q) for p, q in zip(first, again, strict=True))
    strided = a.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0)
    found = gradients(by_events(), strided, V.detach(), torch.ones(20, 5, 70))
    assert torch.equal(found[1], first[0])


def test_how_much_is_kept_for_the_way_back():
    a, V, _ = problem(64, 8, 128, drive=0.1)
    kept = []

    def keep(x):
        kept.append(x.untyped_storage().nbytes())
        return x

    found = []
    for shape in (FastSigmoid(0.1), Near(FastSigmoid(0.1), 0.1)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            recurrent_lif(a.requires_grad_(), V, NEURON, shape, Adjoint())
        found.append(sum(kept) - 4 * V.numel())
    sequence = 4 * a.numel()
    exact, sparse = (n / sequence for n in found)
    assert exact == pytest.approx(1 + 1 / 8 + 1 / 32, abs=1e-3)  # the current, checkpoints, bits
    assert 2 / 32 < sparse < 2 / 32 + 0.2  # bits twice, and the membranes of fewer than a fifth


def test_nothing_is_kept_where_no_gradient_is_wanted():
    a, V, _ = problem(20, 5, 70)
    with torch.no_grad():
        spikes = recurrent_lif(a, V.requires_grad_(), NEURON, Near(FastSigmoid(0.1), 0.1), Adjoint())
    assert spikes.carrier is None
    assert torch.equal(spikes.dense(), loop(a, V.detach(), NEURON, FastSigmoid(0.1)))


# The way around the kernel, and the module.


@pytest.mark.parametrize(
    ("neuron", "temporal"),
    [
        (Neuron(0.5, 0.75, 1.0, to_zero_with_input), Adjoint()),
        (Neuron(0.5, 0.75, 1.0, Bounded(subtract, -0.5)), Adjoint()),
        (Neuron(torch.tensor(0.5), 0.75, 1.0), Adjoint()),
        (Neuron(0.5, 0.75, 1.0), Unrolled()),
    ],
)
def test_what_the_kernel_does_not_know_goes_the_other_way(neuron, temporal):
    a, V, e = problem(12, 3, 20)
    s, da, dV = gradients(by_events(neuron, FastSigmoid(0.1), temporal=temporal), a, V, e)
    s64, da64, dV64 = gradients(by_loop(neuron), a.double(), V.double(), e.double())
    assert torch.equal(s.double(), s64)
    assert distance(da, da64) < 1e-4
    assert distance(dV, dV64) < 1e-4


def test_without_kernels_the_result_is_the_same():
    a, V, e = problem(12, 3, 20)
    with kernels.off():
        s, da, dV = gradients(by_events(), a, V, e)
    s64, da64, dV64 = gradients(by_loop(), a.double(), V.double(), e.double())
    assert torch.equal(s.double(), s64)
    assert distance(da, da64) < 1e-5
    assert distance(dV, dV64) < 1e-5


def test_float64_goes_the_other_way_and_agrees():
    a, V, e = problem(12, 3, 20)
    s, da, dV = gradients(by_events(), a.double(), V.double(), e.double())
    s64, da64, dV64 = gradients(by_loop(), a.double(), V.double(), e.double())
    assert torch.equal(s, s64)
    assert distance(da, da64) < 1e-12
    assert distance(dV, dV64) < 1e-12


def test_the_module_learns_and_its_weights_are_drawn_as_told():
    make = lambda seed: RecurrentLIF(30, NEURON, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    layer = make(0)
    assert torch.equal(layer.weight, make(0).weight)
    assert not torch.equal(layer.weight, make(1).weight)
    assert layer.weight.abs().max() <= 30**-0.5
    a, _, e = problem(20, 5, 30)
    spikes = layer(a)
    assert isinstance(spikes, Spikes)
    assert torch.equal(spikes.dense(), loop(a, layer.weight.detach(), NEURON, FastSigmoid()))
    spikes.dense().backward(e)
    V = layer.weight.detach().double().requires_grad_()
    loop(a.double(), V, NEURON, FastSigmoid()).backward(e.double())
    assert distance(layer.weight.grad, V.grad) < 1e-4
    assert "subtract" in repr(layer)


def test_it_stands_behind_a_linear_layer():
    _, V, e = problem(20, 5, 30)
    x, W = coarse(torch.randn(20, 5, 7)), coarse(torch.randn(30, 7))
    W32, W64 = W.clone().requires_grad_(), W.double().requires_grad_()
    recurrent_lif(F.linear(x, W32), V, NEURON, FastSigmoid(0.1), Adjoint()).dense().backward(e)
    loop(F.linear(x.double(), W64), V.double(), NEURON, FastSigmoid(0.1)).backward(e.double())
    assert distance(W32.grad, W64.grad) < 1e-4


# What is refused.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_and_currents_that_are_no_numbers_are_refused(bad):
    a, V, _ = problem(20, 5, 70)
    V[3, 4] = bad
    for context in (kernels.off(), torch.no_grad()):
        with context, pytest.raises(ValueError, match="NaN or infinity"):
            recurrent_lif(a, V, NEURON, FastSigmoid(), Adjoint())
    V[3, 4] = 0
    recurrent_lif(a, V, NEURON, FastSigmoid(), Adjoint())
    for reset in RESETS:
        current = a.clone()
        current[7, 2, 66] = bad  # long before the end
        with pytest.raises(ValueError, match="NaN or infinity"):
            recurrent_lif(current, V, Neuron(0.0, 0.0, 1.0, reset), FastSigmoid(), Adjoint())


def test_shapes_and_kinds_are_refused():
    a, V, _ = problem(4, 3, 10)
    run = lambda a, V, neuron=NEURON: recurrent_lif(a, V, neuron, FastSigmoid(), Adjoint())  # noqa: E731
    with pytest.raises(ValueError, match=r"must be \(10, 10\)"):
        run(a, V[:9])
    with pytest.raises(ValueError, match=r"\(T, B, N\)"):
        run(a[0], V)
    with pytest.raises(ValueError, match=r"\(T, B, N\)"):
        run(a[:, :0], V)
    with pytest.raises(TypeError, match="float32"):
        run(a, V.double())
    with pytest.raises(TypeError, match="floating point"):
        run(a.long(), V.long())
    with pytest.raises(TypeError, match="tensors"):
        run(a.tolist(), V)
    with pytest.raises(ValueError, match="readout"):
        run(a, V, readout())
    with pytest.raises(ValueError, match="at least 1"):
        RecurrentLIF(0)
    with pytest.raises(TypeError, match="temporal"):
        RecurrentLIF(3, temporal="bptt")


def test_the_op_refuses_what_does_not_fit():
    ops = torch.ops.snnlearn
    a, V, e = problem(20, 5, 70)
    numbers, kinds = (0.5, 0.5, 1.0, math.inf), (0, 0)
    bits, near, near_U, checkpoint = ops.recurrent_forward(a, V, numbers, kinds, False, True)
    assert near.numel() == near_U.numel() == 0
    rest = numbers, kinds, (1.0, 1.0, math.inf), (0, 1)
    ops.recurrent_reverse(a, V, bits, near, checkpoint, e, *rest)
    with pytest.raises(ValueError, match="error"):
        ops.recurrent_reverse(a, V, bits, near, checkpoint, e[:, :4], *rest)
    with pytest.raises(ValueError, match="near"):
        ops.recurrent_reverse(a, V, bits, near, near_U, e, *rest)
    with pytest.raises(ValueError, match="near"):
        ops.recurrent_reverse(a, V, bits, near, checkpoint, e.flatten(), *rest)
    with pytest.raises(ValueError, match="spikes"):
        ops.recurrent_reverse(a, V, bits[:3], near, checkpoint, e, *rest)
    with pytest.raises(ValueError, match="saved"):
        ops.recurrent_reverse(a, V, bits, near, checkpoint[:1], e, *rest)
    with pytest.raises(ValueError, match="saved"):
        ops.recurrent_reverse(a, V, bits, bits, near_U, e, *rest)
    with pytest.raises(ValueError, match="no recurrent kernel"):
        ops.recurrent_forward(a, V, numbers, (int(codes.Reset.TO_ZERO_WITH_INPUT), 0), False, False)
    with pytest.raises(ValueError, match="once a step"):
        ops.recurrent_forward(a, V, numbers, (0, int(codes.Fire.COUNT)), False, False)


def test_a_module_in_double_precision_is_left_to_torch():
    layer = nn.Sequential(RecurrentLIF(5, NEURON)).double()
    a, _, _ = problem(6, 2, 5)
    assert layer(a.double()).dense(torch.float64).dtype == torch.float64
