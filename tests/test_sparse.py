"""Sparse backpropagation: the authors' numbers, the edges of `Near`, what is active, and what may be left out."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from golden import Golden, equal, linear
from test_network import F64, LOSS, B, T, build, data, flat
from torch import nn

from snnlearn import (
    Adjoint,
    Analog,
    Boxcar,
    CrossEntropy,
    FastSigmoid,
    Layer,
    Network,
    Neuron,
    PiecewiseLinear,
    Reset,
    Rule,
    StraightThrough,
    Threshold,
    Unrolled,
    lif,
    no_reset,
    to_zero,
)
from snnlearn.sparse import Near, active, activities, activity, multiplications
from snnlearn.surrogate import SHAPES, Surrogate, firing

S = FastSigmoid(0.2)
CODES = ["0.1", "0.5", "0.8", "0.9"]
FINITE = [shape for shape in SHAPES if shape is not StraightThrough]
shapes = pytest.mark.parametrize("shape", FINITE, ids=lambda shape: shape.__name__)


def at(*x):
    return torch.tensor(x, **F64)


def lively(*arguments, **settings):
    """The network of test_network, with weights at which 10-40 % of the steps have a spike, near the threshold too."""
    net = build(*arguments, **settings, seed=2)
    with torch.no_grad():
        for p in net.parameters():
            p *= 0.3
        for layer in net.layers[:2]:
            layer.synapse.weight += 0.05
    assert all(0.1 < trace.s.mean() < 0.4 for trace in net(data()[0], Rule(S))[:2])
    return net


def close(a, b, rtol=1e-10):
    assert b.abs().max() > 0
    torch.testing.assert_close(a, b, rtol=0, atol=rtol * b.abs().max().item())


# The authors' numbers.


def authors():
    """Their network: the input is one step late in every layer, strict threshold, a readout scaled by 1 - beta."""
    g = Golden("04_sparse")
    hidden = Neuron(beta=g["beta"], theta=g["threshold"], fire=Threshold(strict=True))
    out = Neuron(beta=g["beta_readout"], reset=no_reset, fire=Analog())
    net = Network(
        Layer(linear(g["W1"].T), hidden, delay=1),
        Layer(linear(g["W2"].T), hidden, delay=1),
        Layer(linear(g["W3"].T), out, delay=1, gain=1 - g["beta_readout"]),
    )
    return g, net, FastSigmoid.from_steepness(g["surr_scale"])


def gradients(net, rule, x, y):
    """Loss, traces, and the gradients of the weights, of the input and of both layers' spikes."""
    x = x.clone().requires_grad_()
    traces = net(x, rule)
    value = CrossEntropy()(traces[-1].s, y)  # the largest value over time
    wanted = [*net.parameters(), x, traces[0].s, traces[1].s]
    *W, dx, e1, e2 = torch.autograd.grad(value, wanted)
    return value.detach(), traces, W, dx, e1, e2


def masked(g, b_th):
    """The authors' masks and gradients for a value of their b_th."""
    W = [g[f"grad_W{i}_sparse_bth{b_th}"].T for i in (1, 2, 3)]
    return W, [g.tm(f"active{i}_bth{b_th}") for i in (1, 2)], [g[f"activity{i}_pct_bth{b_th}"] for i in (1, 2)]


@pytest.mark.parametrize("method", [Unrolled, Adjoint])
def test_dense(method):
    g, net, surrogate = authors()
    value, traces, W, dx, e1, e2 = gradients(net, Rule(surrogate, method(Reset.IGNORED)), g.tm("x"), g["y"])
    for i in (0, 1):
        assert torch.equal(traces[i].s, g.tm(f"s{i + 1}"))
        equal(traces[i].U, g.tm(f"mem{i + 1}"), 1e-10)
    equal(traces[2].s, g.tm("out_rec"), 1e-10)
    equal(value, torch.tensor(g["loss"], **F64), 1e-10)
    for got, name in zip([*(w.T for w in W)], ["W1", "W2", "W3"], strict=True):
        equal(got, g[f"grad_{name}_orig"], 1e-10)
    for got, name in ((dx, "x"), (e1, "s1"), (e2, "s2")):
        equal(got, g.tm(f"grad_{name}_orig"), 1e-10)


