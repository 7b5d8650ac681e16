"""Eligibility traces: SuperSpike's numbers, traces against their sums, e-prop, DECOLLE's trace, and what is refused."""

import pytest
import torch
from golden import Golden, equal, linear
from torch import nn
from trials import SURROGATE, B, T, alive, distance

from snnlearn import (
    RTRL,
    SRM,
    Adjoint,
    Eligibility,
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
    readout,
    subtract,
)
from snnlearn.filters import Exponentials
from snnlearn.losses import CrossEntropy, OverTime, cross_entropy, half_square, van_rossum
from snnlearn.temporal.eligibility import advance

F64 = {"dtype": torch.float64}
SQUARE, CE = OverTime(half_square), OverTime(cross_entropy, mean=True)


def superspike():
    g = Golden("07_superspike")
    neuron = Neuron(g["alpha"], g["beta"], g["threshold"], subtract, Threshold(strict=True))
    net = Network(*(Layer(linear(g[W]), neuron, delay=2) for W in ("W1", "W2")))
    eps = Exponentials.double(tau_rise=g["tau_rise"], tau_decay=g["tau_decay"], dt=g["dt"])
    x, y = (g[k].movedim(-1, 0).double() for k in ("x", "S_target"))
    return g, net, x, y, van_rossum(eps), FastSigmoid.from_steepness(g["surr_slope"])


def test_superspike_step_by_step_with_symmetric_feedback():
    g, net, x, y, loss, surrogate = superspike()
    rule = Rule(surrogate, Eligibility())
    steps = list(rule.temporal.steps(net, x, y, loss, rule))
    for i, key in enumerate(("grad_W1_per_step_symmetric", "grad_W2_per_step")):
        each = torch.stack([gradients[f"layers.{i}.synapse.weight"] for _, gradients in steps])
        equal(each, g[key])
    assert sum(value for value, _ in steps).item() == pytest.approx(g["loss"], rel=1e-12)
    value, total = rule.gradients(net, x, y, loss)
    assert value.item() == pytest.approx(g["loss"], rel=1e-12)
    equal(total["layers.0.synapse.weight"], g["grad_W1_symmetric"])
    equal(total["layers.1.synapse.weight"], g["grad_W2"])


def test_superspike_is_bptt_detached_in_the_output_layer_and_not_below():
    g, net, x, y, loss, surrogate = superspike()
    bptt = Rule(surrogate, Unrolled(Reset.DETACHED)).gradients(net, x, y, loss)[1]
    equal(bptt["layers.0.synapse.weight"], g["grad_W1_bptt_detached"])
    equal(bptt["layers.1.synapse.weight"], g["grad_W2"])
    traced = Rule(surrogate, Eligibility()).gradients(net, x, y, loss)[1]
    first = "layers.0.synapse.weight"
    assert distance({first: traced[first]}, {first: bptt[first]}) > 0.1


def test_superspikes_traces():
    """trace_dU of the file is the presynaptic trace q."""
    g, net, x, _, loss, surrogate = superspike()
    rule = Rule(surrogate, Eligibility())
    carry, below = rule.temporal.start(net, x[0], loss, rule), x
    for i, key in enumerate(("trace_dU1", "trace_dU2")):
        past, q, spikes = carry.layers[i], [], []
        for x_n in below:
            past, traces = advance(net.layers, i, past, x_n)
            q.append(traces.q)
            spikes.append(past.state.s)
        equal(torch.stack(q), g[key].movedim(-1, 0))
        below = torch.stack(spikes)


def test_decolles_trace_is_the_presynaptic_trace_of_a_scaled_layer():
    """DECOLLE: P = alpha*P + (1-alpha)*Q, Q = beta*Q + (1-beta)*S, P one step behind Q (its code)."""
    alpha, beta = 0.9, 0.7
    layer = Layer(nn.Linear(5, 2, bias=False, **F64), Neuron(alpha, beta), delay=1, gain=(1 - alpha) * (1 - beta))
    net, x = Network(layer), (torch.rand(30, B, 5, generator=torch.Generator().manual_seed(0), **F64) < 0.3).double()
    rule = Rule(SURROGATE, Eligibility())
    past = rule.temporal.start(net, x[0], SQUARE, rule).layers[0]
    P = Q = torch.zeros(B, 5, **F64)
    for x_n in x:
        P, Q = alpha * P + (1 - alpha) * Q, beta * Q + (1 - beta) * x_n
        past, traces = advance([layer], 0, past, x_n)
        torch.testing.assert_close(layer.gain * traces.q, P, rtol=1e-12, atol=1e-14)
    assert P.abs().max() > 0.1


