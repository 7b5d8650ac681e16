"""Spikes and gradients of the original authors' code."""

import pytest
import torch
from golden import Golden, equal, linear
from torch import nn

from snnlearn import (
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
    Threshold,
    Unrolled,
    lif,
    losses,
    no_reset,
    subtract_decayed,
    to_zero,
    to_zero_with_input,
)

METHODS = [Unrolled, Adjoint]
SINABS = {
    "lif_single": (subtract_decayed, Reset.KEPT),
    "iaf_single": (subtract_decayed, Reset.KEPT),
    "lif_hardreset": (to_zero, Reset.DETACHED),
    "lif_syn": (subtract_decayed, Reset.KEPT),
}


def spytorch(dtype):
    g = Golden("01_spytorch", dtype)
    alpha, beta = g["alpha"], g["beta"]
    hidden = Neuron(alpha, beta, 1.0, to_zero_with_input, Threshold(strict=True))
    out = Neuron(alpha, beta, 1.0, no_reset, Analog())
    net = Network(Layer(linear(g["w1"].T), hidden, delay=2), Layer(linear(g["w2"].T), out, delay=2))
    x = g.tm("x")
    x = torch.cat([x, torch.zeros_like(x[:1])])  # their readout has one step more
    return g, net, x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("tag", "reset"), [("", Reset.DETACHED), ("_resetattached", Reset.KEPT)])
def test_spytorch(tag, reset, method):
    g, net, x = spytorch(torch.float64)
    rule = Rule(FastSigmoid.from_steepness(g["surr_scale"]), method(reset))
    loss = CrossEntropy(losses.max_over_time)
    x.requires_grad_()
    hidden, out = net(x, rule)
    assert torch.equal(hidden.s[:-1], g.tm("spk_rec"))
    equal(hidden.U[:-1], g.tm("mem_rec"))
    equal(out.s, g.tm("out_rec"))
    value = rule.backward(net, x, g["y"], loss)
    equal(value, torch.tensor(g["loss"], dtype=torch.float64))
    equal(net.layers[0].synapse.weight.grad.T, g["grad_w1" + tag])
    equal(net.layers[1].synapse.weight.grad.T, g["grad_w2" + tag])
    equal(x.grad[:-1], g.tm("grad_x" + tag))


def test_spytorch_tells_the_resets_apart():
    g, net, x = spytorch(torch.float64)
    rule = Rule(FastSigmoid.from_steepness(g["surr_scale"]), Unrolled(Reset.KEPT))
    _, gradients = rule.gradients(net, x, g["y"], CrossEntropy())
    with pytest.raises(AssertionError):
        equal(gradients["layers.0.synapse.weight"].T, g["grad_w1"])


def test_spytorch_spikes_in_float32():
    g, net, x = spytorch(torch.float32)
    assert torch.equal(net(x, Rule())[0].s[:-1], g.tm("spk_rec"))
    assert g["spk_rec"].sum() > 0


def sinabs(variant, dtype, learned=False, method=Unrolled):
    g = Golden(f"02_sinabs_{variant}", dtype)
    reset, mode = SINABS[variant]
    alpha = g["alpha_syn"] if variant == "lif_syn" else 0.0

    def make(tau_mem=None):
        if tau_mem is None:
            return Neuron(alpha, g["alpha"], g["theta"], reset)
        decayed = lif(tau_mem=tau_mem, dt=1.0)
        return Neuron(alpha, decayed.beta, g["theta"], reset)

    def neuron():
        return Learned(make, tau_mem=nn.Parameter(torch.tensor(g["tau_mem"], dtype=dtype))) if learned else make()

    # Sinabs decays the input in the step in which it arrives: a gain of alpha at our layer
    gain = alpha if alpha else 1.0
    net = Network(*(Layer(linear(g[w]), neuron(), gain=gain) for w in ("W1", "W2")))
    rule = Rule(Exponential.from_scale(g["surr_grad_scale"], g["surr_grad_width"] * g["theta"]), method(mode))
    return g, net, rule


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", SINABS)
def test_sinabs(variant, method):
    g, net, rule = sinabs(variant, torch.float64, method=method)
    x = g.tm("x").clone().requires_grad_()
    first, second = net(x, rule)
    assert torch.equal(first.s, g.tm("s1"))
    assert torch.equal(second.s, g.tm("s2"))
    if "vmem1_pre" in g:
        equal(first.U, g.tm("vmem1_pre"))
    value = rule.backward(net, x, g.tm("G"), lambda out, G: (G * out).sum())
    equal(value, torch.tensor(g["loss"], dtype=torch.float64))
    equal(net.layers[0].synapse.weight.grad, g["grad_W1"])
    equal(net.layers[1].synapse.weight.grad, g["grad_W2"])
    equal(x.grad, g.tm("grad_x"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", [v for v in SINABS if v.startswith("lif")])
def test_sinabs_time_constants(variant, method):
    g, net, rule = sinabs(variant, torch.float64, learned=True, method=method)
    _, gradients = rule.gradients(net, g.tm("x"), g.tm("G"), lambda out, G: (G * out).sum())
    for i in (0, 1):  # what is learned is log tau: d/dlog tau = tau * d/dtau
        wanted = g["tau_mem"] * torch.tensor(g[f"grad_tau_mem{i + 1}"], dtype=torch.float64)
        equal(gradients[f"layers.{i}.source.log.tau_mem"], wanted)


@pytest.mark.parametrize("variant", SINABS)
def test_sinabs_spikes_in_float32(variant):
    g, net, rule = sinabs(variant, torch.float32)
    first, second = net(g.tm("x"), rule)
    assert torch.equal(first.s, g.tm("s1"))
    assert torch.equal(second.s, g.tm("s2"))
    assert g["s2"].sum() > 0


def test_sinabs_needs_the_reset():
    g, net, rule = sinabs("lif_single", torch.float64)
    ignoring = Rule(rule.surrogate, Unrolled(Reset.IGNORED))
    _, gradients = ignoring.gradients(net, g.tm("x"), g.tm("G"), lambda out, G: (G * out).sum())
    with pytest.raises(AssertionError):
        equal(gradients["layers.0.synapse.weight"], g["grad_W1"])
