"""Layers, networks, rules and the torch-module way in."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from snnlearn import (
    LIF,
    Adjoint,
    Bounded,
    CrossEntropy,
    FastSigmoid,
    Layer,
    Learned,
    Network,
    Neuron,
    PerStep,
    Reset,
    Rule,
    SpikeCount,
    Threshold,
    Transpose,
    Unrolled,
    cuba_lif,
    lif,
    losses,
    readout,
    recipes,
    subtract_decayed,
    to_zero,
    to_zero_with_input,
)
from snnlearn.spatial import connect

T, B = 24, 4
F64 = {"dtype": torch.float64}
RULE = Rule(FastSigmoid(0.2), Unrolled())
LOSS = CrossEntropy(over=losses.mean_over_time, scale=5.0)


def data(features=(6,), seed=0):
    g = torch.Generator().manual_seed(seed)
    x = (torch.rand(T, B, *features, generator=g) < 0.4).double()
    return x, torch.randint(3, (B,), generator=g)


def build(delay=0, lag=1, recurrent=False, reset=None, seed=1, neuron=None):
    torch.manual_seed(seed)
    neuron = neuron or cuba_lif(tau_mem=8e-3, tau_syn=3e-3, **({} if reset is None else {"reset": reset}))

    def back():
        return nn.Linear(5, 5, bias=False, **F64) if recurrent else None

    net = Network(
        Layer(nn.Linear(6, 5, **F64), neuron, back(), delay=delay, lag=lag),
        Layer(nn.Linear(5, 5, **F64), neuron, back(), delay=delay, lag=lag),
        Layer(nn.Linear(5, 3, **F64), readout(tau_mem=8e-3, tau_syn=3e-3)),
    )
    with torch.no_grad():
        for p in net.parameters():
            p *= 1.6
    return net


# Dynamics.


@pytest.mark.parametrize(("delay", "lag", "recurrent"), list(itertools.product((0, 2), (1, 3), (False, True))))
def test_a_sequence_in_pieces(delay, lag, recurrent):
    """What to remember goes in and comes out: any cut gives the same spikes, down to single steps."""
    net, (x, _) = build(delay, lag, recurrent), data()
    whole = net(x, RULE)
    assert all(trace.s.abs().sum() > 0 for trace in whole)
    for cuts in ((7, 17), (1,) * T, (2, 22)):
        past, pieces = None, []
        for piece in x.split(cuts):
            traces, past = net.run(piece, RULE, past)
            pieces.append(traces)
        for i, trace in enumerate(whole):
            torch.testing.assert_close(torch.cat([p[i].s for p in pieces]), trace.s, rtol=1e-12, atol=1e-12)


def test_delay_shifts_the_input_and_not_the_bias():
    net, (x, _) = build(delay=2), data()
    layer = net.layers[0]
    trace, _ = layer.run(0, [x], RULE)
    late = torch.cat([torch.zeros_like(x[:2]), x[:-2]])
    assert torch.equal(trace.U, layer.neuron.simulate(layer.synapse(late)).U)
    assert trace.I[0].abs().sum() > 0  # the bias is there from the first step


def test_the_papers_delay():
    """Tutorial Eqs. 7-8: an input spike at n reaches I at n+1 and U at n+2, that is delay=2 here."""
    neuron = cuba_lif(theta=100.0)
    layer = Layer(nn.Linear(1, 1, bias=False, **F64), neuron, delay=2)
    x = torch.zeros(6, 1, 1, **F64)
    x[1] = 1.0
    U = layer.run(0, [x], RULE)[0].U.flatten()
    I_paper, U_paper, w = torch.zeros(7), torch.zeros(7), layer.synapse.weight.item()
    for n in range(5):
        I_paper[n + 1] = neuron.alpha * I_paper[n] + w * x[n].item()
        U_paper[n + 1] = neuron.beta * U_paper[n] + I_paper[n]
    torch.testing.assert_close(U.float().detach(), U_paper[:6])
    assert U[:3].abs().sum() == 0
    assert U[3] != 0


def test_gain_scales_the_synapse_with_its_bias():
    net, (x, _) = build(), data()
    layer = net.layers[0]
    plain = layer.current(0, [x.flatten(0, 1)], RULE)
    layer.gain = 0.25
    torch.testing.assert_close(layer.current(0, [x.flatten(0, 1)], RULE), 0.25 * plain)


def test_time_and_batch_do_not_mix():
    """nn.Flatten and pooling see one sample at one step."""
    torch.manual_seed(0)
    synapse = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, **F64), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4, **F64)
    )
    net = Network(Layer(synapse, lif(tau_mem=5e-3)))
    x, _ = data((2, 4, 4))
    together = net(5 * x, RULE)[0].s
    assert together.sum() > 0
    for b in range(B):
        assert torch.equal(net(5 * x[:, b : b + 1], RULE)[0].s, together[:, b : b + 1])


# Gradients.


def by_hand(net, x, e_of):
    """The reverse recursion of a one-layer network with subtraction, written out: lam, kap, dL/dW."""
    layer = net.layers[0]
    neuron, surrogate = layer.neuron, RULE.surrogate
    trace = net(x, RULE)[0]
    f, e = surrogate.slope(trace.U - neuron.theta).detach(), e_of(trace.s.detach())
    lam, kap = torch.zeros_like(f[0]), torch.zeros_like(f[0])
    dW = torch.zeros_like(layer.synapse.weight)
    for n in reversed(range(len(x))):
        lam = f[n] * e[n] + (neuron.beta - neuron.theta * f[n]) * lam
        kap = lam + neuron.alpha * kap
        dW += kap.T @ x[n]
    return dW


def test_unrolled_is_the_reverse_recursion():
    torch.manual_seed(3)
    net = Network(Layer(nn.Linear(6, 5, bias=False, **F64), cuba_lif(tau_mem=8e-3, tau_syn=3e-3)))
    x, _ = data()
    G = torch.randn(T, B, 5, generator=torch.Generator().manual_seed(2), **F64)
    _, gradients = RULE.gradients(net, 3 * x, G, lambda s, G: (G * s).sum())
    torch.testing.assert_close(gradients["layers.0.synapse.weight"], by_hand(net, 3 * x, lambda s: G))


class Smooth:
    """The primitive in place of the step: a network that is differentiable as it stands."""

    analog = False

    def __init__(self, surrogate):
        self.surrogate = surrogate

    def __call__(self, U, theta):
        return self.surrogate.primitive(U - theta)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("reset", [subtract_decayed, to_zero, to_zero_with_input])
def test_gradient_of_the_smoothed_twin_is_its_finite_difference(reset, recurrent):
    """With the primitive forward, the rule's slope is the true derivative, through reset, recurrence and delay."""
    surrogate = FastSigmoid(0.3).with_area(1.0)
    neuron = Neuron(0.7, 0.8, 1.0, reset, Smooth(surrogate))
    net, (x, y) = build(1, 2, recurrent, neuron=neuron), data()
    rule = Rule(surrogate, Unrolled())
    value, gradients = rule.gradients(net, x, y, LOSS)
    for name, p in net.named_parameters():
        direction = torch.randn(p.shape, generator=torch.Generator().manual_seed(5), **F64)
        kept, h = p.detach().clone(), 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p.copy_(kept + sign * h * direction)
                values.append(LOSS(net(x, rule)[-1].s, y).item())
        with torch.no_grad():
            p.copy_(kept)
        finite = (values[0] - values[1]) / (2 * h)
        assert (gradients[name] * direction).sum().item() == pytest.approx(finite, rel=1e-5, abs=1e-9), name
    assert value > 0


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients.values()])