@pytest.mark.parametrize("kind", ["IF", "LIF", "CuBa"])
def test_ottt_is_the_trace_times_the_error_of_the_step(kind):
    """With a memoryless readout on top, the sum over steps of e[n] f[n] x q[n], written as sums over the past."""
    net, x = alive(2, kind, bias=False, top=False)
    top = Layer(linear(torch.randn(3, 4, generator=torch.Generator().manual_seed(1), **F64)), readout(tau_mem=1e-9))
    net = Network(*net.layers, top)
    y = torch.tensor([0, 1, 2])
    rule = Rule(SURROGATE, Eligibility())
    hidden, out = net(x, rule)
    e = (torch.softmax(out.s, -1) - torch.eye(3, **F64)[y]) / (T * B)
    n = net.layers[0].neuron
    f = SURROGATE.slope(hidden.U - n.theta)
    kernel = [sum(n.alpha**j * n.beta ** (k - j) for j in range(k + 1)) for k in range(T)]
    q = torch.stack([sum(kernel[m - k] * x[k] for k in range(m + 1)) for m in range(T)])
    wanted = torch.einsum("tbi,tbj->ij", (e @ top.synapse.weight.detach()) * f, q)
    equal(rule.gradients(net, x, y, CE)[1]["layers.0.synapse.weight"], wanted, 1e-12)


def test_eprop_needs_the_readouts_memory():
    """The same trial with the readout's memory left out is far off."""
    net, x = alive(5, "CuBa", recurrent=False)
    y = torch.arange(B) % 3
    exact = Rule(SURROGATE, Adjoint(Reset.IGNORED)).gradients(net, x, y, CE)[1]
    first = "layers.0.synapse.weight"
    with_it = Rule(SURROGATE, Eligibility(True)).gradients(net, x, y, CE)[1]
    without = Rule(SURROGATE, Eligibility()).gradients(net, x, y, CE)[1]
    assert distance({first: with_it[first]}, {first: exact[first]}) < 1e-12
    assert distance({first: without[first]}, {first: exact[first]}) > 0.5


def test_eprop_of_recurrent_weights_is_the_trace_of_their_own_spikes():
    """e-prop leaves out what goes through other neurons: the same as an input of those very spikes, from outside."""
    net, x = alive(5, "CuBa", recurrent=True, bias=False)
    y, rule = torch.arange(B) % 3, Rule(SURROGATE, Eligibility(through_readout=True))
    found = rule.gradients(net, x, y, CE)[1]
    late = torch.cat([torch.zeros_like(x[:1, :, :4]), net(x, rule)[0].s[:-1]])
    both = linear(torch.cat([net.layers[0].synapse.weight, net.layers[0].recurrent.weight], 1).detach())
    open_loop = Network(Layer(both, net.layers[0].neuron), net.layers[1])
    wanted = Rule(SURROGATE, Adjoint(Reset.IGNORED)).gradients(open_loop, torch.cat([x, late], 2), y, CE)[1]
    wanted = wanted["layers.0.synapse.weight"]
    equal(found["layers.0.synapse.weight"], wanted[:, :5], 1e-12)
    equal(found["layers.0.recurrent.weight"], wanted[:, 5:], 1e-12)
    exact = Rule(SURROGATE, Adjoint(Reset.IGNORED)).gradients(net, x, y, CE)[1]
    own = "layers.0.recurrent.weight"
    assert distance({own: found[own]}, {own: exact[own]}) > 1e-2