@pytest.mark.parametrize("b_th", CODES)
@pytest.mark.parametrize("method", [Unrolled, Adjoint])
def test_sparse(method, b_th):
    g, net, surrogate = authors()
    near = Near.from_code(surrogate, float(b_th), g["threshold"])
    _, traces, W, dx, e1, _ = gradients(net, Rule(near, method(Reset.IGNORED)), g.tm("x"), g["y"])
    wanted, masks, percent = masked(g, b_th)
    for got, w in zip(W, wanted, strict=True):
        equal(got, w, 1e-10)
    equal(dx, g.tm(f"grad_x_masked_surr_numpy_bth{b_th}"), 1e-10)
    equal(e1, g.tm(f"grad_s1_dense_masked_surr_bth{b_th}"), 1e-10)
    equal(e1 * masks[0], g.tm(f"grad_s1_sparse_bth{b_th}"), 1e-10)
    for trace, mask, p, layer in zip(traces, masks, percent, net.layers, strict=False):
        assert torch.equal(active(trace, layer.neuron, near), mask.bool())
        assert 100 * activity(trace, layer.neuron, near) == pytest.approx(p, abs=1e-12)
    assert activities(net, g.tm("x"), Rule(near)) == pytest.approx([percent[0] / 100, percent[1] / 100, 1.0])


def test_the_numbers_tell_the_settings_apart():
    """Another edge, the reset kept, or no mask at all: each is seen by the comparison."""
    g, net, surrogate = authors()
    wanted = masked(g, "0.8")[0]
    for near, method in (
        (Near.from_code(surrogate, 0.9), Adjoint(Reset.IGNORED)),
        (Near(surrogate, 0.8), Adjoint(Reset.IGNORED)),  # the code's value taken for the paper's
        (Near.from_code(surrogate, 0.8), Adjoint(Reset.KEPT)),
        (surrogate, Adjoint(Reset.IGNORED)),
    ):
        W = gradients(net, Rule(near, method), g.tm("x"), g["y"])[2]
        with pytest.raises(AssertionError):
            equal(W[0], wanted[0], 1e-3)


# The shape.


@shapes
def test_near_keeps_the_slope_inside_and_nothing_outside(shape):
    inner = shape(width=0.3, peak=1.5)
    near = Near(inner, 0.25)
    x = at(-0.3, -0.25, -0.2499, -0.1, 0.0, 0.2, 0.25, 0.4)
    inside = torch.tensor([0, 0, 1, 1, 1, 1, 0, 0], dtype=torch.bool)  # strict: the edge itself is out
    assert torch.equal(near.slope(x)[inside], inner.slope(x)[inside])
    assert near.slope(x)[~inside].tolist() == [0, 0, 0, 0]
    assert inner.slope(x[[0]]) > 0


@pytest.mark.parametrize("within", [0.1, 0.35, 2.0, math.inf])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_slope_is_the_derivative_of_the_primitive(shape, within):
    inner = shape(peak=1.5) if shape is StraightThrough else shape(width=0.3, peak=1.5)
    near, h = Near(inner, within), 1e-6
    x = at(-2.5, -0.7, -0.34, -0.11, -0.09, -0.02, 0.03, 0.098, 0.29, 0.36, 1.99, 2.01)  # away from every edge
    finite = (near.primitive(x + h) - near.primitive(x - h)) / (2 * h)
    torch.testing.assert_close(finite, near.slope(x), rtol=1e-6, atol=1e-8)
    assert near.slope(x).max() > 0
    assert (x.abs() > within).any() == (near.slope(x) == 0).any() or shape in (PiecewiseLinear, Boxcar)


@shapes
@pytest.mark.parametrize("within", [0.1, 0.5])
def test_width_peak_and_area(shape, within):
    near = Near(shape(width=0.3, peak=2.5), within)
    x = torch.linspace(-1, 1, 200_001, **F64)
    slope = near.slope(x)
    assert torch.trapezoid(slope, x).item() == pytest.approx(near.area, rel=1e-3)
    assert near.area < near.inner.area or shape in (PiecewiseLinear, Boxcar)
    assert near.peak == 2.5 == near.slope(at(0.0)).item() == pytest.approx(slope.max().item())
    assert near.width == min(0.3, within)
    assert x[slope >= 1.25].max().item() == pytest.approx(near.width, abs=2e-5)
    one = near.with_area(1.0)
    assert one.area == pytest.approx(1.0)
    assert (one.within, one.width) == (near.within, near.width)
    torch.testing.assert_close(one.slope(x), slope * one.peak / near.peak)
    torch.testing.assert_close(one.primitive(at(-9.0, 9.0)), at(0.0, 1.0))


