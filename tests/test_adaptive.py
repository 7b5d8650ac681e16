"""Adaptive thresholds: the neuron, its eligibility as e-prop writes it and against backpropagation; DECOLLE's layer."""

import math

import numpy as np
import pytest
import torch
from golden import equal, linear
from torch import nn
from trials import SURROGATE, B, T, distance, spikes

from snnlearn import (
    RTRL,
    TSSLBP,
    Adaptive,
    Adjoint,
    Analog,
    DirectFeedback,
    Eligibility,
    FeedbackAlignment,
    Layer,
    LocalErrors,
    Network,
    Neuron,
    PiecewiseLinear,
    Reset,
    Rule,
    Threshold,
    Transpose,
    Unrolled,
    alif,
    no_reset,
    readout,
    to_zero,
)
from snnlearn.adaptive import AdaptiveState, refractory
from snnlearn.filters import Cascade, filtered
from snnlearn.losses import OverTime, cross_entropy, half_square
from snnlearn.network import decolle_layer

F64 = {"dtype": torch.float64}
CE, SQUARE = OverTime(cross_entropy, mean=True), OverTime(half_square)
NEURON = Adaptive(Neuron(0.5, 0.8), 0.95, 0.4)


def network(neuron=NEURON, recurrent=False, top=True, bias=True, seed=0):
    g = torch.Generator().manual_seed(seed)

    def layer(inputs, outputs, size, bias):
        made = nn.Linear(inputs, outputs, bias=bias, **F64)
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(size * (torch.rand(p.shape, generator=g, **F64) - 0.2))
        return made

    own = layer(4, 4, 0.1, False) if recurrent else None
    layers = [Layer(layer(5, 4, 0.6, bias), neuron, own)]
    if top:
        layers.append(Layer(layer(4, 3, 2.0, bias), readout(tau_mem=8e-3, tau_syn=3e-3)))
    return Network(*layers), spikes(seed)


def gradient(net, x, temporal, loss=CE, y=None):
    return Rule(SURROGATE, temporal).gradients(net, x, torch.arange(B) % 3 if y is None else y, loss)[1]


def test_the_threshold_rises_with_each_spike_and_sinks_back():
    """Against a scalar loop in the paper's letters: v, a, A, z."""
    net, x = network(bias=False, top=False)
    trace = net(x, Rule(SURROGATE))[0]
    W, n = net.layers[0].synapse.weight.detach().numpy(), NEURON
    for b in range(B):
        i = v = a = z = np.zeros(4)
        for t in range(T):
            i = n.alpha * i + W @ x[t, b].numpy()
            v = n.beta * v - n.theta * z + i
            a = n.rho * a + z
            A = n.theta + n.strength * a
            z = (v >= A).astype(float)
            np.testing.assert_array_equal(trace.s[t, b].detach(), z)
            np.testing.assert_allclose(trace.U[t, b].detach(), v - n.strength * a, atol=1e-12)
            np.testing.assert_allclose(trace.a[t, b].detach(), a, atol=1e-12)
    assert 0.1 < trace.s.mean() < 0.5
    plain = Network(Layer(net.layers[0].synapse, n.neuron))
    assert plain(x, Rule(SURROGATE))[0].s.sum() > trace.s.sum()


@pytest.mark.parametrize("method", [Unrolled(), RTRL()], ids=["unrolled", "rtrl"])
def test_without_strength_it_is_the_plain_neuron(method):
    for recurrent in (False, True):
        net, x = network(Adaptive(NEURON.neuron, 0.95, 0.0), recurrent)
        plain = Network(Layer(net.layers[0].synapse, NEURON.neuron, net.layers[0].recurrent), net.layers[1])
        assert distance(gradient(net, x, method), gradient(plain, x, method)) < 1e-12
        adaptive = Network(Layer(net.layers[0].synapse, NEURON, net.layers[0].recurrent), net.layers[1])
        assert distance(gradient(adaptive, x, method), gradient(plain, x, method)) > 1e-3


