"""TSSL-BP: its authors' numbers, the paper's double sum written out, and what is refused."""

import math

import pytest
import torch
from golden import Golden, equal, linear
from trials import B, T

from snnlearn import (
    TSSLBP,
    Adjoint,
    CrossEntropy,
    FastSigmoid,
    Layer,
    Learned,
    Network,
    Neuron,
    Rule,
    Threshold,
    cuba_lif,
    readout,
    subtract,
    to_zero,
)
from snnlearn.filters import Exponentials, filtered
from snnlearn.losses import CurrentCount, OverTime, half_square, van_rossum
from snnlearn.temporal.tsslbp import Fallback

F64 = {"dtype": torch.float64}
UNUSED = FastSigmoid()


def neuron(tau_m, tau_s=None, theta=1.0):
    alpha = 0.0 if tau_s is None else 1 - 1 / tau_s
    return Neuron(alpha, 1 - 1 / tau_m, theta, to_zero, Threshold(strict=True))


VARIANTS = {
    "grad_I": lambda tau_s: TSSLBP.authors_code(tau_s),
    "grad_I_noclamp_numpy": lambda tau_s: TSSLBP(largest=math.inf, tau_s=tau_s),
    "grad_I_nofallback_numpy": lambda tau_s: TSSLBP(fallback=None),
    "grad_I_nointra_numpy": lambda tau_s: TSSLBP(intra=False, tau_s=tau_s),
    "grad_I_plain_numpy": lambda tau_s: TSSLBP(largest=math.inf, fallback=None),
}


@pytest.mark.parametrize("key", VARIANTS)
def test_a_layer_with_each_heuristic_off(key):
    g = Golden("05_tsslbp_fn")
    a = g["I"].permute(2, 0, 1).requires_grad_()
    trace = VARIANTS[key](g["tau_s"]).run(neuron(g["tau_m"], theta=float(g["threshold"])), UNUSED, a)
    psc = filtered(Exponentials.postsynaptic(g["tau_s"]), trace.s)
    (psc * g["cotangent"].permute(2, 0, 1)).sum().backward()
    assert torch.equal(trace.s, g["spikes"].permute(2, 0, 1).double())
    equal(trace.U, g["mem"].permute(2, 0, 1))
    equal(psc, g["psc"].permute(2, 0, 1))
    equal(a.grad, g[key].permute(2, 0, 1))
    others = [g[k] for k in VARIANTS if k != key]
    assert all((g[key] - other).abs().max() > 1e-3 for other in others)  # each switch does something here


def test_the_network():
    """Spikes between layers, the current in the receiver; the target filtered twice, as the authors' code does."""
    g = Golden("05_tsslbp")

    def tm(key):
        return g[key].flatten(1, -2).permute(2, 0, 1).double()

    n = neuron(g["tau_m"], g["tau_s"], float(g["threshold"]))
    net = Network(*(Layer(linear(g[W]), n, gain=1 / g["tau_s"]) for W in ("W1", "W2")))
    x = tm("x").requires_grad_()
    traces = net(x, Rule(UNUSED, TSSLBP()))
    loss = van_rossum(Exponentials.postsynaptic(g["tau_s"]))(traces[-1].s, tm("targets_psp_once"))
    loss.backward()
    for trace, key in zip(traces, ("spikes1", "spikes2"), strict=True):
        assert torch.equal(trace.s, tm(key))
    assert loss.item() == pytest.approx(g["loss"], rel=1e-12)
    equal(x.grad, tm("grad_x"))
    for layer, key in zip(net.layers, ("grad_W1", "grad_W2"), strict=True):
        equal(layer.synapse.weight.grad, g[key])


def test_the_losses():
    g = Golden("05_tsslbp_loss")
    spikes, y = g["spikes"].permute(2, 0, 1).double().requires_grad_(), g["labels"]
    eps = Exponentials.postsynaptic(g["tau_s"])
    psc = filtered(eps, spikes)
    equal(psc, g["psc"].permute(2, 0, 1))

    def check(value, key):
        """The file's gradients are those of the currents."""
        assert value.item() == pytest.approx(g["loss_" + key], rel=1e-12)
        wanted = torch.autograd.grad(psc, spikes, g["grad_" + key].permute(2, 0, 1), retain_graph=True)[0]
        equal(torch.autograd.grad(value, spikes, retain_graph=True)[0], wanted)

    check(3 * CurrentCount(g["desired_count"], g["undesired_count"], g["tau_s"])(spikes, y), "count")  # a sum over 3
    check(van_rossum(eps)(spikes, g["desired_spikes"].permute(2, 0, 1).double()), "kernel")
    check(CrossEntropy(lambda out: out.sum(0))(psc, y), "softmax")