def test_the_authors_code_value_at_another_threshold():
    near, theta, b_th = Near.from_code(S, 1.6, theta=2.0), 2.0, 1.6
    U = at(1.59, 1.61, 2.0, 2.39, 2.41)
    assert (near.slope(U - theta) != 0).tolist() == ((b_th < U) & (2 * theta - b_th > U)).tolist()
    assert near.within == pytest.approx(0.4)


def test_near_of_a_line_is_a_box():
    box, near = Boxcar(0.2, 3.0), Near(StraightThrough(peak=3.0), 0.2)
    x = at(-0.7, -0.19, 0.0, 0.1, 0.3)
    assert torch.equal(near.slope(x), box.slope(x))
    torch.testing.assert_close(near.primitive(x), box.primitive(x))
    assert (near.width, near.peak, near.area) == pytest.approx((box.width, box.peak, box.area))
    with pytest.raises(ValueError, match="no finite area; choose its peak"):
        near.with_area(1.0)


def test_near_within_near():
    x = at(-0.4, -0.15, 0.05, 0.25)
    for a, b in ((0.1, 0.3), (0.3, 0.1)):
        twice, once = Near(Near(S, a), b), Near(S, 0.1)
        assert torch.equal(twice.slope(x), once.slope(x))
        torch.testing.assert_close(twice.primitive(x), once.primitive(x))
        assert twice.with_area(0.7).area == pytest.approx(0.7)


def test_the_inner_slope_may_be_ones_own():
    class Lopsided(Surrogate):
        def slope(self, x):
            return torch.where(x > 0, 2.0, 1.0)

        def primitive(self, x):
            return x + x.clamp(min=0)

    near = Near(Lopsided(), 0.5)
    assert near.slope(at(-0.6, -0.4, 0.4, 0.6)).tolist() == [0, 1, 2, 0]
    assert near.area == 1.5
    assert near.primitive(at(-9.0, 0.0, 9.0)).tolist() == [0, 0.5, 1.5]


def test_a_frozen_value_like_every_surrogate():
    near = Near(S, 0.4)
    assert near == Near(FastSigmoid(0.2), 0.4) != Near(S, 0.5)
    assert hash(near) == hash(copy.deepcopy(near))
    assert pickle.loads(pickle.dumps(near)) == near
    assert repr(near) == "Near(inner=FastSigmoid(width=0.2, peak=1.0), within=0.4)"
    assert replace(near, within=0.1).width == 0.1


def test_dtype_and_membranes_that_are_no_number():
    assert Near(S, 0.4).slope(torch.zeros(2)).dtype == torch.float32
    assert Near(S, 0.4).slope(at(math.nan)).isnan().all()  # not hidden behind a zero
    fire = firing(lif(), Near(S, 0.4))
    U = torch.linspace(0, 2, 9, **F64)
    slopes = torch.func.vmap(torch.func.grad(lambda u: fire(u, 1.0)))(U)
    torch.testing.assert_close(slopes, Near(S, 0.4).slope(U - 1))
    assert (slopes == 0).sum() == 6


def test_refusals():
    for within in (0.0, -1.0, math.nan, -math.inf):
        with pytest.raises(ValueError, match=r"within .* must be a positive, finite"):
            Near(S, within)
    for within in (None, "0.1", True):
        with pytest.raises(TypeError, match=r"within .* must be a positive, finite"):
            Near(S, within)
    with pytest.raises(TypeError, match="one number for the whole layer"):
        Near(S, torch.tensor([0.1, 0.2]))
    for inner in (FastSigmoid, None, torch.sigmoid):
        with pytest.raises(TypeError, match=r"inner must be a Surrogate such as FastSigmoid\(\)"):
            Near(inner, 0.1)
    for b_th in (1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="lies below the threshold 1, got"):
            Near.from_code(S, b_th)
    with pytest.raises(ValueError, match="theta must be a positive"):
        Near.from_code(S, -2.0, -1.0)
    with pytest.raises(ValueError, match="area must be a positive"):
        Near(S, 0.1).with_area(0.0)


# In the recursion.