@pytest.mark.parametrize("recurrent", [False, True])
def test_rtrl_is_backpropagation(recurrent):
    net, x = network(recurrent=recurrent)
    for reset in (Reset.KEPT, Reset.DETACHED):
        assert distance(gradient(net, x, RTRL(reset)), gradient(net, x, Unrolled(reset))) < 1e-10
    assert distance(gradient(net, x, RTRL()), gradient(net, x, Unrolled(Reset.DETACHED))) > 1e-3


def test_pieces_and_windows():
    net, x = network(recurrent=True)
    rule, past, pieces = Rule(SURROGATE), None, []
    for piece in x.split(5):
        traces, past = net.run(piece, rule, past)
        pieces.append(traces[0].a)
        assert isinstance(past[0].state, AdaptiveState)
    assert torch.equal(torch.cat(pieces), net(x, rule)[0].a)
    full, cut = gradient(net, x, Unrolled()), gradient(net, x, Unrolled(window=4))
    assert distance(gradient(net, x, Unrolled(window=T)), full) == 0
    assert distance(cut, full) > 1e-3
    outs, past = [], None
    for piece in x.split(4):
        traces, past = net.run(piece, rule, past)
        outs.append(traces[-1].s)
        past = [torch.utils._pytree.tree_map(torch.Tensor.detach, p) for p in past]
    by_hand = torch.autograd.grad(CE(torch.cat(outs), torch.arange(B) % 3), list(net.parameters()))
    assert distance(cut, dict(zip(cut, by_hand, strict=True))) < 1e-10


class Smooth:
    """The step replaced by the surrogate's primitive, whose derivative the surrogate is."""

    analog = False

    def __call__(self, U, theta):
        return SURROGATE.primitive(U - theta)


@pytest.mark.parametrize("method", [Unrolled(), RTRL()], ids=["unrolled", "rtrl"])
def test_the_gradient_is_the_derivative_of_the_smooth_twin(method):
    net, x = network(Adaptive(Neuron(0.5, 0.8, fire=Smooth()), 0.95, 0.4), recurrent=True)
    found = gradient(net, x, method)
    kept = {name: p.detach().clone() for name, p in net.named_parameters()}
    g = torch.Generator().manual_seed(0)
    way = {name: torch.randn(p.shape, generator=g, **F64) for name, p in kept.items()}
    values, h = [], 1e-5
    for sign in (1, -1):
        net.load_state_dict({name: p + sign * h * way[name] for name, p in kept.items()})
        values.append(CE(net(x, Rule(SURROGATE))[-1].s, torch.arange(B) % 3).item())
    slope = (values[0] - values[1]) / (2 * h)
    assert abs(slope) > 1e-3
    assert sum((found[name] * way[name]).sum().item() for name in found) == pytest.approx(slope, rel=1e-6)