def test_what_the_gradient_sees_of_the_reset():
    """Detached and ignored agree for subtraction only; kept differs from both; no forward value changes."""
    x, y = data()
    for reset, same in ((None, True), (to_zero, False)):
        net = build(reset=reset)
        rules = {mode: Rule(FastSigmoid(0.2), Unrolled(mode)) for mode in Reset}
        g = {mode: flat(rule.gradients(net, x, y, LOSS)[1]) for mode, rule in rules.items()}
        outs = [net(x, rule)[-1].s for rule in rules.values()]
        assert torch.equal(outs[0], outs[1])
        assert torch.equal(outs[0], outs[2])
        assert torch.allclose(g[Reset.DETACHED], g[Reset.IGNORED], rtol=1e-12) is same
        assert not torch.allclose(g[Reset.KEPT], g[Reset.DETACHED], rtol=1e-2)
        assert not torch.allclose(g[Reset.KEPT], g[Reset.IGNORED], rtol=1e-2)


@pytest.mark.parametrize("learned", [False, True])
def test_the_two_ways_in_agree(learned):
    torch.manual_seed(0)

    def neuron():
        made = {"tau_mem": nn.Parameter(torch.full((5,), 8e-3, **F64)), "theta": nn.Parameter(torch.tensor(1.0, **F64))}
        return Learned(cuba_lif, tau_syn=3e-3, **made) if learned else cuba_lif(tau_mem=8e-3, tau_syn=3e-3)

    synapses = [nn.Linear(6, 5, **F64), nn.Linear(5, 5, bias=False, **F64), nn.Linear(5, 3, **F64)]
    with torch.no_grad():
        for synapse in synapses:
            synapse.weight.mul_(2)
    sources = [neuron(), readout()]
    net = Network(Layer(synapses[0], sources[0], synapses[1]), Layer(synapses[2], sources[1]))
    model = nn.Sequential(
        synapses[0],
        LIF(sources[0], surrogate=RULE.surrogate, recurrent=synapses[1]),
        synapses[2],
        LIF(sources[1]),
    )
    x, y = data()
    value, gradients = RULE.gradients(net, x, y, LOSS)
    theirs = LOSS(model(x), y)
    theirs.backward()
    assert torch.equal(theirs, value)
    assert len(gradients) == (7 if learned else 5)
    for name, p in net.named_parameters():
        assert p.grad.abs().sum() > 0
        torch.testing.assert_close(gradients[name], p.grad)


