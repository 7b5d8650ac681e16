"""The adjoint is the unrolled gradient, reset by reset, with recurrence, delay, learned constants and pieces."""

import itertools
import math

import pytest
import torch
from test_network import F64, LOSS, B, T, build, data, flat
from torch import nn

from snnlearn import (
    Adjoint,
    Analog,
    Bounded,
    FastSigmoid,
    Learned,
    Neuron,
    Reset,
    Rule,
    State,
    Threshold,
    Unrolled,
    cuba_lif,
    no_reset,
    subtract,
    subtract_decayed,
    to_zero,
    to_zero_with_input,
)

RESETS = [
    subtract,
    subtract_decayed,
    to_zero,
    to_zero_with_input,
    no_reset,
    Bounded(subtract, -0.2),
    Bounded(subtract, -0.2, before_input=False),
]
NAMES = [getattr(reset, "__name__", f"bounded{i}") for i, reset in enumerate(RESETS)]
S = FastSigmoid(0.2)


def close(a, b):
    assert b.abs().max() > 0
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * b.abs().max().item())


@pytest.mark.parametrize("mode", Reset)
@pytest.mark.parametrize("reset", RESETS, ids=NAMES)
def test_adjoint_is_unrolled(reset, mode):
    """T = 24 is more than one block of the recursion."""
    x, y = data()
    net = build(recurrent=True, reset=reset)
    for source in (net.layers[0], net.layers[1]):  # constants learned per neuron, so that their gradients count too
        made = {k: nn.Parameter(torch.linspace(lo, hi, 5, **F64)) for k, lo, hi in CONSTANTS}
        source.source = Learned(cuba_lif, reset=reset, **made)
    (one, a), (two, b) = (Rule(S, m(mode)).gradients(net, x, y, LOSS) for m in (Adjoint, Unrolled))
    assert torch.equal(one, two)
    assert len(b) == 14
    for name in b:
        if reset is no_reset and "recurrent" not in name and b[name].abs().max() == 0:
            continue
        close(a[name], b[name])


CONSTANTS = [("tau_mem", 5e-3, 9e-3), ("tau_syn", 2e-3, 4e-3), ("theta", 0.9, 1.2)]


@pytest.mark.parametrize(("delay", "lag", "recurrent"), list(itertools.product((0, 2), (1, 3), (False, True))))
def test_delay_lag_and_recurrence(delay, lag, recurrent):
    net, (x, y) = build(delay, lag, recurrent), data()
    a, b, control = (Rule(S, t).gradients(net, x, y, LOSS)[1] for t in (Adjoint(), Unrolled(), Adjoint(Reset.IGNORED)))
    for name in b:
        close(a[name], b[name])
    assert not torch.allclose(flat(control), flat(b), rtol=1e-2)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("cut", [2, 7, 17])
def test_gradients_pass_from_piece_to_piece(cut, lag, recurrent):
    net, (x, y) = build(1, lag, recurrent), data()
    rule = Rule(S, Adjoint())
    whole = rule.gradients(net, x, y, LOSS)[1]
    past, outs = None, []
    for piece in (x[:cut], x[cut:]):
        traces, past = net.run(piece, rule, past)
        outs.append(traces[-1].s)
    pieces = torch.autograd.grad(LOSS(torch.cat(outs), y), list(net.parameters()))
    for got, name in zip(pieces, whole, strict=True):
        close(got, whole[name])


def test_a_recurrent_module_that_uses_another_twice():
    twice = nn.Linear(5, 5, bias=False, **F64)
    net, (x, y) = build(recurrent=True), data()
    net.layers[0].recurrent = nn.Sequential(twice, twice)
    for _ in range(2):
        a, b = (Rule(S, t).gradients(net, x, y, LOSS)[1] for t in (Adjoint(), Unrolled()))
        close(flat(a), flat(b))
    assert isinstance(twice.weight, nn.Parameter)


@pytest.mark.parametrize("part", ["I", "U", "s"])
def test_losses_on_current_membrane_and_spikes(part):
    neuron = cuba_lif(tau_mem=8e-3, tau_syn=3e-3)
    a = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(0), **F64).requires_grad_()
    G = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(1), **F64)
    grads = [
        torch.autograd.grad((getattr(method.run(neuron, S, a), part) * G).sum(), a)[0]
        for method in (Adjoint(), Unrolled())
    ]
    close(*grads)


