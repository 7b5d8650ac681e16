"""Neurons with any kernels: the golden files, the LIF among them, autograd through the loop, and what is refused."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from golden import Golden, equal, linear
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from snnlearn import (
    LIF,
    Adjoint,
    Analog,
    CrossEntropy,
    Exponential,
    FastSigmoid,
    Layer,
    Learned,
    Network,
    Neuron,
    Reset,
    Rule,
    State,
    Threshold,
    Unrolled,
    cuba_lif,
    lif,
    no_reset,
    readout,
    subtract_decayed,
)
from snnlearn.implicit import d_eq14, sigma
from snnlearn.srm import SRM, AdjointSRM

F64 = {"dtype": torch.float64}
S = FastSigmoid(0.2)
STEMS = ["srm", "lif_paper", "lif_sinabs"]
T, B, N = 40, 3, 4
DROPPED = [Reset.DETACHED, Reset.IGNORED]


def close(a, b, rtol=1e-10):
    assert b.abs().max() > 0
    torch.testing.assert_close(a, b, rtol=0, atol=rtol * b.abs().max().item())


def currents(seed=0, scale=0.6, T=T, **kind):
    a = torch.rand(T, B, N, generator=torch.Generator().manual_seed(seed), **(kind or F64)) * scale
    return a.requires_grad_()


def cotangent(trace, seed=9):
    return torch.randn(trace.s.shape, generator=torch.Generator().manual_seed(seed), dtype=trace.s.dtype)


def gradient(method, neuron, a, part="s", surrogate=S):
    trace = method.run(neuron, surrogate, a)
    return trace, torch.autograd.grad((getattr(trace, part) * cotangent(trace)).sum(), a)[0]


def uneven():
    """Kernels of no simple neuron: a late and negative response, a refractory kernel with a positive afterpotential."""
    n = torch.arange(25, **F64)
    return SRM(torch.cos(0.2 * n) * 0.85**n, -(0.9**n) + 0.8 * torch.exp(-((n - 9) ** 2) / 8), 0.8)


# The golden files.


def layers(g, method):
    """Two layers step by step, with what autograd can be asked for."""
    x = g.tm("x").clone().requires_grad_()
    W1, W2 = (g[w].clone().requires_grad_() for w in ("W1", "W2"))
    neuron, surrogate = SRM(g["eps"], g["nu"], g["theta"]), Exponential.from_scale(1.0, g["surr_width"])
    a1 = x @ W1.T  # Eq. 5
    one = method.run(neuron, surrogate, a1)
    a2 = one.s @ W2.T
    two = method.run(neuron, surrogate, a2)
    loss = (g.tm("G") * two.s).sum()
    names = {"x": x, "W1": W1, "W2": W2, "a1": a1, "a2": a2, "s1": one.s}
    return loss, {"a1": a1, "a2": a2}, (one, two), names, surrogate


@pytest.mark.parametrize(
    ("mode", "prefix"), [(Reset.KEPT, ""), (Reset.IGNORED, "slayer_"), (Reset.DETACHED, "slayer_")]
)
@pytest.mark.parametrize("method", [Unrolled, AdjointSRM])
@pytest.mark.parametrize("stem", STEMS)
def test_golden(stem, method, mode, prefix):
    g = Golden(f"10_exodus_{stem}")
    loss, a, traces, names, surrogate = layers(g, method(mode))
    for i, trace in enumerate(traces, 1):
        equal(a[f"a{i}"], g.tm(f"a{i}"))
        equal(trace.I, g.tm(f"z{i}"))
        equal(trace.U, g.tm(f"u{i}"))
        assert torch.equal(trace.s, g.tm(f"s{i}"))
        assert 0.08 < trace.s.mean() < 0.4
        equal(surrogate.slope(trace.U - g["theta"]), g.tm(f"f{i}"))
    equal(loss, torch.tensor(g["loss"], **F64))
    found = dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))
    for name, value in found.items():
        wanted = g[f"{prefix}grad_{name}"]
        equal(value, wanted if name[0] == "W" else wanted.transpose(0, 1))
    # dL/dz is what a neuron finds whose current is z and whose response is over at once
    direct = SRM(torch.ones(1, **F64), g["nu"], g["theta"])
    for i, error in ((1, found["s1"]), (2, g.tm("G"))):
        z = g.tm(f"z{i}").clone().requires_grad_()
        trace = method(mode).run(direct, surrogate, z)
        equal(torch.autograd.grad(trace.s, z, error)[0], g.tm(f"{prefix}grad_z{i}"))


@pytest.mark.parametrize("stem", STEMS)
def test_golden_in_a_network(stem):
    g = Golden(f"10_exodus_{stem}")
    net = Network(*(Layer(linear(g[w]), SRM(g["eps"], g["nu"], g["theta"])) for w in ("W1", "W2")))
    surrogate, y = Exponential.from_scale(1.0, g["surr_width"]), g.tm("G")
    for temporal, prefix in ((AdjointSRM(), ""), (Unrolled(), ""), (AdjointSRM(Reset.IGNORED), "slayer_")):
        value, found = Rule(surrogate, temporal).gradients(net, g.tm("x"), y, lambda s, G: (G * s).sum())
        equal(value, torch.tensor(g["loss"], **F64))
        for i in (0, 1):
            equal(found[f"layers.{i}.synapse.weight"], g[f"{prefix}grad_W{i + 1}"])
    with pytest.raises(AssertionError):
        equal(found["layers.0.synapse.weight"], g["grad_W1"], 1e-3)


@pytest.mark.parametrize("stem", STEMS)
def test_the_golden_files_tell_kernels_apart(stem):
    """nu two steps late in place of one, or of the other LIF: the membranes or the gradient show it."""
    g = Golden(f"10_exodus_{stem}")
    nu = g["nu"]
    for wrong in (torch.cat([0 * nu[:1], nu[:-1]]), 0.99 * nu, nu[:3]):
        z = g.tm("z1").clone().requires_grad_()
        trace = AdjointSRM().run(SRM(torch.ones(1, **F64), wrong, g["theta"]), S, z)
        with pytest.raises(AssertionError):
            equal(trace.U, g.tm("u1"), 1e-4)


# Kernels of known neurons.

PAIRS = {
    "lif": (SRM.lif(0.9, 1.2, T=T), Neuron(beta=0.9, theta=1.2)),
    "iaf": (SRM.lif(1.0, T=T), Neuron(beta=1.0)),
    "lif_decayed": (SRM.lif(0.85, T=T, decayed=True), Neuron(beta=0.85, reset=subtract_decayed)),
    "strict": (SRM.lif(0.9, T=T, fire=Threshold(strict=True)), Neuron(beta=0.9, fire=Threshold(strict=True))),
    "many": (SRM.lif(0.9, 0.4, T=T, fire=Threshold(most=3)), Neuron(beta=0.9, theta=0.4, fire=Threshold(most=3))),
    "cuba": (
        SRM.double_exponential(tau_mem=9e-3, tau_syn=3e-3, dt=1e-3, T=T, theta=3.0),
        cuba_lif(tau_mem=9e-3, tau_syn=3e-3, dt=1e-3, theta=3.0),
    ),
    "cuba_equal": (
        SRM.double_exponential(tau_mem=5e-3, tau_syn=5e-3, T=T, theta=4.0),
        cuba_lif(tau_mem=5e-3, tau_syn=5e-3, theta=4.0),
    ),
    "readout": (
        SRM(SRM.lif(0.9, T=T).eps, torch.zeros(1, **F64), fire=Analog()),
        Neuron(beta=0.9, reset=no_reset, fire=Analog()),
    ),
    "thresholds": (
        SRM(SRM.lif(0.9, T=T).eps, SRM.lif(0.9, 0.7, T=T).nu, torch.tensor([0.5, 0.7, 0.9, 1.5], **F64)),
        Neuron(
            beta=0.9, theta=torch.tensor([0.5, 0.7, 0.9, 1.5], **F64), reset=lambda U, s, I, b, th: b * U - 0.7 * s + I
        ),
    ),
    "no_reset": (SRM(SRM.lif(0.66, T=T).eps, torch.zeros(1, **F64)), Neuron(beta=0.66, reset=no_reset)),
}


@pytest.mark.parametrize("mode", Reset)
@pytest.mark.parametrize("name", PAIRS)
def test_exponential_kernels_are_the_neuron(name, mode):
    """Spikes and gradients, from errors on spikes and on the membrane."""
    srm, neuron = PAIRS[name]
    for seed in range(3):
        a = currents(seed)
        for part in ("s", "U"):
            (one, x), (two, y) = gradient(AdjointSRM(mode), srm, a, part), gradient(Adjoint(mode), neuron, a, part)
            close(one.U, two.U)
            close(x, y)
        if not neuron.fire.analog:
            assert torch.equal(one.s, two.s)
            assert 0.1 < (two.s > 0).double().mean() < 0.6


@given(st.integers(0, 2**31), st.floats(0.3, 1.0), st.floats(0.6, 2.0))
def test_any_lif(seed, beta, theta):
    srm, neuron, a = SRM.lif(beta, theta, T=T), Neuron(beta=beta, theta=theta), currents(seed, 0.8)
    with torch.no_grad():
        margin = (neuron.simulate(a).U - theta).abs().min()
    assume(margin > 1e-9)  # else rounding decides a spike
    (one, x), (two, y) = gradient(AdjointSRM(), srm, a), gradient(Adjoint(), neuron, a)
    assert torch.equal(one.s, two.s)
    close(x, y)


@pytest.mark.parametrize("name", ["lif", "lif_decayed", "cuba"])
def test_the_pairs_are_told_apart(name):
    """The reset left out of the gradient, or decayed or not, is not the same."""
    srm, neuron = PAIRS[name]
    a = currents()
    _, wanted = gradient(Adjoint(), neuron, a)
    assert not torch.allclose(gradient(AdjointSRM(Reset.IGNORED), srm, a)[1], wanted, rtol=1e-2)
    late = SRM(srm.eps, torch.cat([0 * srm.nu[:1], srm.nu[:-1]]), srm.theta)
    assert not torch.allclose(gradient(AdjointSRM(), late, a)[1], wanted, rtol=1e-2)


def test_kernels_in_numbers():
    srm = SRM.double_exponential(tau_mem=2e-3, tau_syn=1e-3, dt=1e-3, T=4, theta=0.5)
    b, c = math.exp(-0.5), math.exp(-1)
    wanted = [(b ** (n + 1) - c ** (n + 1)) / (b - c) for n in range(4)]
    assert srm.eps.tolist() == pytest.approx(wanted)
    assert srm.nu.tolist() == pytest.approx([-0.5 * b**n for n in range(4)])
    bump = SRM.alpha_function(tau=5e-3, tau_ref=2e-3, dt=1e-3, T=20, theta=0.5)
    assert bump.eps.tolist() == pytest.approx([n / 5 * math.exp(1 - n / 5) for n in range(20)])
    assert bump.eps.argmax() == 5
    assert bump.nu.tolist() == pytest.approx([-0.5 * math.exp(-n / 2) for n in range(20)])
    assert SRM.lif(0.5, 2.0, T=3, decayed=True).nu.tolist() == [-1, -0.5, -0.25]


# The loop and its adjoint.


def direct(srm, a):
    """Eqs. 6-8 by loops over single numbers."""
    eps, nu = srm.eps.tolist(), srm.nu.tolist()
    z, U, s = (torch.zeros_like(a) for _ in range(3))
    for n, b, i in itertools.product(range(len(a)), range(B), range(N)):
        z[n, b, i] = sum(eps[n - k] * a[k, b, i].item() for k in range(n + 1) if n - k < len(eps))
        U[n, b, i] = z[n, b, i] + sum(nu[n - 1 - k] * s[k, b, i].item() for k in range(n) if n - 1 - k < len(nu))
        s[n, b, i] = float(U[n, b, i] >= srm.theta)
    return z, U, s


@pytest.mark.parametrize(
    "make",
    [uneven, lambda: SRM.alpha_function(tau=3e-3, T=T), lambda: SRM(torch.ones(1, **F64), -torch.ones(1, **F64), 0.4)],
)
def test_simulation_by_loops(make):
    """Kernels of 25, 40 and 1 entries: each is zero beyond its end."""
    srm, a = make(), currents().detach()
    z, U, s = direct(srm, a)
    trace = srm.simulate(a)
    close(trace.I, z)
    close(trace.U, U)
    assert torch.equal(trace.s, s)
    assert 0.1 < s.mean() < 0.4
    padded = SRM(*(torch.cat([k, torch.zeros(60, **F64)]) for k in (srm.eps, srm.nu)), srm.theta)
    torch.testing.assert_close(padded.simulate(a).U, trace.U)


@pytest.mark.parametrize("part", ["I", "U", "s"])
@pytest.mark.parametrize("mode", Reset)
@pytest.mark.parametrize("make", [uneven, lambda: SRM.alpha_function(tau=3e-3, T=T)])
def test_adjoint_is_unrolled(make, mode, part):
    srm, a = make(), currents()
    one, x = gradient(AdjointSRM(mode), srm, a, part)
    two, y = gradient(Unrolled(mode), srm, a, part)
    assert all(torch.equal(p, q) for p, q in zip(one, two, strict=True))
    assert 0.1 < one.s.mean() < 0.4
    close(x, y)
    other = gradient(AdjointSRM(Reset.IGNORED if mode is Reset.KEPT else Reset.KEPT), srm, a, part)[1]
    assert torch.allclose(other, y, rtol=1e-2) == (part == "I")  # z does not see the reset


def test_all_errors_together():
    a = currents()
    grads = []
    for method in (AdjointSRM(), Unrolled()):
        trace = method.run(uneven(), S, a)
        grads.append(torch.autograd.grad(sum((x * cotangent(trace, k)).sum() for k, x in enumerate(trace)), a)[0])
    close(*grads)


def test_it_is_equation_14_neuron_by_neuron():
    srm, a = uneven(), currents()
    trace, d = gradient(AdjointSRM(), srm, a)
    f, e = S.slope(trace.U.detach() - srm.theta), cotangent(trace)
    for b, i in itertools.product(range(B), range(N)):
        close(d[:, b, i], d_eq14(e[:, b, i], sigma(f[:, b, i], srm.nu), srm.eps))


class Smooth:
    """The surrogate's primitive in place of the step."""

    analog = False

    def __init__(self, surrogate):
        self.surrogate = surrogate

    def __call__(self, U, theta):
        return self.surrogate.primitive(U - theta)


