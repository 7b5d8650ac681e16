"""Continuous time: first spikes in closed form, EventProp, and losses on spike times."""

import math
from itertools import pairwise

import pytest
import torch
from golden import Golden, equal, linear
from torch import nn

from snnlearn import Layer, Network, datasets, lif, recipes
from snnlearn.eventprop import Cell
from snnlearn.events import EventLIF, EventNetwork, EventProp, Events
from snnlearn.firstspike import (
    FirstSpike,
    FirstSpikeCrossEntropy,
    SpikeTimes,
    digits_loss,
    digits_network,
    on_off_times,
    silence_cost,
)

F64 = {"dtype": torch.float64}
INF = math.inf
MS = 1e-3  # the golden vectors are in ms
RULE = recipes.eventprop()


def draw(seed):
    return torch.Generator().manual_seed(seed)


def drawn(inputs, outputs, g, mean=0.5, std=1.2):
    return linear(mean + std * torch.randn(outputs, inputs, generator=g, **F64))


MEAN = 1.5  # of the weights: drive enough for several spikes in both layers


def network(seed, tau_mem=20e-3, tau_syn=5e-3, sizes=(5, 6, 3), horizon=0.06):
    g, scale = draw(seed), 5e-3 / tau_syn * math.sqrt(tau_mem / 20e-3)
    layers = [drawn(n, m, g, MEAN * scale, 1.5 * scale) for n, m in pairwise(sizes)]
    return EventNetwork(*(EventLIF(w, horizon=horizon, tau_mem=tau_mem, tau_syn=tau_syn) for w in layers))


def trains(seed, B=3, inputs=5, spikes=4):
    return 0.04 * torch.rand(B, inputs, spikes, generator=draw(100 + seed), **F64)


def weighted(events, seed=7):
    """A smooth loss in which every spike counts differently, by neuron and ordinal."""
    c = torch.randn(events.size, 60, generator=draw(seed), **F64)[events.neurons, events.ordinals()]
    told = events.times.isfinite()
    return (c * torch.where(told, events.times / 20e-3, 0.0).sin() * told).sum()


def same_spikes(a, b):
    return all(torch.equal(x.counts(), y.counts()) for x, y in zip(a, b, strict=True))


def differences(loss, x, run, h):
    """Central differences of loss() by each entry of x; every spike must live on at both ends."""
    out, before = torch.zeros_like(x), run()
    flat = x.view(-1)
    for k in range(len(flat)):
        kept, ends = flat[k].item(), []
        if kept == INF:
            continue
        for sign in (1, -1):
            flat[k] = kept + sign * h
            after = run()
            assert same_spikes(before, after), "a spike was born or died; take another seed"
            ends.append(loss(after).item())
        flat[k] = kept
        out.view(-1)[k] = (ends[0] - ends[1]) / (2 * h)
    return out


# The container.


def test_events_of_a_table():
    t = torch.tensor([[[0.3, INF], [0.1, 0.2]], [[INF, INF], [0.5, INF]]], requires_grad=True)
    x = Events.from_times(t)
    x.check()
    assert x.size == 2
    assert torch.equal(x.times, torch.tensor([[0.1, 0.2, 0.3], [0.5, INF, INF]]))
    assert x.neurons[0].tolist() == [1, 1, 0]
    assert x.neurons[1, 0] == 1
    assert x.counts().tolist() == [[1, 2], [0, 1]]
    assert x.ordinals()[0].tolist() == [0, 1, 0]
    first = x.first()
    assert torch.equal(first, torch.tensor([[0.3, 0.1], [INF, 0.5]]))
    first.backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # the 3 belongs to a silent neuron
    assert t.grad.tolist() == [[[1, 0], [2, 0]], [[0, 0], [4, 0]]]