@pytest.mark.parametrize("mode", Reset)
@pytest.mark.parametrize("reset", [subtract, to_zero])
def test_gradient_of_the_state_before(reset, mode):
    neuron, g = cuba_lif(tau_mem=8e-3, reset=reset), torch.Generator().manual_seed(0)
    a, grads = torch.randn(T, B, 3, generator=g, **F64), []
    for method in (Adjoint, Unrolled):
        state = State(*(x.clone().requires_grad_() for x in (a[0], a[1], (a[2] > 0).double())))
        loss = method(mode).run(neuron, S, a, state=state).s.square().sum()
        grads.append(torch.autograd.grad(loss, state, allow_unused=True, materialize_grads=True))
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reset", [subtract, no_reset])
def test_threshold_of_a_readout(reset):
    """A readout's output does not depend on theta but through its reset."""
    a, grads = torch.rand(T, B, 3, generator=torch.Generator().manual_seed(0), **F64), []
    for method in (Adjoint(), Unrolled()):
        theta = torch.tensor(1.0, **F64).requires_grad_()
        out = method.run(Neuron(0.5, 0.8, theta, reset, Analog()), S, a).s.square().sum()
        out = out + 0 * theta
        grads.append(torch.autograd.grad(out, theta)[0])
    torch.testing.assert_close(*grads)


def test_a_method_of_ones_own_sees_spikes():
    class BySpikes(Adjoint):
        lean = False

        def credit(self, neuron, surrogate, trace, state):
            assert set(trace.s.unique().tolist()) <= {0.0, 1.0}
            return Adjoint.credit(self, neuron, surrogate, trace, state)._replace(f=trace.s)

    a = torch.rand(T, B, 3, generator=torch.Generator().manual_seed(0), **F64).requires_grad_()
    (grad,) = torch.autograd.grad(BySpikes().run(cuba_lif(tau_mem=8e-3), S, a).s.sum(), a)
    assert grad.abs().sum() > 0


def test_several_spikes_a_step():
    neuron = Neuron(0.5, 0.8, fire=Threshold(most=math.inf))
    a = 2 * torch.rand(T, B, 3, generator=torch.Generator().manual_seed(0), **F64)
    a.requires_grad_()
    runs = [m.run(neuron, S, a).s for m in (Adjoint(), Unrolled())]
    assert runs[0].max() > 1
    close(*(torch.autograd.grad(s.square().sum(), a)[0] for s in runs))


def test_under_func_and_vmap():
    neuron, W = cuba_lif(tau_mem=8e-3), torch.randn(3, 6, **F64)
    x, _ = data()

    def loss(W, x):
        return Adjoint().run(neuron, S, x @ W.T).s.square().sum()

    W.requires_grad_()
    loss(W, x).backward()
    close(torch.func.grad(loss)(W.detach(), x), W.grad)
    each = torch.func.vmap(torch.func.grad(loss), (None, 1))(W.detach(), x.unsqueeze(2))
    close(each.sum(0), W.grad)


def test_it_keeps_no_more_than_it_needs():
    """In tensors of the layer's size: U for a subtraction, U and s for a reset to zero."""

    def kept(method, neuron):
        seen, total = set(), 0

        def pack(t):
            nonlocal total
            if t.data_ptr() not in seen:
                seen.add(t.data_ptr())
                total += t.numel() * t.element_size()
            return t

        a = torch.randn(200, 4, 32, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = method.run(neuron, S, a).s
        return total / (out.numel() * out.element_size())

    assert kept(Adjoint(), cuba_lif()) < 1.1
    assert kept(Adjoint(), cuba_lif(reset=to_zero)) < 2.1 < kept(Unrolled(), cuba_lif(reset=to_zero))


def test_refusals():
    with pytest.raises(TypeError, match="reset must be one of"):
        Adjoint("kept")
    with pytest.raises(TypeError, match="recurrent must be a torch module, got function"):
        Adjoint().run(cuba_lif(), S, torch.zeros(2, 1, 1), lambda s: s)