def double_sum(U, s, g, tau_m, tau_s, largest, leak):
    """Eqs. 8-14 for one neuron, pair of times by pair of times; g = dE/da at every step. Returns dE/dI."""
    steps = len(U)
    eps = [(1 - 1 / tau_s) ** k / tau_s for k in range(steps)]
    speed = [U[m] - (U[m - 1] * (1 - s[m - 1]) if m else 0.0) for m in range(steps)]
    f = [min(1 / speed[m], largest) if s[m] else 0.0 for m in range(steps)]
    phi = [[0.0] * steps for _ in range(steps)]  # phi[k][m], da[k]/du[m]
    for m in reversed(range(steps)):
        nxt = next((p for p in range(m + 1, steps) if s[p]), None)
        for k in range(m, steps):
            phi[k][m] = f[m] * eps[k - m]  # Eqs. 11-12
            if nxt is None or k < nxt:
                continue
            if s[m]:  # Eqs. 13-14: an earlier spike leaves more time to leak upwards until the next
                reset = f[m] * U[m] / tau_m
                phi[k][m] += phi[k][nxt] * reset * (1 - 1 / tau_m) ** (nxt - m - 1)
            elif leak:
                phi[k][m] += phi[k][nxt] * (1 - 1 / tau_m) ** (nxt - m)
    return [sum(phi[k][m] * g[k] for k in range(m, steps)) for m in range(steps)]


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("largest", [8.0, math.inf])
def test_the_recursion_is_the_double_sum(largest, leak):
    tau_m, tau_s, steps = 7.0, 3.0, 40
    gen = torch.Generator().manual_seed(1)
    a = (0.6 * torch.rand(steps, 1, 6, generator=gen, **F64) - 0.05).requires_grad_()
    trace = TSSLBP(largest=largest, leak=leak, fallback=None).run(neuron(tau_m), UNUSED, a)
    assert 0.1 < trace.s.mean() < 0.4
    cotangent = torch.randn(steps, 1, 6, generator=gen, **F64)
    (filtered(Exponentials.postsynaptic(tau_s), trace.s) * cotangent).sum().backward()
    for i in range(6):
        U, s, g = (v[:, 0, i].tolist() for v in (trace.U, trace.s, cotangent))
        equal(a.grad[:, 0, i], torch.tensor(double_sum(U, s, g, tau_m, tau_s, largest, leak), **F64), 1e-12)


def test_a_membrane_that_stands_still_has_no_credit_and_no_nan():
    """1/u' is infinite there, and times a spike that is not there it would be NaN."""
    a = torch.zeros(6, 1, 2, **F64)
    a[3, :, 0] = 2.0
    a.requires_grad_()
    s = TSSLBP.paper().run(neuron(8.0), UNUSED, a).s
    s.sum().backward()
    assert s.sum() == 1
    assert a.grad[3, 0, 0] == 0.5
    assert torch.isfinite(a.grad).all()
    assert a.grad[:, 0, 1].abs().max() == 0


def test_paper_and_code_differ_and_a_silent_layer_learns_by_the_fallback_alone():
    a = torch.full((T, B, 3), 0.02, **F64)
    found = {}
    for name, method in (("paper", TSSLBP.paper()), ("code", TSSLBP.authors_code(tau_s=3.0))):
        current = a.clone().requires_grad_()
        s = method.run(neuron(8.0), UNUSED, current).s
        assert s.sum() == 0
        (s - 1).square().sum().backward()
        found[name] = current.grad
    assert found["paper"].abs().max() == 0
    assert found["code"].abs().max() > 0
    assert TSSLBP.paper() != TSSLBP.authors_code()


def test_a_readout_is_differentiated_as_it_stands():
    a = torch.rand(T, B, 3, generator=torch.Generator().manual_seed(0), **F64)
    grads = []
    for method in (TSSLBP(), Adjoint()):
        current = a.clone().requires_grad_()
        method.run(readout(tau_mem=8e-3), UNUSED, current).s.square().sum().backward()
        grads.append(current.grad)
    equal(*grads, 1e-14)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (cuba_lif(reset=subtract), "reset to zero"),
        (Learned(cuba_lif, reset=to_zero, theta=torch.nn.Parameter(torch.ones((), **F64))), "no gradient of"),
        (cuba_lif(reset=to_zero, fire=Threshold(most=3)), "one spike"),
        (Neuron(1.0, 0.9, reset=to_zero), "never decays"),
    ],
)
def test_neurons_for_which_it_means_nothing_are_refused(source, message):
    net = Network(Layer(torch.nn.Linear(2, 2, **F64), source))
    with pytest.raises(ValueError, match=message):
        net(torch.ones(3, 1, 2, **F64), Rule(UNUSED, TSSLBP()))