def test_events_of_silence():
    x = Events.from_times(torch.full((2, 3), INF))
    x.check()
    assert x.first().isinf().all()
    assert x.first().shape == (2, 3)
    assert x.counts().sum() == 0


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        (Events(torch.tensor([[0.2, 0.1]]), torch.tensor([[0, 0]]), 1), ValueError, "in order of time"),
        (Events(torch.tensor([[0.1, math.nan]]), torch.tensor([[0, 0]]), 1), ValueError, "NaN"),
        (Events(torch.tensor([[-0.1, 0.1]]), torch.tensor([[0, 0]]), 1), ValueError, "negative"),
        (Events(torch.tensor([[0.1]]), torch.tensor([[2]]), 2), ValueError, r"0\.\.1, got 2\.\.2"),
        (Events(torch.tensor([[0.1]]), torch.tensor([[-1]]), 2), ValueError, r"got -1\.\.-1"),
        (Events(torch.tensor([[0.1]]), torch.tensor([[0, 1]]), 2), ValueError, r"\(1, 1\), neurons \(1, 2\)"),
        (Events(torch.tensor([0.1]), torch.tensor([0]), 2), ValueError, r"\(B, K\), got \(1,\)"),
        (Events([[0.1]], torch.tensor([[0]]), 2), ValueError, "got list"),
        (Events(torch.empty(0, 1), torch.empty(0, 1).long(), 2), ValueError, "no sample"),
        (Events(torch.tensor([[1]]), torch.tensor([[0]]), 1), TypeError, "floating point"),
        (Events(torch.tensor([[0.1]]), torch.tensor([[0]], dtype=torch.int32), 1), TypeError, "torch.long"),
        (Events(torch.tensor([[0.1]]), torch.tensor([[0]]), 0), ValueError, "at least 1"),
    ],
)
def test_bad_events(events, error, message):
    with pytest.raises(error, match=message):
        events.check()


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        (torch.tensor([0.1]), ValueError, r"got \(1,\)"),
        ([[0.1]], ValueError, "got list"),
        (torch.tensor([[0.1, math.nan]]), ValueError, "NaN"),
        (torch.tensor([[-0.1]]), ValueError, "negative"),
        (torch.tensor([[1]]), TypeError, "floating point"),
        (torch.empty(0, 3), ValueError, "empty"),
        (torch.empty(3, 2, 0), ValueError, "empty"),
    ],
)
def test_bad_tables(t, error, message):
    with pytest.raises(error, match=message):
        Events.from_times(t)


# First spikes.