def test_eprop_by_the_papers_equations():
    """Bellec et al. 2020, Eqs. 1, 4, 22-25 and 28 in scalar loops: recurrent adaptive neurons, random broadcast B."""
    net, x = network(recurrent=True, bias=False, seed=3)
    surrogate = PiecewiseLinear(width=0.5, peak=0.3)  # 0.3 * max(0, 1 - |v - A|)
    feedback = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), **F64)
    rule = Rule(surrogate, Eligibility(through_readout=True), DirectFeedback([feedback]))
    y = torch.arange(B) % 3
    found = rule.gradients(net, x, y, CE)[1]

    layer, top, n = net.layers[0], net.layers[1], NEURON
    W, V, W_out = (m.weight.detach().numpy() for m in (layer.synapse, layer.recurrent, top.synapse))
    out_alpha, out_beta = top.neuron.alpha, top.neuron.beta
    dW, dV, dout = (np.zeros_like(w) for w in (W, V, W_out))
    for b in range(B):
        i = v = a = z = np.zeros(4)
        out_i = out = np.zeros(3)
        p_in = q_in = np.zeros(5)
        p_rec = q_rec = p_z = q_z = np.zeros(4)
        eps_in, eps_rec = np.zeros((4, 5)), np.zeros((4, 4))
        bar_in = [np.zeros((4, 5)), np.zeros((4, 5))]
        bar_rec = [np.zeros((4, 4)), np.zeros((4, 4))]
        for t in range(T):
            x_t, z_before = x[t, b].numpy(), z
            i = n.alpha * i + W @ x_t + V @ z_before
            v = n.beta * v - n.theta * z_before + i
            a = n.rho * a + z_before
            A = n.theta + n.strength * a
            z = (v >= A).astype(float)
            psi = 0.3 * np.maximum(0, 1 - np.abs(v - A))
            p_in = n.alpha * p_in + x_t
            q_in = n.beta * q_in + p_in
            p_rec = n.alpha * p_rec + z_before
            q_rec = n.beta * q_rec + p_rec
            e_in = psi[:, None] * (q_in[None] - n.strength * eps_in)  # Eq. 25
            e_rec = psi[:, None] * (q_rec[None] - n.strength * eps_rec)
            eps_in = psi[:, None] * q_in[None] + (n.rho - psi[:, None] * n.strength) * eps_in  # Eq. 24
            eps_rec = psi[:, None] * q_rec[None] + (n.rho - psi[:, None] * n.strength) * eps_rec
            for bar, e in ((bar_in, e_in), (bar_rec, e_rec)):
                bar[0] = out_alpha * bar[0] + e
                bar[1] = out_beta * bar[1] + bar[0]
            out_i = out_alpha * out_i + W_out @ z
            out = out_beta * out + out_i
            p_z = out_alpha * p_z + z
            q_z = out_beta * q_z + p_z
            error = np.exp(out) / np.exp(out).sum() - np.eye(3)[y[b]]
            signal = feedback.numpy().T @ error  # Eq. 4
            dW += signal[:, None] * bar_in[1] / (T * B)
            dV += signal[:, None] * bar_rec[1] / (T * B)
            dout += np.outer(error, q_z) / (T * B)
    equal(found["layers.0.synapse.weight"], torch.tensor(dW), 1e-10)
    equal(found["layers.0.recurrent.weight"], torch.tensor(dV), 1e-10)
    equal(found["layers.1.synapse.weight"], torch.tensor(dout), 1e-10)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_eprop_is_backpropagation_without_recurrence(seed, bias):
    """The reset of the membrane not seen, the adaptation seen."""
    net, x = network(bias=bias, seed=seed)
    exact = gradient(net, x, Unrolled(Reset.IGNORED))
    assert distance(gradient(net, x, Eligibility(through_readout=True)), exact) < 1e-10
    blind = gradient(net, x, Eligibility(through_readout=True, adaptation=False))
    assert distance(blind, exact) > 1e-3
    recurrent, x = network(recurrent=True, bias=bias, seed=seed)
    exact = gradient(recurrent, x, Unrolled(Reset.IGNORED))
    assert distance(gradient(recurrent, x, Eligibility(through_readout=True)), exact) > 1e-3


def test_a_loss_of_the_spikes_themselves():
    """Without a readout and without a filter the eligibility is still a matrix."""
    net, x = network(top=False)
    y = torch.zeros(T, B, 4, **F64)
    exact = gradient(net, x, Unrolled(Reset.IGNORED), SQUARE, y)
    assert distance(gradient(net, x, Eligibility(), SQUARE, y), exact) < 1e-10
    assert distance(gradient(net, x, Eligibility(adaptation=False), SQUARE, y), exact) > 1e-3


@pytest.mark.parametrize("spatial", ["transpose", "aligned", "direct", "local"])
def test_without_strength_the_matrix_is_the_vector(spatial):
    """Two hidden layers: the error goes down through the slopes above, as where traces are shared."""
    found = {}
    for strength in (0.0, 0.4, None):
        neuron = NEURON.neuron if strength is None else Adaptive(NEURON.neuron, 0.95, strength)
        net, x = network(neuron)
        top = net.layers[1]
        g = torch.Generator().manual_seed(5)
        middle = linear(torch.rand(4, 4, generator=g, **F64) - 0.2)
        net = Network(net.layers[0], Layer(middle, neuron, gain=1.3), top)
        g = torch.Generator().manual_seed(6)
        make = {
            "transpose": lambda net, g: Transpose(),
            "aligned": FeedbackAlignment.random,
            "direct": DirectFeedback.random,
            "local": LocalErrors.random,
        }[spatial]
        rule = Rule(SURROGATE, Eligibility(), make(net, g))
        found[strength] = rule.gradients(net, x, torch.arange(B) % 3, CE)[1]
    assert distance(found[0.0], found[None]) < 1e-12
    assert distance(found[0.4], found[None]) > 1e-3