@pytest.mark.parametrize("method", [AdjointSRM, Unrolled])
def test_gradient_of_the_smoothed_twin_is_its_finite_difference(method):
    surrogate = FastSigmoid(0.3).with_area(1.0)
    kernels = uneven()
    srm, a = SRM(kernels.eps, kernels.nu, 0.8, Smooth(surrogate)), currents()
    (trace, grad), (_, control) = (
        gradient(method(m), srm, a, surrogate=surrogate) for m in (Reset.KEPT, Reset.IGNORED)
    )
    G, h = cotangent(trace), 1e-6
    for seed in range(4):
        v = torch.randn(a.shape, generator=torch.Generator().manual_seed(seed), **F64)
        with torch.no_grad():
            up, down = ((G * srm.simulate(a + sign * h * v).s).sum().item() for sign in (1, -1))
        finite = (up - down) / (2 * h)
        assert (grad * v).sum().item() == pytest.approx(finite, rel=1e-6)
        assert (control * v).sum().item() != pytest.approx(finite, rel=1e-2)


@pytest.mark.parametrize("lag", [1, 3])
def test_recurrence_unrolled(lag):
    """Exponential kernels with recurrent weights against the neuron with them."""
    back = nn.Linear(N, N, bias=False, **F64)
    with torch.no_grad():
        back.weight.copy_(torch.randn(N, N, generator=torch.Generator().manual_seed(1), **F64) * 0.4)
    a, found = currents(), []
    for neuron in PAIRS["cuba"]:
        trace = Unrolled().run(neuron, S, a, back, lag)
        assert 0.1 < trace.s.mean() < 0.5
        found.append((trace, torch.autograd.grad((trace.s * cotangent(trace)).sum(), (a, back.weight))))
    (one, x), (two, y) = found
    assert torch.equal(one.s, two.s)
    assert not torch.equal(one.s, PAIRS["cuba"][1].simulate(a).s)
    for p, q in zip(x, y, strict=True):
        close(p, q)


