"""EXODUS and SLAYER against their authors' kernels and independent derivations, through both methods."""

import math

import pytest
import torch
from golden import Golden, equal, linear

from snnlearn import (
    Adjoint,
    Bounded,
    Exponential,
    Layer,
    Network,
    Neuron,
    Reset,
    Rule,
    Threshold,
    Unrolled,
    subtract,
    subtract_decayed,
)

methods = pytest.mark.parametrize("method", [Unrolled, Adjoint])


def check(g, neuron, surrogate, temporal, prefix):
    """Two layers without bias, loss = sum(G * s2): spikes, loss, and the gradients of weights and input."""
    net = Network(*(Layer(linear(g[w]), neuron) for w in ("W1", "W2")))
    x = g.tm("x").clone().requires_grad_()
    rule = Rule(surrogate, temporal)
    first, second = net(x, rule)
    assert torch.equal(first.s, g.tm("s1"))
    assert torch.equal(second.s, g.tm("s2"))
    value = rule.backward(net, x, g.tm("G"), lambda out, G: (G * out).sum())
    equal(value, torch.tensor(g["loss"], dtype=torch.float64))
    equal(net.layers[0].synapse.weight.grad, g[prefix + "W1"])
    equal(net.layers[1].synapse.weight.grad, g[prefix + "W2"])
    equal(x.grad, g.tm(prefix + "x"))


def sinabs(g, **changes):
    settings = {"beta": g["alpha"], "theta": g["theta"], "reset": subtract_decayed, **changes}
    surrogate = Exponential.from_scale(g["surr_grad_scale"], g["surr_grad_width"] * g["theta"])
    return Neuron(**settings), surrogate


@methods
@pytest.mark.parametrize("prefix", ["grad_", "exodus_grad_"])
def test_several_spikes_a_step(prefix, method):
    g = Golden("02_sinabs_lif_multi")
    neuron, surrogate = sinabs(g, fire=Threshold(most=g["kmax"] or math.inf))
    assert g["s1"].max() > 1
    check(g, neuron, surrogate, method(Reset.KEPT), prefix)


@methods
@pytest.mark.parametrize(("prefix", "before_input"), [("grad_", True), ("exodus_grad_", False)])
def test_lower_bound(prefix, before_input, method):
    """The authors' two codes treat the bound differently; both are here."""
    g = Golden("02_sinabs_lif_minv")
    neuron, surrogate = sinabs(g, reset=Bounded(subtract_decayed, g["min_v_mem"], before_input))
    check(g, neuron, surrogate, method(Reset.KEPT), prefix)


@pytest.mark.parametrize("kind", ["lif", "iaf"])
@methods
def test_slayer_and_exodus_on_the_same_network(kind, method):
    g = Golden(f"03_slayer_{kind}")
    neuron, surrogate = sinabs(g)
    check(g, neuron, surrogate, method(Reset.IGNORED), "slayer_grad_")
    check(g, neuron, surrogate, method(Reset.KEPT), "exact_grad_")
    with pytest.raises(AssertionError):
        check(g, neuron, surrogate, method(Reset.IGNORED), "exact_grad_")


@pytest.mark.parametrize(("kind", "reset"), [("paper", subtract), ("sinabs", subtract_decayed)])
@methods
def test_exodus_equations(kind, reset, method):
    """Eqs. 5-19 solved as the T x T system of Eq. 9."""
    g = Golden(f"10_exodus_lif_{kind}")
    neuron = Neuron(beta=g["alpha"], theta=g["theta"], reset=reset)
    surrogate = Exponential.from_scale(1.0, g["surr_width"])
    check(g, neuron, surrogate, method(Reset.KEPT), "grad_")
    check(g, neuron, surrogate, method(Reset.IGNORED), "slayer_grad_")