def test_the_slow_trace_outlives_the_membrane():
    """Long after an input spike the eligibility holds on to it through the adaptation alone."""
    neuron = Adaptive(Neuron(0.0, 0.5), 0.99, 0.3)
    net = Network(
        Layer(linear(torch.full((1, 1), 1.2, **F64)), neuron), Layer(linear(torch.ones(1, 1, **F64)), readout())
    )
    x = torch.zeros(60, 1, 1, **F64)
    x[0] = 1
    rule = Rule(SURROGATE, Eligibility(through_readout=True))
    carry = rule.temporal.start(net, x[0], SQUARE, rule)
    for x_n in x:
        carry = rule.temporal.step(net, carry, x_n, torch.zeros(1, 1, **F64), SQUARE, rule).carry
    layer = carry.layers[0]
    assert layer.traces.q.item() < 1e-15
    assert layer.slow["synapse.weight"].item() > 0.05


def test_the_layers_filter_is_a_neuron_without_reset():
    """alpha and beta before the weights are alpha and beta behind them, but for the bias."""
    g = torch.Generator().manual_seed(0)
    W = linear(torch.randn(4, 5, generator=g, **F64))
    before = Layer(W, Neuron(0.0, 0.0, 1.0, no_reset, Analog()), filter=Cascade(0.6, 0.8, 0.3), delay=2)
    behind = Layer(W, Neuron(0.6, 0.8, 1.0, no_reset, Analog()), gain=0.3, delay=2)
    x = spikes(1)
    one, two = (Network(layer)(x, Rule(SURROGATE))[0].s for layer in (before, behind))
    torch.testing.assert_close(one, two)
    y = torch.zeros(T, B, 4, **F64)
    wanted = gradient(Network(behind), x, Unrolled(), SQUARE, y)
    for method in (Unrolled(), Adjoint(), RTRL(), Eligibility()):
        assert distance(gradient(Network(before), x, method, SQUARE, y), wanted) < 1e-10
    deep = [Network(Layer(linear(torch.eye(5, **F64)), Neuron(0.0, 0.7)), layer) for layer in (before, behind)]
    for method in (Unrolled(), Adjoint(), RTRL()):
        assert distance(*(gradient(net, x, method, SQUARE, y) for net in deep)) < 1e-10
    before.delay = 0
    with pytest.raises(ValueError, match="filters its input"):
        gradient(deep[0], x, Eligibility(), SQUARE, y)


def test_truncation_cuts_the_filter_too():
    neuron = Neuron(0.0, 0.0, 1.0, no_reset, Analog())
    layer = Layer(linear(torch.eye(5, **F64)), neuron, filter=Cascade(0.6, 0.8))
    x, rule = spikes(1).requires_grad_(), Rule(SURROGATE, Unrolled(window=4))
    out = Network(layer)(x, rule)[0].s
    found = torch.autograd.grad(out[5].sum(), x)[0]
    assert found[:4].abs().max() == 0
    assert found[4:6].abs().min() > 0
    past, pieces = None, []
    for piece in x.split(7):
        traces, past = Network(layer).run(piece, rule, past)
        pieces.append(traces[0].s)
    torch.testing.assert_close(torch.cat(pieces), out)
    torch.testing.assert_close(filtered(Cascade(0.6, 0.8), x), out)