def test_it_keeps_the_membrane_only():
    """In tensors of the layer's size; the kernels are two numbers a step."""

    def kept(method):
        held = {}
        a = torch.randn(100, 4, 32, requires_grad=True)

        def pack(t):
            held[t.untyped_storage().data_ptr()] = t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = method.run(SRM.lif(0.9, T=100), S, a)
        return sum(held.values()) / (out.s.numel() * out.s.element_size())

    assert kept(AdjointSRM()) < 1.05
    assert kept(Unrolled()) > 1.5


def test_under_func_and_vmap():
    a = currents()

    def loss(a):
        return AdjointSRM().run(uneven(), S, a).s.square().sum()

    (wanted,) = torch.autograd.grad(loss(a), a)  # kernels made inside the loss are seen by torch.func too
    close(torch.func.grad(loss)(a.detach()), wanted)
    each = torch.func.vmap(torch.func.grad(loss), 1, 1)(a.detach().unsqueeze(2))
    close(each.squeeze(2), wanted)


def test_kernels_follow_the_currents_dtype():
    a = currents(0, 0.6, dtype=torch.float32)
    trace, grad = gradient(AdjointSRM(), SRM.lif(0.9, T=T), a)
    assert {x.dtype for x in (*trace, grad)} == {torch.float32}
    torch.testing.assert_close(grad, gradient(Adjoint(), Neuron(beta=0.9), a)[1], rtol=1e-4, atol=1e-5)