@pytest.mark.parametrize("loss", [SQUARE, van_rossum()], ids=["plain", "filtered"])
def test_gain_delay_lag_bias_and_recurrence(loss):
    """Recurrent spikes count as inputs from outside: the same layer without recurrence, and its own spikes, given."""
    g = torch.Generator().manual_seed(4)
    lag, delay, gain, neuron = 3, 2, 1.4, Neuron(0.6, 0.8)
    layer = Layer(nn.Linear(5, 4, **F64), neuron, nn.Linear(4, 4, bias=False, **F64), delay=delay, lag=lag, gain=gain)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=g, **F64) - 0.08)
    x = (torch.rand(T, B, 5, generator=g, **F64) < 0.4).double()
    y = (torch.rand(T, B, 4, generator=g, **F64) < 0.3).double()
    net = Network(layer)
    found = Rule(SURROGATE, Eligibility()).gradients(net, x, y, loss)[1]
    s = net(x, Rule(SURROGATE, Eligibility()))[0].s
    assert 0.1 < s.mean() < 0.5

    both = nn.Linear(9, 4, **F64)
    with torch.no_grad():
        both.weight.copy_(torch.cat([layer.synapse.weight, layer.recurrent.weight / gain], 1))
        both.bias.copy_(layer.synapse.bias)
    late = torch.cat([torch.zeros(lag, B, 4, **F64), s[:-lag]])
    early = torch.cat([torch.zeros(delay, B, 5, **F64), x[:-delay]])
    open_loop = Network(Layer(both, neuron, gain=gain))
    inputs = torch.cat([early, late], 2)
    assert torch.equal(open_loop(inputs, Rule(SURROGATE))[0].s, s)
    wanted = Rule(SURROGATE, Adjoint(Reset.IGNORED)).gradients(open_loop, inputs, y, loss)[1]
    equal(found["layers.0.synapse.weight"], wanted["layers.0.synapse.weight"][:, :5], 1e-12)
    equal(found["layers.0.recurrent.weight"], wanted["layers.0.synapse.weight"][:, 5:] / gain, 1e-12)
    equal(found["layers.0.synapse.bias"], wanted["layers.0.synapse.bias"], 1e-12)


@pytest.mark.parametrize("method", [Eligibility(), Eligibility(through_readout=True)], ids=["ottt", "eprop"])
def test_the_gain_of_the_layer_above(method):
    """A layer of gain g is the layer of gain 1 with g times the weights, for the layer below."""
    net, x = alive(5, "CuBa", bias=False)
    y, first, found = torch.arange(B) % 3, "layers.0.synapse.weight", []
    for gain in (1.0, 2.5):
        top = linear(net.layers[1].synapse.weight.detach() / gain)
        scaled = Network(net.layers[0], Layer(top, net.layers[1].neuron, gain=gain))
        found.append(Rule(SURROGATE, method).gradients(scaled, x, y, CE)[1][first])
    equal(found[1], found[0], 1e-12)


def test_convolutions():
    conv = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, **F64), nn.AvgPool2d(2))
    with torch.no_grad():
        conv[0].weight.mul_(4)
    net = Network(Layer(conv, Neuron(0.6, 0.8)))
    x = (torch.rand(20, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0), **F64) < 0.4).double()
    y = torch.zeros(20, 2, 3, 2, 2, **F64)
    found, wanted = (
        Rule(SURROGATE, m).gradients(net, x, y, SQUARE)[1] for m in (Eligibility(), Adjoint(Reset.IGNORED))
    )
    assert distance(found, wanted) < 1e-12


def linear_layer(neuron, outputs=2, inputs=3, **layer):
    return Layer(nn.Linear(inputs, outputs, **F64), neuron, **layer)


def refused():
    """Networks that it cannot train, with the reason."""
    hidden, top = linear_layer(lif()), linear_layer(readout(), inputs=2)
    pool, drop = nn.MaxPool1d(2), nn.Dropout()
    learned = Learned(lif, theta=nn.Parameter(torch.ones((), **F64)))
    each_its_own = Neuron(0.5, torch.rand(2, **F64))
    late = linear_layer(readout(), inputs=2, delay=1)
    deep = Network(hidden, linear_layer(lif(), inputs=2), top)
    yield Network(hidden, top), Eligibility(), CrossEntropy(), TypeError, "sum over time"
    yield (
        Network(Layer(nn.Sequential(nn.Linear(3, 4, **F64), pool), lif())),
        Eligibility(),
        SQUARE,
        ValueError,
        "affine",
    )
    yield Network(linear_layer(learned)), Eligibility(), SQUARE, ValueError, "RTRL"
    yield Network(linear_layer(each_its_own)), Eligibility(), SQUARE, ValueError, "one alpha and beta"
    yield Network(hidden, late), Eligibility(), CE, ValueError, "delay=1"
    yield Network(hidden, top), Eligibility(True), van_rossum(), ValueError, "no place beside"
    yield Network(hidden), Eligibility(True), CE, ValueError, "needs a readout"
    yield Network(hidden, late), Eligibility(True), CE, ValueError, "without delay"
    yield Network(linear_layer(SRM.lif(0.8, T=4))), Eligibility(), SQUARE, ValueError, "is an SRM"
    yield deep, Eligibility(True), CE, ValueError, "one layer below"
    yield (
        Network(Layer(nn.Sequential(nn.Linear(3, 2, **F64)), lif())),
        Eligibility(),
        van_rossum(),
        ValueError,
        "Linear",
    )
    yield Network(Layer(nn.Sequential(nn.Linear(3, 2, **F64), drop), lif())), Eligibility(), SQUARE, ValueError, "steps"