def test_backward_adds_to_grad_and_gradients_writes_nothing():
    net, (x, y) = build(), data()
    value, gradients = RULE.gradients(net, x, y, LOSS)
    assert all(p.grad is None for p in net.parameters())
    assert not value.requires_grad
    assert torch.equal(RULE.backward(net, x, y, LOSS), value)
    RULE.backward(net, x, y, LOSS)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, 2 * gradients[name])


def test_frozen_parameters_stay_out():
    net, (x, y) = build(), data()
    net.layers[0].synapse.weight.requires_grad_(False)
    _, gradients = RULE.gradients(net, x, y, LOSS)
    assert "layers.0.synapse.weight" not in gradients
    assert len(gradients) == 5


def test_an_unused_parameter_gets_zeros():
    net, (x, y) = build(), data()
    net.unused = nn.Parameter(torch.ones(2, **F64))
    assert RULE.gradients(net, x, y, LOSS)[1]["unused"].tolist() == [0, 0]


def test_hooks_of_parameters_fire():
    """DistributedDataParallel hangs on them."""
    net, (x, y) = build(), data()
    seen = []
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(lambda p: seen.append(p))
    RULE.backward(net, x, y, LOSS)
    assert len(seen) == 6


def test_conv_network_trains_down():
    torch.manual_seed(0)
    net = Network(
        Layer(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, **F64), nn.MaxPool2d(2)), lif(tau_mem=8e-3), gain=3.0),
        Layer(nn.Sequential(nn.Flatten(), nn.Linear(12, 3, **F64)), readout()),
    )
    x, y = data((2, 4, 4))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    first = RULE.objective(net, x, y, LOSS).item()
    for _ in range(30):
        optimizer.zero_grad()
        last = RULE.backward(net, x, y, LOSS).item()
        optimizer.step()
    assert last < 0.5 * first