def test_one_step():
    a = currents(T=1, scale=3.0)
    (one, x), (two, y) = gradient(AdjointSRM(), SRM.lif(0.9, T=1), a), gradient(Adjoint(), Neuron(beta=0.9), a)
    assert torch.equal(one.s, two.s)
    close(x, y)


# In a network.


def small(neuron=None):
    torch.manual_seed(3)
    hidden = neuron or SRM.double_exponential(tau_mem=8e-3, tau_syn=3e-3, T=T)
    net = Network(Layer(nn.Linear(6, 8, **F64), hidden, delay=1), Layer(nn.Linear(8, 3, **F64), readout(tau_mem=8e-3)))
    with torch.no_grad():
        net.layers[0].synapse.weight += 0.05
    return net


def batch():
    g = torch.Generator().manual_seed(0)
    return 3.0 * (torch.rand(T, B, 6, generator=g) < 0.3).double(), torch.randint(3, (B,), generator=g)


def test_a_network_of_both_kinds():
    """A readout is a Neuron: Unrolled takes both, AdjointSRM a readout in kernels."""
    (x, y), net = batch(), small()
    out = SRM(SRM.lif(math.exp(-1 / 8), T=T).eps, torch.zeros(1, **F64), fire=Analog())
    all_kernels = Network(
        Layer(net.layers[0].synapse, net.layers[0].neuron, delay=1), Layer(net.layers[1].synapse, out)
    )
    all_states = Network(
        Layer(net.layers[0].synapse, cuba_lif(tau_mem=8e-3, tau_syn=3e-3), delay=1),
        Layer(net.layers[1].synapse, readout(tau_mem=8e-3)),
    )
    assert 0.1 < net(x, Rule(S))[0].s.mean() < 0.4
    wanted = Rule(S, Adjoint()).gradients(all_states, x, y, CrossEntropy())[1]
    for found in (
        Rule(S, Unrolled()).gradients(net, x, y, CrossEntropy())[1],
        Rule(S, AdjointSRM()).gradients(all_kernels, x, y, CrossEntropy())[1],
    ):
        for name in wanted:
            close(found[name], wanted[name])