REASONS = "loss maxpool learned constants delay filters spiking late srm deep matrix dropout"


@pytest.mark.parametrize(("net", "method", "loss", "error", "message"), list(refused()), ids=REASONS.split())
def test_what_it_cannot_do_is_refused(net, method, loss, error, message):
    with pytest.raises(error, match=message):
        Rule(SURROGATE, method).gradients(net, torch.ones(4, 1, 3, **F64), torch.zeros(1, dtype=torch.long), loss)


@pytest.mark.parametrize("method", [Eligibility(), RTRL()], ids=["traces", "rtrl"])
def test_inputs_and_targets_are_looked_at(method):
    """RTRL sees one sample at a time inside vmap, where nothing can be looked at."""
    net, x = alive(1, top=False)
    y, nan = torch.zeros(T, B, 4, **F64), x.clone()
    nan[3, 1, 2] = torch.nan
    many = torch.zeros(B, dtype=torch.long)
    cases = [
        (nan, y, SQUARE, ValueError, "NaN"),
        (x[:0], y[:0], SQUARE, ValueError, "empty"),
        (x[:, :0], y[:, :0], SQUARE, ValueError, "empty"),
        (x.float(), y, SQUARE, TypeError, "float32"),
        (x.long(), y, SQUARE, TypeError, "floating point"),
        (x, y[:-1], SQUARE, ValueError, "targets must have shape"),
        (x, torch.cat([y, y]), SQUARE, ValueError, "targets must have shape"),
        (x, y[:, :1], SQUARE, ValueError, "targets must have shape"),
        (x, y[..., :1], van_rossum(), ValueError, "outputs' shape"),
        (x, y[..., 0], van_rossum(), ValueError, "outputs' shape"),
        (x, y + torch.nan, SQUARE, ValueError, "targets hold NaN"),
        (x, y.tolist(), SQUARE, TypeError, "targets must be a tensor"),
        (x, many - 100, CE, ValueError, "labels must lie"),
        (x, many + 4, CE, ValueError, "labels must lie"),
        (x, many[:2], CE, ValueError, "labels"),
        (x, many, OverTime(nn.functional.cross_entropy), ValueError, "one cost a sample"),
    ]
    for inputs, targets, loss, error, message in cases:
        with pytest.raises(error, match=message):
            Rule(SURROGATE, method).gradients(net, inputs, targets, loss)
    with torch.no_grad():
        net.layers[0].synapse.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="diverged"):
        Rule(SURROGATE, Eligibility()).gradients(net, x, y, SQUARE)


def test_no_gradient_can_be_taken_by_mistake():
    net, x = alive(1)
    rule = Rule(SURROGATE, Eligibility())
    assert not net(x, rule)[-1].s.requires_grad
    with pytest.raises(TypeError, match="leaves no graph"):
        rule.objective(net, x, torch.zeros(B, dtype=torch.long), CE)


def test_weights_may_change_between_steps():
    """The spikes of a step follow the weights of that step."""
    net, x = alive(1, top=False)
    rule, y = Rule(SURROGATE, Eligibility()), torch.zeros(T, B, 4, **F64)
    carry = rule.temporal.start(net, x[0], SQUARE, rule)
    for n in range(T):
        if n == 9:
            with torch.no_grad():
                net.layers[0].synapse.weight.zero_()
                net.layers[0].synapse.bias.fill_(5.0)
        carry, _, gradients, _ = rule.temporal.step(net, carry, x[n], y[n], SQUARE, rule)
    assert carry.layers[0].state.s.min() == 1
    assert set(gradients) == {"layers.0.synapse.weight", "layers.0.synapse.bias"}
