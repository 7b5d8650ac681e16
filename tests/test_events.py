"""Continuous time: first spikes in closed form, EventProp, and losses on spike times."""

import math

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
    layers = [drawn(n, m, g, MEAN * scale, 1.5 * scale) for n, m in zip(sizes, sizes[1:], strict=False)]
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
    torch.where(first.isinf(), 0.0, first * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
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
    t, W, dt = 0.02 * torch.rand(2, 6, generator=g, **F64), layer.synapse.weight.detach(), 2e-6
    I, U, found = torch.zeros(2, 8, **F64), torch.zeros(2, 8, **F64), torch.full((2, 8), INF, **F64)
    for n in range(30_000):
        I = I * math.exp(-dt / 5e-3) + ((t >= n * dt) & (t < (n + 1) * dt)).double() @ W.T
        U = U + I * dt / 5e-3
        found = torch.where((1 <= U) & found.isinf(), (n + 1) * dt, found)
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


def test_bad_first_spikes():
    layer = FirstSpike(nn.Linear(2, 3, bias=False))
    with pytest.raises(TypeError, match="must be an nn.Linear, got Conv2d"):
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


CELLS = [(20e-3, 5e-3), (5e-3, 20e-3), (10e-3, 10e-3), (10e-3, 10e-3 * (1 + 1e-9))]


@pytest.mark.parametrize(("tau_mem", "tau_syn"), CELLS)
@pytest.mark.parametrize("seed", range(3))
def test_eventprop_by_finite_differences(seed, tau_mem, tau_syn):
    """Two layers, several spikes a neuron: all spike times, through one loss in which each counts differently."""
    net, t = network(seed, tau_mem, tau_syn), trains(seed).requires_grad_()
    out = net(t, RULE)
    assert out[0].counts().max() > 2
    assert out[1].counts().max() > 2
    weighted(out[-1]).backward()
    with torch.no_grad():
        for x, h in [(layer.synapse.weight, 1e-6) for layer in net.layers] + [(t, 1e-8)]:
            equal(x.grad, differences(lambda o: weighted(o[-1]), x, lambda: net(t, RULE), h), 1e-6)


def test_without_the_jump_it_fails(monkeypatch):
    """The negative control: each part of lV += (theta * lV + dL/dt) / (I - theta) is needed."""
    gradients = {}
    for wrong in ("right", "no reset", "no current"):
        net, t = network(0), trains(0).requires_grad_()
        out = net(t, RULE)
        node = out[-1].times.grad_fn
        for function in (node, next(f for f, _ in node.next_functions if hasattr(f, "cell"))):
            if wrong == "no reset":  # theta * lV left out
                function.cell = Cell(function.cell.tau_mem, function.cell.tau_syn, 1e-12)
                fields = list(function.saved_tensors)
                assert len(fields) == 7
            if wrong == "no current":
                function.cell = Cell(function.cell.tau_mem, function.cell.tau_syn * (1 + 1e-3), 1.0)
        weighted(out[-1]).backward()
        gradients[wrong] = net.layers[0].synapse.weight.grad
    for wrong in ("no reset", "no current"):
        with pytest.raises(AssertionError):
            equal(gradients[wrong], gradients["right"], 1e-6)