def test_copies_pickles_and_state_dict():
    net, (x, y) = build(recurrent=True), data()
    net.layers[0].source = Learned(cuba_lif, tau_mem=nn.Parameter(torch.full((5,), 8e-3, **F64)))
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    other = build(recurrent=True, seed=7)
    other.layers[0].source = Learned(cuba_lif, tau_mem=nn.Parameter(torch.full((5,), 3e-3, **F64)))
    other.load_state_dict(net.state_dict())
    rule = pickle.loads(pickle.dumps(RULE))
    wanted = flat(RULE.gradients(net, x, y, LOSS)[1])
    for twin in (*twins, other):
        assert torch.equal(flat(rule.gradients(twin, x, y, LOSS)[1]), wanted)


# The module.


def test_module_trace_and_steps():
    module = LIF(cuba_lif(tau_mem=8e-3), recurrent=nn.Linear(3, 3, bias=False, **F64))
    a = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(0), **F64)
    whole, state = module.trace(a), None
    for n in range(T):
        state = module.step(state, a[n])
        assert torch.equal(state.s, whole.s[n])
    for mode in Reset:  # a step has the gradient of the sequence, too
        module.temporal, grads = Unrolled(mode), []
        for steps in (True, False):
            x, state, spikes = a.clone().requires_grad_(), None, []
            for n in range(T if steps else 0):
                state = module.step(state, x[n])
                spikes.append(state.s)
            out = torch.stack(spikes) if steps else module(x)
            grads.append(torch.autograd.grad(out.square().sum(), x)[0])
        torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)
    first = module.trace(a[:9])
    assert torch.equal(module.trace(a[9:], first.last).s, whole.s[9:])
    assert "recurrent" in dict(module.named_children())
    assert "FastSigmoid" in repr(module)


def test_per_step_is_the_module_at_each_step():
    conv, (x, _) = nn.Conv2d(2, 3, 3, **F64), data((2, 4, 4))
    out = PerStep(conv)(x)
    assert out.shape == (T, B, 3, 2, 2)
    torch.testing.assert_close(out[5], conv(x[5]))


@pytest.mark.parametrize("temporal", [Unrolled(), Adjoint(), Unrolled(Reset.IGNORED)], ids=str)
def test_module_under_compile(temporal):
    module, a = LIF(cuba_lif(tau_mem=5e-3), temporal=temporal), torch.randn(8, 2, 3, **F64)
    grads = []
    for f in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
        x = a.clone().requires_grad_()
        grads.append(torch.autograd.grad(f(x).square().sum(), x)[0])
    assert torch.equal(*grads)
    assert grads[0].abs().sum() > 0


def test_module_under_func():
    module = LIF(lif(tau_mem=5e-3), surrogate=FastSigmoid(0.3))
    W, (x, _) = torch.randn(3, 6, **F64), data()

    def loss(W, x):
        return module(x @ W.T).square().sum()

    W.requires_grad_()
    loss(W, x).backward()
    assert W.grad.abs().sum() > 0
    torch.testing.assert_close(torch.func.grad(loss)(W.detach(), x), W.grad)
    each = torch.func.vmap(torch.func.grad(loss), (None, 1))(W.detach(), x.unsqueeze(2))
    torch.testing.assert_close(each.sum(0), W.grad)


def test_reset_of_the_gradient_leaves_float32_spikes_alone():
    g = torch.Generator().manual_seed(0)
    for theta in (0.7, 1.1):
        a = torch.randint(0, 8, (200, 4, 32), generator=g) * 0.1  # often on the very threshold
        outs = [LIF(lif(tau_mem=1.0, theta=theta), temporal=Unrolled(mode))(a) for mode in Reset]
        assert outs[0].sum() > 0
        assert torch.equal(outs[0], outs[1])
        assert torch.equal(outs[0], outs[2])


def test_a_synapse_runs_once():
    """Dropout draws one mask a pass, and batch statistics see each input once."""
    synapse = nn.Sequential(nn.Linear(6, 5, **F64), nn.BatchNorm1d(5, **F64))
    net, (x, _) = Network(Layer(synapse, lif())), data()
    net(x, RULE)
    assert synapse[1].num_batches_tracked == 1