@pytest.mark.parametrize("method", [Unrolled(), Adjoint(), Adjoint(Reset.IGNORED), Unrolled(Reset.DETACHED)], ids=str)
@pytest.mark.parametrize("recurrent", [False, True])
def test_an_infinite_edge_changes_nothing(recurrent, method):
    """Bit for bit."""
    net, (x, y) = lively(recurrent=recurrent), data()
    one, a = Rule(S, method).gradients(net, x, y, LOSS)
    two, b = Rule(Near(S, math.inf), method).gradients(net, x, y, LOSS)
    assert torch.equal(one, two)
    assert all(torch.equal(a[name], b[name]) for name in a)
    narrow = Rule(Near(S, 0.3), method).gradients(net, x, y, LOSS)[1]
    assert not torch.allclose(flat(narrow), flat(a), rtol=1e-2)
    assert Near(S, math.inf).area == S.area


@pytest.mark.parametrize("mode", Reset)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("reset", [None, to_zero], ids=["subtract", "to_zero"])
def test_sparse_exodus_is_sparse_bptt(reset, recurrent, mode):
    net, (x, y) = lively(1, 2, recurrent, reset), data()
    near = Near(S, 0.4)
    share = activities(net, x, Rule(near))
    assert all(0.2 < p < 0.7 for p in share[:2])
    a, b = (Rule(near, m(mode)).gradients(net, x, y, LOSS)[1] for m in (Adjoint, Unrolled))
    for name in b:
        close(a[name], b[name])
    if mode is Reset.KEPT:
        control = Rule(near, Adjoint(Reset.IGNORED)).gradients(net, x, y, LOSS)[1]
        assert not torch.allclose(flat(control), flat(b), rtol=1e-2)


class Smooth:
    """The primitive in place of the step."""

    analog = False

    def __init__(self, surrogate):
        self.surrogate = surrogate

    def __call__(self, U, theta):
        return self.surrogate.primitive(U - theta)


def test_finite_differences_of_the_smoothed_twin():
    near = Near(S, 0.3).with_area(1.0)
    neuron = Neuron(0.5, 0.8, fire=Smooth(near))
    a = torch.rand(T, B, 3, generator=torch.Generator().manual_seed(0), **F64).mul_(0.7).requires_grad_()
    G = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(1), **F64)
    trace = Adjoint().run(neuron, near, a)
    assert 0.1 < activity(trace, neuron, near) < 0.9
    (grad,) = torch.autograd.grad((G * trace.s).sum(), a)
    with torch.no_grad():
        for seed in range(3):
            v = torch.randn(a.shape, generator=torch.Generator().manual_seed(2 + seed), **F64)
            up, down = ((G * neuron.simulate(a + h * v).s).sum().item() for h in (1e-6, -1e-6))
            assert (grad * v).sum().item() == pytest.approx((up - down) / 2e-6, rel=1e-5)
    (control,) = torch.autograd.grad((G * Adjoint().run(neuron, S, a).s).sum(), a)
    assert not torch.allclose(control, grad, rtol=1e-2)


@pytest.mark.parametrize("mode", [Reset.KEPT, Reset.IGNORED])
@pytest.mark.parametrize("method", [Unrolled, Adjoint])
def test_the_error_is_needed_only_where_the_neuron_is_active(method, mode):
    """The authors' write mask (Eq. 12): zero it elsewhere, and no weight's gradient changes."""
    net, (x, y) = lively(), data()
    rule = Rule(Near(S, 0.4), method(mode))
    _, wanted = rule.gradients(net, x, y, LOSS)

    def with_mask(choose):
        traces = net(x, rule)
        for trace, layer in zip(traces[:2], net.layers, strict=False):
            keep = choose(active(trace, layer.neuron, rule.surrogate))
            trace.s.register_hook(lambda e, keep=keep: e * keep)
        found = torch.autograd.grad(LOSS(traces[-1].s, y), list(net.parameters()))
        return dict(zip(wanted, found, strict=True))

    masked = with_mask(lambda on: on)
    for name, grad in wanted.items():
        close(masked[name], grad, 1e-13)
    for wrong in (lambda on: ~on, lambda on: on.roll(1, 0)):
        assert not torch.allclose(flat(with_mask(wrong)), flat(wanted), rtol=1e-2)


def test_the_recursion_only_decays_where_nothing_is_active():
    """Eq. 11, with the reset kept as well: delta[t] = alpha**n * delta[t+n] through n silent steps."""
    neuron, near = Neuron(beta=0.8), Near(S, 0.2)
    a = torch.rand(60, B, 4, generator=torch.Generator().manual_seed(3), **F64).mul_(0.5).requires_grad_()
    for mode in (Reset.KEPT, Reset.IGNORED):
        trace = Adjoint(mode).run(neuron, near, a)
        (lam,) = torch.autograd.grad((trace.s * torch.linspace(1, 2, 4, **F64)).sum(), a)
        on = active(trace, neuron, near)
        silent, busy = ~on[:-1], on[:-1]
        assert 0.1 < on.double().mean() < 0.6
        torch.testing.assert_close(lam[:-1][silent], 0.8 * lam[1:][silent], rtol=1e-13, atol=0)
        assert not torch.isclose(lam[:-1][busy], 0.8 * lam[1:][busy], rtol=1e-3, atol=0).any()