def test_pieces_are_refused_where_the_fallback_would_forget_spikes():
    net = Network(Layer(torch.nn.Linear(2, 2, **F64), neuron(5.0, 3.0)))
    x = torch.ones(3, 1, 2, **F64)
    with torch.no_grad():
        net.layers[0].synapse.weight.fill_(2.0)
    past = net.run(x, Rule(UNUSED, TSSLBP()))[1]
    with pytest.raises(ValueError, match="in pieces"):
        net.run(x, Rule(UNUSED, TSSLBP()), past)
    whole = Rule(UNUSED, TSSLBP(fallback=None)).gradients(net, torch.cat([x, x]), torch.zeros(6, 1, 2, **F64), SQUARE)
    assert whole[1]["layers.0.synapse.weight"].abs().max() > 0
    rule = Rule(UNUSED, TSSLBP(fallback=None))
    with pytest.raises(ValueError, match="detach the state"):
        net.run(x, rule, past)
    net.run(x, rule, [torch.utils._pytree.tree_map(torch.Tensor.detach, p) for p in past])


def test_zeros_are_not_rest():
    """A spike may be two steps ago, and the membrane at 0 again: the fallback would forget it."""
    n, a = neuron(5.0), torch.zeros(2, 1, 1, **F64)
    a[0] = 2.0
    state = TSSLBP(tau_s=3.0).run(n, UNUSED, a).last
    assert not any(x.any() for x in state)
    with pytest.raises(ValueError, match="in pieces"):
        TSSLBP(tau_s=3.0).run(n, UNUSED, a, state=state)
    TSSLBP(tau_s=3.0).run(n, UNUSED, a, state=n.start(a[0]))


def test_the_fallback_takes_its_time_constant_from_the_neuron():
    a = 0.12 * torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), **F64)
    found = {}
    for tau_s in (None, 9.0, 3.0):
        current = a.clone().requires_grad_()
        TSSLBP(tau_s=tau_s).run(neuron(8.0, 9.0), UNUSED, current).s.sum().backward()
        found[tau_s] = current.grad
    equal(found[None], found[9.0], 1e-14)
    assert not torch.allclose(found[3.0], found[9.0])


def test_the_fallbacks_slope():
    """exp(z) / ((1 + exp(z))**2 width), and constant where z is clamped."""
    slope = Fallback(width=0.2, limit=8.0).slope
    x = torch.tensor([0.0, 0.1, -0.3, -2.0, -5.0, 5.0], **F64)
    z = torch.tensor([0.0, -0.5, 1.5, 8.0, 8.0, -8.0], **F64)
    torch.testing.assert_close(slope(x), torch.exp(z) / (1 + torch.exp(z)) ** 2 / 0.2)


def test_without_leak_silent_steps_get_nothing_but_the_fallback():
    a = 0.4 * torch.rand(T, B, 4, generator=torch.Generator().manual_seed(3), **F64)
    found = {}
    for leak in (True, False):
        current = a.clone().requires_grad_()
        trace = TSSLBP(leak=leak, tau_s=3.0).run(neuron(8.0), UNUSED, current)
        filtered(Exponentials.postsynaptic(3.0), trace.s).sum().backward()
        found[leak] = current.grad
    weak = filtered(Exponentials.postsynaptic(3.0), trace.s) < 0.25 / 3
    silent = (trace.s == 0) & ~weak
    assert silent.any()
    assert found[False][silent].abs().max() == 0
    assert found[True][silent].abs().max() > 0
    equal(found[False][~silent], found[True][~silent], 1e-14)


SQUARE = OverTime(half_square)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: TSSLBP(largest=0),
        lambda: TSSLBP(largest=math.nan),
        lambda: TSSLBP(fallback=True),
        lambda: TSSLBP(tau_s=0.5),
        lambda: Fallback(width=0),
        lambda: Fallback(limit=-1),
        lambda: Fallback(share=math.inf),
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match=r"must|at least"):
        bad()