def test_as_a_torch_module():
    x, _ = batch()
    model = nn.Sequential(nn.Linear(6, 8, **F64), LIF(uneven(), temporal=AdjointSRM(), surrogate=S))
    out = model(x)
    assert 0.02 < out.mean() < 0.6
    out.square().sum().backward()
    other = copy.deepcopy(model)
    other[1].temporal = Unrolled()
    other.zero_grad()
    other(x).square().sum().backward()
    close(model[0].weight.grad, other[0].weight.grad)


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "theta"])
def test_learned_constants_unrolled(name):
    (x, y), grads = batch(), []
    values = {"tau_mem": 8e-3, "tau_syn": 3e-3, "theta": 1.0}
    for make, more in ((SRM.double_exponential, {"T": T}), (cuba_lif, {})):
        given = {k: nn.Parameter(torch.tensor(v, **F64)) if k == name else v for k, v in values.items()}
        net = small(Learned(make, **given, **more))
        grads.append(Rule(S, Unrolled()).gradients(net, x, y, CrossEntropy())[1][f"layers.0.source.log.{name}"])
    close(*grads, rtol=1e-8)


def test_a_frozen_value():
    srm = uneven()
    for other in (copy.deepcopy(srm), pickle.loads(pickle.dumps(srm))):
        assert torch.equal(other.simulate(currents()).U, srm.simulate(currents()).U)
    assert repr(srm) == "SRM(eps=(25,), nu=(25,), theta=0.8, fire=Threshold(strict=False, most=1))"
    with pytest.raises(AttributeError):
        srm.theta = 2.0