def test_single_steps_of_a_network():
    net, (x, _) = build(1, 2, True), data()
    whole, past = net(x, RULE), None
    for n in range(T):
        states, past = net.step(x[n], RULE, past)
        torch.testing.assert_close(states[-1].s, whole[-1].s[n])
    with pytest.raises(ValueError, match="past remembers 1 layers, the network has 3"):
        net.step(x[0], RULE, past[:1])


def test_learned_neurons_follow_their_module():
    source = Learned(
        lif, tau_mem=nn.Parameter(torch.full((2,), 0.02), requires_grad=False), theta=torch.ones(2)
    ).double()
    assert source().theta.dtype == source().beta.dtype == torch.float64
    assert not source.log["tau_mem"].requires_grad
    assert "theta" in source.state_dict()


def test_layers_say_what_they_are():
    said = repr(build(delay=2))
    assert "delay=2" in said
    assert "reset=" in said


# Refusals.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LIF(lif(theta=torch.ones(8)))(torch.ones(4, 2, 1)), ValueError, r"theta has shape \(8,\).*\(2, 1\)"),
        (lambda: LIF(lif(theta=torch.ones(3)))(torch.ones(4, 2, 5)), ValueError, "theta has shape"),
        (lambda: LIF(lif(theta=torch.ones(1, **F64)))(torch.ones(4, 2, 1)), TypeError, "theta is torch.float64"),
        (lambda: LIF().trace(torch.ones(3, 1, 2), LIF().trace(torch.ones(3, 4, 2)).last), ValueError, "the state has"),
        (lambda: LIF(lif(tau_mem=nn.Parameter(torch.tensor(0.02)))), ValueError, "make it by Learned"),
        (lambda: LIF(surrogate=FastSigmoid), TypeError, "surrogate must be"),
        (lambda: LIF(temporal=Unrolled), TypeError, "temporal must be"),
        (lambda: LIF(nn.Linear(2, 2)), TypeError, "forward|neuron must be"),
        (lambda: LIF(recurrent=lambda s: s), TypeError, "recurrent must be a torch module"),
        (lambda: lif(reset="subtract"), TypeError, "reset must be a function"),
        (lambda: lif(fire=Threshold), TypeError, "fire must be"),
        (lambda: Neuron(alpha="x"), TypeError, "alpha must be a number"),
        (lambda: Threshold(most=1.5), ValueError, "whole number"),
        (lambda: Bounded(to_zero_with_input, -1.0), ValueError, "loses the input"),
        (lambda: Bounded(to_zero, math.nan), ValueError, "finite number"),
        (lambda: Layer(nn.Linear(1, 1), lif(), gain=math.nan), ValueError, "gain must be"),
        (lambda: Adjoint().run(lif(), FastSigmoid(), torch.ones(2, 1, 1), nn.Tanh()), ValueError, "linear recurrent"),
    ],
)
def test_more_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_diverged_weights_do_not_look_healthy():
    net, (x, _) = build(), data()
    net.layers[1].synapse.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="current of layer 1 holds NaN"):
        net(x, RULE)


def test_connect_knows_three_ways_down():
    synapse, x = nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    assert connect(synapse, synapse, x).requires_grad
    assert torch.autograd.grad(connect(synapse, synapse, x).sum(), x)[0].abs().sum() > 0
    connect(synapse, None, x).sum().backward()
    assert x.grad is None
    assert synapse.weight.grad is not None
    other = nn.Linear(2, 2)
    out = connect(synapse, other, x)
    assert torch.equal(out, synapse(x))
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], other.weight.sum(0)[None])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x[:, 0], ValueError, "time-major"),
        (lambda x: x[:0], ValueError, "empty"),
        (lambda x: x[:, :0], ValueError, "empty"),
        (lambda x: x.bool(), TypeError, "floating point, got torch.bool"),
        (lambda x: x.float(), TypeError, r"torch.float32.*weights torch.float64"),
        (lambda x: x.clone().fill_(math.nan), ValueError, "NaN or infinity"),
        (lambda x: x / 0, ValueError, "NaN or infinity"),
        (lambda x: x.to("meta"), ValueError, "on meta, the network's weights on cpu"),
        (lambda x: x.tolist(), TypeError, "got list"),
        (lambda x: x[..., :5], RuntimeError, "shapes cannot be multiplied"),  # torch's own, which names both
    ],
)
def test_bad_inputs(change, error, message):
    net, (x, _) = build(), data()
    with pytest.raises(error, match=message):
        net(change(x), RULE)