def test_first_spikes_of_golden():
    g = Golden("11_mostafa")
    one, two = (FirstSpike(linear(g[w]), tau_syn=5 * MS, theta=g["threshold"]) for w in ("W1", "W2"))
    t0 = (g["t0"] * 5 * MS).requires_grad_()  # the file's unit is tau_syn
    t1 = one(t0)
    t1.retain_grad()
    t2 = two(t1)
    for t, number in ((t1, 1), (t2, 2)):
        assert torch.equal(t.isfinite(), torch.as_tensor(g[f"fired{number}"]))
        equal(torch.where(t.isinf(), -1.0, t / (5 * MS)), g[f"t{number}"], 1e-12)
    loss = (g["loss_coef"] * torch.where(t2.isinf(), 0.0, t2 / (5 * MS))).sum()
    loss.backward()
    equal(loss, torch.tensor(g["loss"], **F64), 1e-12)
    equal(one.synapse.weight.grad, g["grad_W1"], 1e-8)
    equal(two.synapse.weight.grad, g["grad_W2"], 1e-8)
    equal(t0.grad * 5 * MS, g["grad_t0"], 1e-8)
    equal(t1.grad * 5 * MS, g["grad_t1"], 1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_first_spikes_by_finite_differences(seed):
    g = draw(seed)
    layers = [FirstSpike(drawn(n, m, g, 0.4, 0.8), tau_syn=4 * MS) for n, m in ((6, 5), (5, 4))]
    t = (0.02 * torch.rand(3, 6, generator=g, **F64)).requires_grad_()
    t.data[0, 1] = INF
    c = torch.randn(3, 4, generator=g, **F64)

    def run():
        hidden = layers[0](t)
        return [Events.from_times(x) for x in (hidden, layers[1](hidden))]

    def loss(out):
        first = out[-1].first()
        return (c * torch.where(first.isinf(), 0.0, first / MS)).sum()

    out = run()
    assert 0 < out[0].counts().sum() < 15, "some shall be silent, some not"
    assert out[1].counts().sum() > 3
    loss(out).backward()
    assert t.grad[0, 1] == 0
    with torch.no_grad():
        for x, h in ((layers[0].synapse.weight, 1e-6), (layers[1].synapse.weight, 1e-6), (t, 1e-8)):
            equal(x.grad, differences(loss, x, run, h), 1e-6)


def test_first_spikes_in_time():
    """The closed form against small steps of Eq. 18."""
    g = draw(0)
    layer = FirstSpike(drawn(6, 8, g, 0.3, 0.6), tau_syn=5e-3)
    t, W, dt = 0.02 * torch.rand(2, 6, generator=g, **F64), layer.synapse.weight.detach(), 1e-5
    I, U, found = torch.zeros(2, 8, **F64), torch.zeros(2, 8, **F64), torch.full((2, 8), INF, **F64)
    for n in range(6000):
        I = I * math.exp(-dt / 5e-3) + ((t >= n * dt) & (t < (n + 1) * dt)).double() @ W.T
        U = U + I * dt / 5e-3
        found = torch.where((U >= 1) & found.isinf(), (n + 1) * dt, found)
    out = layer(t).detach()
    assert 3 < out.isfinite().sum() < 16
    assert torch.equal(out.isinf(), found.isinf())
    assert (out - found)[out.isfinite()].abs().max() < 3 * dt


def test_silent_neurons_get_no_gradient_and_no_nan():
    layer = FirstSpike(linear(torch.tensor([[0.3, 0.4], [2.0, 0.4]], **F64)))
    t = torch.tensor([[0.001, 0.002], [INF, INF], [INF, 0.001]], **F64, requires_grad=True)
    out = layer(t)
    assert out.isinf().tolist() == [[True, False], [True, True], [True, True]]
    assert out.isinf().sum(0).tolist() == [3, 2]
    FirstSpikeCrossEntropy(0.05, 5e-3)(Events.from_times(out), torch.tensor([1, 0, 0])).backward()
    gradient = layer.synapse.weight.grad
    assert gradient[0].tolist() == [0, 0]
    assert gradient[1, 0] != 0
    assert gradient.isfinite().all()
    assert t.grad[1:].tolist() == [[0, 0], [0, 0]]


def test_an_input_at_the_very_moment_of_a_spike():
    """w_1 = 2 alone reaches theta at z = 2; an input that arrives then is neither needed nor lets the spike be lost."""
    when = 5e-3 * math.log(2)
    for second in (0.5, -0.5):
        t = FirstSpike(linear(torch.tensor([[2.0, second]], **F64)))(torch.tensor([[0.0, when]], **F64))
        assert t.item() == pytest.approx(when, rel=1e-12)


def test_time_has_no_origin():
    layer = FirstSpike(drawn(6, 5, draw(3)))
    t = 0.02 * torch.rand(2, 6, generator=draw(4), **F64)
    assert layer(t).isfinite().any()
    torch.testing.assert_close(layer(t + 7.0), layer(t) + 7.0, rtol=0, atol=1e-12)


def test_silence_cost_by_hand_and_it_wakes():
    synapse = linear(torch.tensor([[0.2, 0.3, 0.9], [0.5, 0.9, 0.0]], **F64))
    layer = FirstSpike(synapse)
    t = torch.tensor([[0.0, 1e-3, INF], [0.0, INF, INF]], **F64)
    out = layer(t)
    assert out.isinf().tolist() == [[True, False], [True, True]]
    cost = silence_cost(synapse, t, out)
    assert cost.item() == pytest.approx((0.5 + 0.8 + 0.5) / 2)  # the input that is silent would make neuron 0 fire
    cost.backward()
    assert synapse.weight.grad.tolist() == [[-1, -0.5, 0], [-0.5, 0, 0]]
    for _ in range(20):
        synapse.weight.grad = None
        silence_cost(synapse, t, layer(t), level=1.1).backward()
        with torch.no_grad():
            synapse.weight -= 0.1 * synapse.weight.grad
    assert layer(t).isfinite().all()
    with torch.no_grad():
        synapse.weight += 1
    assert silence_cost(synapse, t, layer(t), level=1.1) == 0
    with torch.no_grad():
        synapse.weight[:, 1] = -3  # fires before the inhibition comes: little weight in sum, but no need of help
    late = torch.tensor([[0.0, 0.05, INF]], **F64)
    assert layer(late).isfinite().all()
    assert silence_cost(synapse, late, layer(late), level=1.1) == 0


def test_bad_first_spikes():
    layer = FirstSpike(nn.Linear(2, 3, bias=False))
    with pytest.raises(TypeError, match=r"must be an .*Linear, got Conv2d"):
        FirstSpike(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="has no bias"):
        FirstSpike(nn.Linear(2, 3))
    with pytest.raises(ValueError, match="tau_syn must be a positive"):
        FirstSpike(nn.Linear(2, 3, bias=False), tau_syn=0.0)
    with pytest.raises(TypeError, match="theta must be a number"):
        FirstSpike(nn.Linear(2, 3, bias=False), theta=torch.ones(3))
    with pytest.raises(ValueError, match=r"\(B, 2\), got \(1, 3\)"):
        layer(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="NaN"):
        layer(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(TypeError, match="float64"):
        layer(torch.zeros(1, 2, **F64))
    with pytest.raises(ValueError, match=r"200 time constants apart.*or double\(\)"):
        layer(torch.tensor([[0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"out must have shape \(1, 3\), got \(1, 2\)"):
        silence_cost(layer.synapse, torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="level must be"):
        silence_cost(layer.synapse, torch.zeros(1, 2), torch.zeros(1, 3), level=0.0)


# EventProp.


def test_eventprop_of_golden():
    g = Golden("12_eventprop")
    settings = {"tau_mem": g["tau_mem"] * MS, "tau_syn": g["tau_syn"] * MS, "theta": g["threshold"]}
    net = EventNetwork(*(EventLIF(linear(g[w]), horizon=g["T_end"] * MS, **settings) for w in ("W1", "W2")))
    t = (g["t_in"] * MS)[None].requires_grad_()
    spikes = net(t, RULE)
    for events, name in zip(spikes, ("hidden", "out"), strict=True):
        assert torch.equal(events.neurons[0], g[f"{name}_spike_ids"])
        equal(events.times[0], g[f"{name}_spike_times"] * MS, 1e-14)
    value = RULE.backward(net, t, g["targets"] * MS, SpikeTimes())
    equal(value, torch.tensor(g["loss"] * MS**2, **F64), 1e-12)
    for layer, name in zip(net.layers, ("grad_W1", "grad_W2"), strict=True):
        equal(layer.synapse.weight.grad, g[name] * MS**2, 1e-12)
    last_first = g["t_in"].flatten().argsort(descending=True)
    equal(g["t_in"].flatten()[last_first], g["in_event_times"], 1e-14)
    equal(t.grad[0].flatten()[last_first], g["grad_t_in"] * MS, 1e-12)


SEEDS = (4, 6)
CELLS = [(20e-3, 5e-3), (5e-3, 20e-3), (10e-3, 10e-3), (10e-3, 10e-3 * (1 + 1e-9))]


@pytest.mark.parametrize(("tau_mem", "tau_syn"), CELLS)
@pytest.mark.parametrize("seed", SEEDS)
def test_eventprop_by_finite_differences(seed, tau_mem, tau_syn):
    """Two layers, several spikes a neuron: all spike times, through one loss in which each counts differently."""
    net, t = network(seed, tau_mem, tau_syn, (4, 5, 3)), trains(seed, 2, 4, 3).requires_grad_()
    out = net(t, RULE)
    assert out[0].counts().max() > 2
    assert out[1].counts().max() > 2
    weighted(out[-1]).backward()
    with torch.no_grad():
        for x, h in [(layer.synapse.weight, 1e-7) for layer in net.layers] + [(t, 1e-8)]:
            equal(x.grad, differences(lambda o: weighted(o[-1]), x, lambda: net(t, RULE), h), 1e-6)


def adjoint_by_hand(layer, t_in, out, dt_out, *, reset=True, jump=True):
    """The equations of Wunderlich & Pehle, one neuron and event after the other: dL/dW and dL/dt_in of one sample.

    ``reset`` and ``jump`` leave out theta * lV, or the division by I - theta, as a wrong derivation would.
    """
    W, cell, now = layer.synapse.weight.detach(), layer.cell, layer.horizon
    tm, ts, theta = cell.tau_mem, cell.tau_syn, cell.theta
    arrivals = [(t, i) for i, row in enumerate(t_in.tolist()) for t in row]
    spikes = [(t, n) for t, n in zip(out.times[0].tolist(), out.neurons[0].tolist(), strict=True) if t < INF]
    order = sorted([(t, 1, k) for k, (t, _) in enumerate(spikes)] + [(t, 0, k) for k, (t, _) in enumerate(arrivals)])
    lV, lI, dW, dt_in = [0.0] * len(W), [0.0] * len(W), torch.zeros_like(W), []
    for t, spike, k in reversed(order):
        d, now = now - t, t
        em, es = math.exp(-d / tm), math.exp(-d / ts)
        lI = [i * es + v * tm / (tm - ts) * (em - es) for v, i in zip(lV, lI, strict=True)]
        lV = [v * em for v in lV]
        if spike:
            n = spikes[k][1]
            I = sum(W[n, i].item() * math.exp(-(t - s) / ts) for s, i in arrivals if s < t)
            lV[n] += (theta * lV[n] * reset + dt_out[k]) / (I - theta if jump else 1.0)
        else:
            i = arrivals[k][1]
            dW[:, i] -= ts * torch.tensor(lI, **F64)
            dt_in.append((k, sum(W[n, i].item() * (lV[n] - lI[n]) for n in range(len(W)))))
    return dW, torch.tensor([x for _, x in sorted(dt_in)], **F64).view_as(t_in)


def test_each_term_of_the_adjoint_is_needed():
    """The negative control: finite differences accept the equations, and neither of two plausible slips."""
    layer, t = network(0).layers[0], trains(0, B=1).requires_grad_()
    net = EventNetwork(layer)
    (out,) = net(t, RULE)
    (dt_out,) = torch.autograd.grad(weighted(out), out.times, retain_graph=True)
    weighted(out).backward()
    by_hand = adjoint_by_hand(layer, t[0], out, dt_out[0].tolist())
    equal(layer.synapse.weight.grad, by_hand[0], 1e-11)
    equal(t.grad[0], by_hand[1], 1e-11)
    with torch.no_grad():
        true = differences(lambda o: weighted(o[-1]), layer.synapse.weight, lambda: net(t, RULE), 1e-6)
    equal(by_hand[0], true, 1e-6)
    for slip in ("reset", "jump"):
        wrong = adjoint_by_hand(layer, t[0], out, dt_out[0].tolist(), **{slip: False})[0]
        with pytest.raises(AssertionError):
            equal(wrong, true, 1e-2)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), CELLS)
def test_spike_times_by_small_steps(tau_mem, tau_syn):
    """Runge-Kutta over 6000 steps, input and reset at step ends."""
    net, steps = EventNetwork(network(0, tau_mem, tau_syn).layers[0]), 6000
    layer = net.layers[0]
    t, W, dt = trains(0), layer.synapse.weight.detach(), layer.horizon / steps
    arrive = torch.zeros(steps, 3, 5, **F64)
    for b, i, r in torch.cartesian_prod(*(torch.arange(n) for n in t.shape)).tolist():
        arrive[int(t[b, i, r] / dt), b, i] += 1
    y, found = torch.zeros(2, 3, 6, **F64), [[[] for _ in range(6)] for _ in range(3)]

    def slope(y):
        return torch.stack([(y[1] - y[0]) / tau_mem, -y[1] / tau_syn])

    for n in range(steps):
        y[1] += arrive[n] @ W.T
        k1 = slope(y)
        k2 = slope(y + dt / 2 * k1)
        k3 = slope(y + dt / 2 * k2)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + dt * k3))
        for b, j in (y[0] >= 1).nonzero().tolist():
            found[b][j].append((n + 1) * dt)
            y[0, b, j] = 0
    (out,) = net(t, RULE)
    assert out.counts().max() > 2
    assert out.counts().tolist() == [[len(x) for x in row] for row in found]
    late = [
        abs(time - found[b][j][r])
        for b in range(3)
        for time, j, r in zip(*(x[b].tolist() for x in (out.times, out.neurons, out.ordinals())), strict=True)
        if time < INF
    ]
    assert max(late) < 40 * dt  # each of a dozen spikes shifts the next by up to a step or two


def test_membrane():
    """At a spike it is theta before and 0 after; between two it decays as the equations say."""
    layer, x = network(0).layers[0], Events.from_times(trains(0))
    (out,) = EventNetwork(layer)(x, RULE)
    for b, k in ((0, 0), (0, 5), (2, 3)):
        t, n = out.times[b, k].detach(), out.neurons[b, k]
        V = layer.membrane(x, out, torch.stack([t - 1e-12, t, t + 1e-12]))[b, :, n]
        torch.testing.assert_close(V, torch.tensor([1.0, 0.0, 0.0], **F64), rtol=0, atol=1e-8)
    at = torch.linspace(0, layer.horizon, 5000, **F64)
    V = layer.membrane(x, out, at)
    assert V.shape == (3, 5000, 6)
    assert V.max() <= 1 + 1e-12
    assert V.max() > 0.99
    inputs = x.times.isfinite() & (x.times < layer.horizon)
    since = at[:, None] - x.times[:, None]
    drive = torch.where(inputs[:, None] & (since > 0), torch.exp(-since.clamp(min=0) / 5e-3), 0.0)
    I = drive @ layer.synapse.weight.detach().T[x.neurons]
    d = at[1] - at[0]
    slope = (V[:, 2:] - V[:, :-2]) / (2 * d)
    error = (20e-3 * slope - (I - V)[:, 1:-1]).abs()
    assert error.median() < 1e-3 * I.abs().max()  # the few steps across an event are not smooth


def test_batch_is_the_sum_of_its_samples_in_any_order():
    net, t = network(1), trains(1, B=5)
    whole = net(t, RULE)
    RULE.backward(net, t, torch.tensor([0, 1, 2, 0, 1]), lambda o, y: weighted(o))
    wanted = [layer.synapse.weight.grad.clone() for layer in net.layers]
    net.zero_grad()
    for b in range(5):
        single = net(t[b : b + 1], RULE)
        for all_, one in zip(whole, single, strict=True):
            K = one.times.shape[1]
            assert torch.equal(all_.times[b, :K], one.times[0])
            assert torch.equal(all_.neurons[b, :K], one.neurons[0])
            assert all_.times[b, K:].isinf().all()
        weighted(single[-1]).backward()
    for layer, grad in zip(net.layers, wanted, strict=True):
        equal(layer.synapse.weight.grad, grad, 1e-12)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(net(t[order], RULE)[-1].times, whole[-1].times[order])


def test_padding_changes_nothing():
    net = network(1)
    x = Events.from_times(trains(1))
    pad = torch.full((3, 4), INF, **F64)
    longer = Events(torch.cat([x.times, pad], 1), torch.cat([x.neurons, torch.full((3, 4), 4)], 1), 5)
    gradients = []
    for events in (x, longer):
        times = events.times.clone().requires_grad_()
        out = net(Events(times, events.neurons, 5), RULE)[-1]
        net.zero_grad()
        weighted(out).backward()
        gradients.append((out.times, net.layers[0].synapse.weight.grad.clone(), times.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])
    assert torch.equal(gradients[0][2], gradients[1][2][:, : x.times.shape[1]])
    assert gradients[1][2][:, x.times.shape[1] :].abs().sum() == 0


def test_a_later_input_changes_no_earlier_spike():
    net, t = network(1), trains(1)
    cut = 0.03
    later = t.clone()
    later[:, 2, 1] = 0.031  # one spike of input 2, wherever it was, is now behind the cut
    base = t.clone()
    base[:, 2, 1] = INF
    early = [
        [torch.where(e.times < cut, e.times, INF)[:, : int((e.times < cut).sum(1).max())] for e in net(x, RULE)]
        for x in (base, later)
    ]
    for a, b in zip(*early, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(net(base, RULE)[-1].times, net(later, RULE)[-1].times)


def test_what_comes_after_the_horizon_is_not_seen():
    net, t = network(1), trains(1)
    late = t.clone()
    late[:, 0, 0] = 0.07
    never = t.clone()
    never[:, 0, 0] = INF
    late.requires_grad_()
    a, b = net(late, RULE)[-1], net(never, RULE)[-1]
    assert torch.equal(a.times, b.times)
    assert a.times[a.times.isfinite()].max() < 0.06
    weighted(a).backward()
    assert late.grad[:, 0, 0].abs().sum() == 0
    assert late.grad.abs().sum() > 0


def test_silent_layers():
    net = EventNetwork(
        EventLIF(linear(torch.full((2, 3), 0.1, **F64)), horizon=0.1), network(0, sizes=(2, 2)).layers[0]
    )
    t = 0.01 * torch.rand(4, 3, generator=draw(0), **F64)
    t.requires_grad_()
    hidden, out = net(t, RULE)
    assert hidden.counts().sum() == out.counts().sum() == 0
    loss = FirstSpikeCrossEntropy(0.1, 1e-3)(out, torch.tensor([0, 1, 0, 1]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert all(x.grad.abs().sum() == 0 for x in (t, *net.parameters()))
    cost = silence_cost(net.layers[0].synapse, t, hidden.first(), level=5.0)
    assert cost.item() == pytest.approx(2 * (5 - 0.3))


def test_a_spike_is_born():
    """As one weight grows the loss jumps; the slope is 0 before, and infinite just behind."""
    t, target = torch.tensor([[0.0, 0.004]], **F64), torch.tensor([[0.02]], **F64)

    def at(w):
        net = EventNetwork(EventLIF(linear(torch.tensor([[3.0, w]], **F64)), horizon=0.1))
        value = RULE.backward(net, t, target, SpikeTimes())
        return value.item(), net.layers[0].synapse.weight.grad[0, 1].item()

    low, high = 0.0, 10.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if at(middle)[0] > 0 else (middle, high)
    assert at(low) == (0, 0)
    assert at(high)[0] > 1e-5  # seconds squared: the spike is some ms off its target as it appears
    slopes = [abs(at(high + step)[1]) for step in (1e-2, 1e-4, 1e-6)]
    assert 5 * slopes[0] < slopes[1] < slopes[2] / 5
    assert math.isfinite(at(high)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_newborn_spike_has_a_finite_gradient_of_the_right_sign(dtype):
    """At the smallest weight that fires rounding makes I - theta zero or negative for some of 300 neurons."""
    t, others = torch.tensor([[0.0, 0.004]], dtype=dtype), torch.linspace(2, 6, 300, dtype=dtype)
    synapse = nn.Linear(2, 300, bias=False, dtype=dtype)
    net = EventNetwork(EventLIF(synapse, horizon=0.1))
    low, high = torch.zeros(300, dtype=dtype), torch.full((300,), 10.0, dtype=dtype)
    for _ in range(80):
        middle = (low + high) / 2
        with torch.no_grad():
            synapse.weight.copy_(torch.stack([others, middle], 1))
            fires = net(t, RULE)[0].first()[0].isfinite()
        low, high = torch.where(fires, low, middle), torch.where(fires, middle, high)
    with torch.no_grad():
        synapse.weight.copy_(torch.stack([others, high], 1))
    first = net(t, RULE)[0].first()
    assert first.isfinite().all()
    first.sum().backward()
    gradient = synapse.weight.grad[:, 1]
    assert gradient.isfinite().all()
    assert (gradient < 0).all()  # more weight, an earlier spike


def test_error_through_other_weights():
    net, t = network(0), trains(0)
    other = drawn(6, 3, draw(9))

    class Down:
        def __init__(self, through):
            self.through = through

        def down(self, i, synapse):
            return self.through if i == 1 else synapse

    class Fixed:
        def __init__(self, through):
            self.spatial = Down(through)

    def gradients(rule):
        net.zero_grad()
        weighted(net(t, rule)[-1]).backward()
        return [layer.synapse.weight.grad.clone() for layer in net.layers]

    true, same, random, nothing = (
        gradients(rule) for rule in (RULE, Fixed(net.layers[1].synapse), Fixed(other), Fixed(None))
    )
    assert torch.equal(true[0], same[0])
    assert all(torch.equal(true[1], x[1]) for x in (same, random, nothing))
    assert random[0].abs().sum() > 0
    assert not torch.allclose(random[0], true[0], rtol=1e-2)
    assert other.weight.grad is None
    assert nothing[0].abs().sum() == 0
    # The error goes in linearly: through the transposed weights plus others it is the sum of the two
    both = linear((net.layers[1].synapse.weight + other.weight).detach())
    equal(gradients(Fixed(both))[0], true[0] + random[0], 1e-12)
    for wrong in (drawn(5, 3, draw(9)), nn.Identity()):
        with pytest.raises(TypeError, match="in layer 1 down must be the synapse"):
            net(t, Fixed(wrong))


def test_frozen_weights_and_single_precision():
    net, t = network(0), trains(0)
    net.layers[0].synapse.weight.requires_grad_(False)
    weighted(net(t, RULE)[-1]).backward()
    assert net.layers[0].synapse.weight.grad is None
    assert net.layers[1].synapse.weight.grad.abs().sum() > 0
    double = net(t, RULE)
    single = net.float()(t.float(), RULE)
    assert single[-1].times.dtype == torch.float32
    assert same_spikes(double, single)
    torch.testing.assert_close(single[-1].times, double[-1].times.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), CELLS)
def test_crossings_to_machine_precision(tau_mem, tau_syn):
    """From just below theta to where V just does not get there any more."""
    cell, V = Cell(tau_mem, tau_syn, 1.0), torch.linspace(-20, 0.999, 4000, **F64)
    rest, one = torch.zeros(1, **F64), torch.ones(1, **F64)
    I = 1.3 / cell.after(rest, one, cell.top(rest, one))[0] * torch.ones_like(V)  # from rest V would reach 1.3
    top = cell.top(V, I)
    assert not top.isnan().any()
    peak = torch.where(top.isfinite(), top, 0.0)
    crosses, hit = cell.crossing(V, I, torch.full_like(V, 1.0))
    assert torch.equal(crosses, cell.after(V, I, peak)[0] > 1)
    assert 100 < crosses.sum() < 3900
    V, I, peak = V[crosses], I[crosses], peak[crosses]
    assert (hit <= peak).all()
    v, i = cell.after(V, I, hit)
    slope = (i - v) / tau_mem
    assert ((v - 1).abs() <= 1e-14 + 1e-15 * slope * hit).all()
    assert (cell.after(V, I, hit * (1 - 1e-6))[0] < 1).all()
    assert not cell.crossing(V, I, hit * (1 - 1e-6))[0].any()  # nor if the time is up before


def test_runaway_activity_is_refused():
    net = EventNetwork(EventLIF(linear(torch.tensor([[0.5], [400.0]], **F64)), horizon=0.1, most=50))
    with pytest.raises(ValueError, match=r"neuron 1 fires more than most = 50 times within 0.1 s \(sample 2\)"):
        net(torch.tensor([[INF], [INF], [0.0]], **F64), RULE)
    one = torch.tensor([[0.0]], **F64)
    net.layers[0].most = 2000
    spikes = int(net(one, RULE)[0].counts()[0, 1])
    assert 50 < spikes < 2000
    net.layers[0].most = spikes
    assert net(one, RULE)[0].counts()[0, 1] == spikes
    net.layers[0].most = spikes - 1
    with pytest.raises(ValueError, match=f"most = {spikes - 1} times"):
        net(one, RULE)


def test_bad_layers_and_networks():
    synapse = nn.Linear(2, 3, bias=False)
    with pytest.raises(ValueError, match="has no bias"):
        EventLIF(nn.Linear(2, 3), horizon=0.1)
    with pytest.raises(TypeError, match=r"must be an .*Linear, got Conv2d"):
        EventLIF(nn.Conv2d(1, 1, 1), horizon=0.1)
    for name in ("tau_mem", "tau_syn", "theta", "horizon"):
        with pytest.raises(ValueError, match=f"{name} must be a positive"):
            EventLIF(synapse, **{"horizon": 0.1, name: -1.0})
        with pytest.raises(TypeError, match="got a tensor"):
            EventLIF(synapse, **{"horizon": 0.1, name: torch.ones(3)})
    with pytest.raises(ValueError, match="most must be at least 1"):
        EventLIF(synapse, horizon=0.1, most=0)
    layer = EventLIF(synapse, horizon=0.1)
    assert "horizon=0.1, tau_mem=0.02" in repr(layer)
    with pytest.raises(TypeError, match="one or more EventLIF layers, got nothing"):
        EventNetwork()
    with pytest.raises(TypeError, match="got Linear"):
        EventNetwork(synapse)
    with pytest.raises(ValueError, match="layer 0 has 3 neurons, layer 1 takes spikes of 2"):
        EventNetwork(layer, layer)
    net = EventNetwork(layer)
    with pytest.raises(ValueError, match="takes spikes of 2 neurons, its input has 4"):
        net(torch.rand(1, 4), RULE)
    with pytest.raises(TypeError, match="float64"):
        net(torch.rand(1, 2, **F64), RULE)
    with pytest.raises(ValueError, match="in order of time"):
        net(Events(torch.tensor([[0.2, 0.1]]), torch.tensor([[0, 1]]), 2), RULE)
    with torch.no_grad():
        synapse.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="have diverged"):
        net(torch.rand(1, 2), RULE)


def test_eventprop_is_not_for_time_steps():
    with pytest.raises(TypeError, match="needs an EventNetwork"):
        EventProp().run()
    with pytest.raises(TypeError, match="EventProp"):
        RULE.gradients(Network(Layer(nn.Linear(2, 2), lif())), torch.zeros(3, 1, 2), None, lambda o, y: o.sum())


# Losses.


def table(*rows):
    return Events.from_times(torch.tensor(rows, **F64))


def test_first_spike_cross_entropy_by_hand():
    events, y = table([0.01, 0.02, INF], [0.03, 0.01, 0.02]), torch.tensor([0, 2])
    loss = FirstSpikeCrossEntropy(0.05, 0.01)
    assert loss.scores(events).tolist() == [
        pytest.approx([-1, -2, -5]),
        pytest.approx([-3, -1, -2]),
    ]
    soft = [-1 - math.log(sum(math.exp(x) for x in (-1, -2, -5))), -2 - math.log(sum(math.exp(-x) for x in (3, 1, 2)))]
    assert loss(events, y).item() == pytest.approx(-sum(soft) / 2)
    late = FirstSpikeCrossEntropy(0.05, 0.01, late=0.5, tau_late=0.02)(events, y) - loss(events, y)
    assert late.item() == pytest.approx(0.5 * sum(math.expm1(x / 2) for x in (1, 2, 5, 3, 1, 2)) / 6)


def test_spike_times_by_hand():
    t = torch.tensor([[[0.010, 0.030], [0.020, INF]], [[INF, INF], [0.050, 0.040]]], **F64, requires_grad=True)
    events = Events.from_times(t)
    y = torch.tensor([[0.012], [0.025]], **F64)  # a first spike each; second ones are told nothing
    loss = SpikeTimes()(events, y)
    assert loss.item() == pytest.approx(0.5 * (0.002**2 + 0.005**2 + 0.015**2) / 2)
    loss.backward()
    assert t.grad[0].tolist() == [[pytest.approx(-0.001), 0], [pytest.approx(-0.0025), 0]]
    assert t.grad[1].tolist() == [[0, 0], [0, pytest.approx(0.0075)]]
    each = torch.stack([y, torch.full_like(y, INF)])
    assert SpikeTimes()(events, each).item() == pytest.approx(0.5 * (0.002**2 + 0.005**2) / 2)
    assert SpikeTimes().scores(events).tolist() == [[-0.010, -0.020], [-INF, -0.040]]


def test_bad_losses():
    events = table([0.01, 0.02])
    for loss in (FirstSpikeCrossEntropy(0.05, 0.01), SpikeTimes()):
        with pytest.raises(TypeError, match="takes Events, got Tensor"):
            loss(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"0\.\.1, the 2 outputs"):
        FirstSpikeCrossEntropy(0.05, 0.01)(events, torch.tensor([2]))
    for name in ("horizon", "tau", "tau_late"):
        with pytest.raises(ValueError, match=f"{name} must be a positive"):
            FirstSpikeCrossEntropy(**{"horizon": 0.05, "tau": 0.01, name: 0.0})
    with pytest.raises(ValueError, match="late, the weight"):
        FirstSpikeCrossEntropy(0.05, 0.01, late=-1.0)
    with pytest.raises(ValueError, match=r"\(2, R\) or \(1, 2, R\), got \(3, 1\)"):
        SpikeTimes()(events, torch.zeros(3, 1, **F64))
    with pytest.raises(ValueError, match="NaN or -inf"):
        SpikeTimes()(events, torch.full((2, 1), math.nan, **F64))
    with pytest.raises(TypeError, match="float32"):
        SpikeTimes()(events, torch.zeros(2, 1))


# Digits.


def test_pixels_as_spike_times():
    t = on_off_times(torch.tensor([[[0.0, 1.0], [0.25, 0.5]]]), last=0.02)
    torch.testing.assert_close(t, torch.tensor([[0.02, 0, 0.015, 0.01, 0, 0.02, 0.005, 0.01]]))
    with pytest.raises(ValueError, match="last must be a positive"):
        on_off_times(torch.zeros(1, 2), last=0.0)


def test_digits_can_be_learned():
    """A few steps on one batch: most neurons fire at the start, the gradient reaches both layers, the loss falls."""
    x, y = (part[:32] for part in datasets.digits().train)
    net, loss = digits_network(draw(0), hidden=48), digits_loss()
    assert torch.equal(net.layers[1].synapse.weight, digits_network(draw(0), hidden=48).layers[1].synapse.weight)
    hidden, out = net(on_off_times(x), RULE)
    assert (hidden.counts() == 0).double().mean() < 0.4
    assert (out.counts() == 0).double().mean() < 0.2
    optimizer, values = torch.optim.Adam(net.parameters(), 1e-2), []
    for _ in range(15):
        optimizer.zero_grad()
        values.append(RULE.backward(net, on_off_times(x), y, loss).item())
        assert all(p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
    assert values[-1] < 0.7 * values[0]