# What is refused.


@pytest.mark.parametrize("name", ["eps", "nu"])
def test_bad_kernels(name):
    good = {"eps": torch.ones(3), "nu": -torch.ones(3)}
    cases = [
        ([1.0], TypeError, "must be a floating-point tensor .*got list"),
        (torch.ones(3, dtype=torch.long), TypeError, "must be a floating-point tensor .*got torch.int64"),
        (torch.ones(3, 2), ValueError, r"must have shape \(K,\), K >= 1, got \(3, 2\)"),
        (torch.tensor(1.0), ValueError, r"must have shape \(K,\)"),
        (torch.ones(0), ValueError, r"must have shape \(K,\), K >= 1, got \(0,\)"),
        (torch.tensor([1.0, math.nan]), ValueError, "holds NaN or infinity"),
        (torch.tensor([math.inf]), ValueError, "holds NaN or infinity"),
    ]
    for bad, error, match in cases:
        with pytest.raises(error, match=f"the kernel {name} {match}"):
            SRM(**{**good, name: bad})


def test_bad_constants():
    k = torch.ones(3)
    for theta in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="threshold theta must be a positive"):
            SRM(k, k, theta)
    with pytest.raises(TypeError, match=r"fire must be Threshold\(\)"):
        SRM(k, k, fire=Threshold)
    with pytest.raises(ValueError, match=r"longest, .* must be at least 1"):
        SRM(k, k, longest=0)
    for beta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="beta is a decay"):
            SRM.lif(beta, T=3)
    with pytest.raises(ValueError, match="so a decay in it is one number; got shape"):
        SRM.lif(torch.tensor([0.5, 0.9]), T=2)
    for make in (lambda **k: SRM.lif(0.9, **k), SRM.double_exponential, SRM.alpha_function):
        with pytest.raises(ValueError, match=r"so theta in it is one number; got shape \(3,\)"):
            make(theta=torch.ones(3), T=3)
    for T in (0, -1):
        with pytest.raises(ValueError, match="T, the number of steps"):
            SRM.lif(0.9, T=T)
    for bad in ({"tau_mem": 0.0}, {"tau_syn": -1e-3}, {"dt": math.nan}):
        with pytest.raises(ValueError, match="must be a positive, finite number of seconds"):
            SRM.double_exponential(**bad, T=3)
    for bad in ({"tau": 0.0}, {"tau_ref": math.inf}, {"dt": 0.0}):
        with pytest.raises(ValueError, match="must be a positive, finite number of seconds"):
            SRM.alpha_function(**bad, T=3)