def test_by_time_constants():
    neuron = alif(tau_mem=20e-3, tau_adapt=200e-3, strength=0.2, dt=2e-3)
    assert neuron.beta == pytest.approx(math.exp(-0.1))
    assert neuron.rho == pytest.approx(math.exp(-0.01))
    assert neuron.constants[-1] == 0.2
    fires = refractory(tau_ref=2e-3, weight=0.7, dt=1e-3)
    assert fires.rho == pytest.approx(math.exp(-0.5))
    assert fires.strength / (1 - fires.rho) == pytest.approx(0.7)
    layer = decolle_layer(nn.Linear(5, 4, **F64), tau_mem=10e-3, tau_syn=4e-3)
    ones = filtered(layer.filter, torch.ones(400, 1, 5, **F64))
    torch.testing.assert_close(ones[-1], torch.ones(1, 5, **F64))
    assert layer.delay == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Adaptive(readout(), 0.9, 1.0), TypeError, "a Neuron that fires"),
        (lambda: Adaptive(Neuron(), 1.0, 1.0), ValueError, "rho is a decay"),
        (lambda: Adaptive(Neuron(), 0.9, -1.0), ValueError, "not negative"),
        (lambda: Adaptive(Neuron(), 0.9, torch.ones(())), TypeError, "strength must be a number"),
        (lambda: alif(tau_adapt=0.0), ValueError, "time constant"),
        (lambda: refractory(tau_ref=-1.0), ValueError, "tau_ref"),
        (lambda: Cascade.normalised(1.0, 0.5), ValueError, "decays lie"),
        (lambda: Cascade.normalised("a", 0.5), ValueError, "decays lie"),
        (lambda: Cascade(2.0, 0.5), ValueError, "alpha is a decay"),
        (lambda: Layer(nn.Linear(2, 2), Neuron(), filter=Cascade), TypeError, "filter must be"),
        (lambda: alif(tau_adapt=torch.ones(2)), TypeError, "tau_adapt must be one number"),
        (lambda: decolle_layer(nn.Linear(2, 2), weight_ref=-1.0), ValueError, "weight of the refractory trace"),
        (lambda: Layer(nn.Linear(2, 2), Neuron(), filter=0.9), TypeError, "filter must be"),
        (lambda: Neuron(theta=0.0), ValueError, "threshold theta"),
        (lambda: Neuron(theta=-1.0, fire=Threshold(strict=True)), ValueError, "threshold theta"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_methods_that_know_one_state_refuse_it():
    net, x = network()
    with pytest.raises(TypeError, match="got Adaptive; use AdjointSRM for an SRM, or Unrolled"):
        gradient(net, x, Adjoint())
    net, x = network(Adaptive(Neuron(0.5, 0.8, reset=to_zero), 0.9, 0.1))
    with pytest.raises(TypeError, match="Unrolled"):
        gradient(net, x, TSSLBP())


def test_local_errors_on_decolles_layers_do_without_time():
    """The gradient is the error of the step times P: nothing else of the past is in it."""
    g = torch.Generator().manual_seed(0)
    first, second = (nn.Linear(n, m, **F64) for n, m in ((5, 6), (6, 4)))
    with torch.no_grad():
        for p in (*first.parameters(), *second.parameters()):
            p.copy_(2 * torch.randn(p.shape, generator=g, **F64))
    net = Network(decolle_layer(first), decolle_layer(second))
    spatial = LocalErrors.random(net, g, classes=3)
    rule, x, y = Rule(SURROGATE, Eligibility(adaptation=False), spatial), spikes(2), torch.arange(B) % 3
    found = rule.gradients(net, x, y, CE)[1]
    outputs = net(x, rule)
    assert all(0.05 < out.s.mean() < 0.9 for out in outputs)
    below = x
    for i, (layer, out, G) in enumerate(zip(net.layers, outputs, spatial.readouts, strict=True)):
        late = torch.cat([torch.zeros_like(below[:1]), below[:-1]])
        P = filtered(layer.filter, late)
        error = torch.softmax(out.s @ G.weight.T, -1) - torch.eye(3, **F64)[y]
        dU = (error @ G.weight) * SURROGATE.slope(out.U) / (T * B)
        equal(found[f"layers.{i}.synapse.weight"], torch.einsum("tbi,tbj->ij", dU, P).detach(), 1e-12)
        equal(found[f"layers.{i}.synapse.bias"], dU.sum((0, 1)).detach(), 1e-12)
        below = out.s


def test_a_late_readout_is_refused_for_adaptive_neurons_as_for_others():
    for neuron in (NEURON, NEURON.neuron):
        net, x = network(neuron)
        net.layers[1].delay = 2
        with pytest.raises(ValueError, match="has delay=2"):
            gradient(net, x, Eligibility())


def test_methods_for_one_membrane_refuse_it_before_anything_is_run():
    net, _ = network()
    for method in (Adjoint(), TSSLBP()):
        with pytest.raises(TypeError, match="got Adaptive"):
            Rule(SURROGATE, method).check(net, CE)