# Counting.


def test_activity_is_a_brute_force_count_and_grows_with_the_edge():
    net, (x, _) = lively(delay=1), data()
    shares = []
    for within in (0.05, 0.2, 0.5, 1.0, math.inf):
        rule = Rule(Near(S, within))
        traces = net(x, rule)
        for trace, layer, share in zip(traces[:2], net.layers, activities(net, x, rule), strict=False):
            count = sum(abs(u - 1.0) < within for u in trace.U.flatten().tolist())
            assert share == activity(trace, layer.neuron, rule.surrogate) == count / (T * B * 5)
        shares.append(activities(net, x, rule))
        assert shares[-1][2] == 1  # the readout
    for i in (0, 1):
        column = [row[i] for row in shares]
        assert column == sorted(column)
        assert len(set(column)) == 5
        assert 0 < column[0] < 0.1
        assert column[-1] == 1


def test_a_shape_that_ends_has_an_activity_of_its_own():
    """The paper's 2.4: neurons under a triangle send back nothing for part of the time too."""
    trace = Neuron(beta=0.8).simulate(torch.rand(T, B, 3, generator=torch.Generator().manual_seed(0), **F64))
    triangle = PiecewiseLinear(0.25)
    same = Near(FastSigmoid(), 0.5)
    assert torch.equal(active(trace, lif(), triangle), active(trace, lif(), same))
    assert 0.2 < activity(trace, lif(), triangle) < 0.8


def test_activity_is_of_the_layers_own_threshold():
    trace = Neuron(theta=2.0, beta=0.8).simulate(torch.full((T, B, 1), 0.55, **F64))
    near = Near(S, 0.3)
    expected = sum(abs(u - 2.0) < 0.3 for u in trace.U.flatten().tolist()) / (T * B)
    assert activity(trace, Neuron(theta=2.0), near) == expected
    assert 0 < expected != activity(trace, Neuron(theta=1.0), near)


def test_multiplications_by_loops():
    net, (x, _) = lively(delay=1), data()
    rule = Rule(Near(S, 0.3))
    masks = [active(t, layer.neuron, rule.surrogate) for t, layer in zip(net(x, rule), net.layers, strict=True)]
    found = multiplications(net, x, rule)
    for i, layer in enumerate(net.layers):
        outputs, inputs = layer.synapse.weight.shape
        dW = dS = dense = 0
        for t in range(T):
            for b in range(B):
                for j in range(outputs):
                    for k in range(inputs):
                        dense += 1
                        dW += masks[i][t, b, j].item()
                        dS += i > 0 and masks[i - 1][t, b, k].item()
        assert found[i] == (dW, dS, dense, dense if i else 0)
    assert found[2].dW == found[2].dense_dW  # a readout is dense
    assert 0 < found[2].dS < found[2].dense_dS
    assert found[1].saved == 1 - (found[1].dW + found[1].dS) / (2 * T * B * 25)
    assert all(p.saved == 0 for p in multiplications(net, x, Rule(Near(S, math.inf))))


def test_what_cannot_be_counted():
    (x, _), near = data((2, 3)), Rule(Near(S, 0.3))
    flattened = Network(Layer(nn.Sequential(nn.Flatten(), nn.Linear(6, 5, **F64)), lif()))
    with pytest.raises(TypeError, match=r"counted for nn.Linear, layer 0 has Sequential; use activities"):
        multiplications(flattened, x, near)
    assert 0 < activities(flattened, x, near)[0] < 1
    with pytest.raises(ValueError, match="layer 0 is recurrent"):
        multiplications(lively(recurrent=True), data()[0], near)


def test_counting_leaves_the_network_alone():
    net, (x, y) = lively(), data()
    Rule(S).backward(net, x, y, LOSS)
    before = {name: (p.clone(), p.grad.clone()) for name, p in net.named_parameters()}
    activities(net, x, Rule(Near(S, 0.3)))
    multiplications(net, x, Rule(Near(S, 0.3)))
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name][0])
        assert torch.equal(p.grad, before[name][1])