def test_a_sequence_longer_than_the_kernels_were_made_for():
    srm = SRM.lif(0.99, T=10)
    for method in (AdjointSRM(), Unrolled()):
        with pytest.raises(ValueError, match="made for sequences of up to 10 steps, got 40; make them with T=40"):
            method.run(srm, S, currents())
        method.run(srm, S, currents(T=10))
    SRM(srm.eps, srm.nu, torch.ones(1, **F64)).fits(currents())  # one value fits
    with pytest.raises(ValueError, match=r"theta has shape \(2,\)"):
        SRM(srm.eps, srm.nu, torch.ones(2, **F64)).fits(currents())
    with pytest.raises(TypeError, match=r"theta is torch\.float32"):
        SRM(srm.eps, srm.nu, torch.ones(N)).fits(currents())


@pytest.mark.parametrize("method", [AdjointSRM(), Unrolled()], ids=str)
def test_going_on_from_a_state_is_refused(method):
    x, _ = batch()
    # its response begins a step late, so after one step the membrane is still zero, and yet not at rest
    net = Network(Layer(nn.Linear(6, N, bias=False, **F64), SRM.alpha_function(T=T)))
    states, past = net.step(x[0], Rule(S, method))
    assert all(state.abs().sum() == 0 for state in states[0])
    with pytest.raises(ValueError, match=r"an SRM starts from rest: .* its whole past"):
        net.step(x[1], Rule(S, method), past)
    a = currents()
    zeros = State(*(torch.zeros_like(a[0]) for _ in range(3)))
    with pytest.raises(ValueError, match="an SRM starts from rest"):
        method.run(uneven(), S, a, state=zeros)
    with pytest.raises(ValueError, match="an SRM starts from rest"):
        method.run(uneven(), S, a, sent=[torch.ones_like(a[0])])
    with pytest.raises(ValueError, match="sent must hold the last lag = 2 spikes, got 1"):
        method.run(uneven(), S, a, lag=2, sent=[torch.zeros_like(a[0])])
    with pytest.raises(ValueError, match="an SRM starts from rest"):
        LIF(uneven(), temporal=method).step(None, a[0])


def test_neurons_and_methods_that_do_not_go_together():
    a = currents()
    for method in (Adjoint(), Adjoint(Reset.IGNORED)):
        with pytest.raises(TypeError, match="Adjoint is a recursion for a Neuron, got SRM; use AdjointSRM"):
            method.run(uneven(), S, a)
    with pytest.raises(TypeError, match=r"kernels of an SRM, got Neuron; use Adjoint\(Reset.KEPT\) for it"):
        AdjointSRM().run(lif(), S, a)
    (x, y), net = batch(), small()
    with pytest.raises(TypeError, match="kernels of an SRM, got Neuron"):
        Rule(S, AdjointSRM()).gradients(net, x, y, CrossEntropy())
    with pytest.raises(ValueError, match="AdjointSRM is for layers without recurrence"):
        AdjointSRM().run(uneven(), S, a, nn.Linear(N, N, bias=False, **F64))
    with pytest.raises(TypeError, match="reset must be one of"):
        AdjointSRM("kept")
    learned = SRM(torch.ones(3, **F64).requires_grad_(), -torch.ones(3, **F64))
    with pytest.raises(ValueError, match="no gradient of kernels or threshold; use Unrolled"):
        AdjointSRM().run(learned, S, a)
    with pytest.raises(ValueError, match=r"constants that require a gradient; make it by Learned"):
        Layer(nn.Linear(6, 3), learned)


@pytest.mark.parametrize("bad", [SRM, Neuron, lif, 0.9, None, torch.ones(3), Threshold()])
def test_what_is_no_neuron(bad):
    with pytest.raises(TypeError, match="neuron must be a Neuron such as"):
        Layer(nn.Linear(6, 3), bad)