@pytest.mark.parametrize("bad", [torch.ones(3, 2), torch.ones(3, 2, 0), torch.full((3, 2, 1), math.nan)])
def test_bad_currents_of_the_module(bad):
    with pytest.raises(ValueError, match=r"the current a"):
        LIF()(bad)


def test_mixed_state():
    module, a = LIF(), torch.zeros(3, 2, 1)
    state = module.trace(a.double()).last
    with pytest.raises(TypeError, match=r"the state is torch.float64"):
        module.trace(a, state)


def test_bad_layers_networks_and_rules():
    good = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="synapse must be a torch module"):
        Layer(lambda x: x, lif())
    with pytest.raises(TypeError, match="neuron must be a Neuron"):
        Layer(good, lif)
    for make in (lambda: Layer(good, lif(), good), lambda: LIF(lif(), recurrent=good)):
        with pytest.raises(ValueError, match="has a bias"):
            make()
    with pytest.raises(ValueError, match="lag must be at least 1, got 0"):
        Layer(good, lif(), lag=0)
    with pytest.raises(ValueError, match="delay must be at least 0"):
        Layer(good, lif(), delay=-1)
    with pytest.raises(TypeError, match="delay must be an integer"):
        Layer(good, lif(), delay=0.5)
    with pytest.raises(TypeError, match="made of one or more Layers, got Linear"):
        Network(good)
    with pytest.raises(TypeError, match="got nothing"):
        Network()
    with pytest.raises(TypeError, match="neuron must be a Neuron such as"):
        LIF(20e-3)
    with pytest.raises(TypeError, match="temporal must be a method"):
        LIF(lif(), temporal=object())
    with pytest.raises(TypeError, match="surrogate must be a Surrogate"):
        Rule(surrogate="fast sigmoid")
    with pytest.raises(TypeError, match="temporal must be a method"):
        Rule(temporal=Unrolled)
    with pytest.raises(TypeError, match="spatial must be"):
        Rule(spatial=None)
    with pytest.raises(TypeError, match="reset must be one of"):
        Unrolled("kept")


def test_check_refuses_what_makes_no_sense():
    net, (x, y) = build(), data()
    with pytest.raises(TypeError, match="works on a Network, got Linear"):
        RULE.backward(nn.Linear(2, 2), x, y, LOSS)
    with pytest.raises(TypeError, match="loss must be a function"):
        RULE.backward(net, x, y, "cross entropy")
    with pytest.raises(ValueError, match="the last layer is a readout"):
        RULE.check(net, SpikeCount(5))
    net.layers[1].synapse.float()
    with pytest.raises(TypeError, match=r"layers.1.synapse.weight is torch.float32.*layers.0.synapse.weight"):
        RULE.check(net, LOSS)
    net.layers[1].synapse.to("meta", torch.float64)
    with pytest.raises(ValueError, match=r"layers.1.synapse.weight is on meta"):
        RULE.check(net, LOSS)


def test_recipes_are_rules_with_a_paper():
    there = recipes.listing()
    assert "bptt" in there
    net = Network(Layer(nn.Linear(3, 4), lif()), Layer(nn.Linear(4, 2), readout()))
    for name, recipe in there.items():
        assert isinstance(recipes.make(name, net, torch.Generator()), Rule)
        assert recipe.paper
        assert recipe.__doc__
    rule = recipes.bptt()
    assert isinstance(rule.spatial, Transpose)
    assert rule.temporal.reset is Reset.KEPT
    assert recipes.bptt(reset=Reset.DETACHED).temporal.reset is Reset.DETACHED
