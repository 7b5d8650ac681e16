"""The grid: every pair runs or is refused as it says, is exact where it says so, and costs what it says."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from trials import SURROGATE, B, T, alive, distance

from snnlearn import SRM, Layer, LocalErrors, Near, Network, Rule, Threshold, grid, lif, readout, to_zero
from snnlearn.events import EventLIF, EventNetwork
from snnlearn.firstspike import FirstSpikeCrossEntropy
from snnlearn.footprint import Work, measure, work
from snnlearn.losses import OverTime, cross_entropy, van_rossum

F64 = {"dtype": torch.float64}
README = (Path(grid.__file__).parents[1] / "README.md").read_text()
PAIRS = grid.pairs()
RUNS = [p for p in PAIRS if not p.refused]
CE = OverTime(cross_entropy, mean=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def name(pair):
    return f"{pair.time.name} x {pair.space.name}"


def trial(time):
    """A living network that a row can train, its input, target and loss."""
    y = torch.arange(B) % 3
    if time.name == "eventprop":
        layers = [EventLIF(nn.Linear(n, m, bias=False, **F64), horizon=0.1) for n, m in ((4, 6), (6, 3))]
        with torch.no_grad():
            for layer in layers:
                layer.synapse.weight.uniform_(2.0, 6.0, generator=generator())
        x = torch.rand(B, 4, generator=generator(), **F64) * 0.03
        return EventNetwork(*layers), x, y, FirstSpikeCrossEntropy(horizon=0.1, tau=5e-3)
    if time.name == "exodus_srm":
        net, x = alive(4, "LIF", layers=2, top=False)
        return Network(*(Layer(layer.synapse, SRM.lif(0.85, T=T)) for layer in net.layers)), x, y, CE
    if time.name == "tssl_bp":
        net, x = alive(4, "CuBa", layers=1, reset="to_zero", fire=Threshold(strict=True))
        return net, x, y, CE
    if time.name == "eligibility_filtered":
        net, x = alive(4, "CuBa", layers=2, top=False)
        g = generator(2)
        top = nn.Linear(4, 3, bias=False, **F64)
        with torch.no_grad():
            top.weight.uniform_(0.1, 0.5, generator=g)
        net = Network(net.layers[0], Layer(top, net.layers[0].neuron))
        return net, x, (torch.rand(T, B, 3, generator=g, **F64) < 0.2).double(), van_rossum()
    net, x = alive(4, "CuBa", layers=1)
    return net, x, y, CE


def rule(pair, net, surrogate=SURROGATE):
    if pair.space.name == "local_errors" and pair.time.name in ("eligibility_filtered", "exodus_srm"):
        classes = 3 if pair.time.name == "eligibility_filtered" else 4  # a layer that fires on top has a critic too
        return Rule(surrogate, pair.time.method, LocalErrors.random(net, generator(1), classes=classes))
    return pair.rule(net, generator(1), surrogate)


def test_the_grid_is_whole():
    assert len(PAIRS) == len(grid.TIMES) * len(grid.SPACES) == 40
    assert len({(p.time.name, p.space.name) for p in PAIRS}) == 40
    names = {(p.time.name, p.space.name) for p in PAIRS}
    assert set(grid.NAMES) <= names
    assert set(grid.REFUSED) <= names
    assert not set(grid.NAMES) & set(grid.REFUSED)


@pytest.mark.parametrize("surrogate", [SURROGATE, Near(SURROGATE, 0.7)], ids=["plain", "sparse"])
@pytest.mark.parametrize("pair", RUNS, ids=name)
def test_every_pair_runs_with_any_surrogate(pair, surrogate):
    net, x, y, loss = trial(pair.time)
    found = rule(pair, net, surrogate).gradients(net, x, y, loss)[1]
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in found.values())


@pytest.mark.parametrize("pair", [p for p in RUNS if p.time.name not in ("eventprop", "tssl_bp")], ids=name)
def test_exact_means_exact_and_biased_means_biased(pair):
    """Against backpropagation through time on the row's own network."""
    net, x, y, loss = trial(pair.time)
    exact = Rule(SURROGATE).gradients(net, x, y, loss)[1]
    d = distance(rule(pair, net).gradients(net, x, y, loss)[1], exact)
    if pair.gradient == "exact":
        assert d < 1e-10
    else:
        assert d > 1e-3
        assert pair.gradient.startswith("biased: ")


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.refused], ids=name)
def test_refused_pairs_are_refused_with_a_neighbour_that_runs(pair):
    net, x, y, loss = trial(pair.time)
    with pytest.raises(ValueError, match=re.escape(pair.refused)):
        pair.rule(net, generator())
    neighbours = re.findall(r"(\w+) x (\w+)", pair.refused)
    assert neighbours
    assert all(not grid.pair(*n).refused for n in neighbours)
    shallow, _ = alive(1)
    spatial = pair.space.make(shallow, generator())
    with pytest.raises(ValueError, match="spike times have none"):
        Rule(temporal=pair.time.method, spatial=spatial).gradients(net, x, y, loss)


def test_a_pair_that_is_not_there():
    with pytest.raises(ValueError, match="no pair 'bptt' x 'sideways'; through time there are bptt, exodus"):
        grid.pair("bptt", "sideways")


# Costs.


def layered(time, neurons, classes=2):
    """A network of two hidden layers and a readout, or as near to it as the row's method allows."""
    g = generator()

    def synapse(n, m):
        layer = nn.Linear(n, m, bias=False)
        with torch.no_grad():
            layer.weight.normal_(0, 3 / math.sqrt(n), generator=g)
        return layer

    sizes, loss, steps = (neurons, neurons, neurons, classes), CE, 40
    if time.name == "eprop":
        sizes = (neurons, neurons, classes)
    neuron = lif(reset=to_zero) if time.name == "tssl_bp" else lif()
    top = readout()
    if time.name == "eligibility_filtered":
        top, loss = lif(), van_rossum()
    if time.name == "exodus_srm":
        neuron = top = SRM.lif(0.9, T=2 * steps)
    kinds = [neuron] * (len(sizes) - 2) + [top]
    layers = [Layer(synapse(n, m), kind) for (n, m), kind in zip(pairwise(sizes), kinds, strict=True)]
    return Network(*layers), steps, loss


def batch(net, loss, steps, classes=2, samples=1):
    n = net.layers[0].synapse.in_features
    x = (torch.rand(steps, samples, n, generator=generator(1)) < 0.3).float()
    y = torch.zeros(samples, dtype=torch.long) if loss.filter is None else torch.zeros(steps, samples, classes)
    return x, y


def exponent(of, small, large, factor):
    return math.log(of(large) / of(small)) / math.log(factor)


COUNTED = [p for p in RUNS if p.time.name != "eventprop"]
SIZES = {"rtrl": (12, 24)}  # whose matrices are (24 states + ...) x 300 numbers at 12 neurons


def counted(pair, neurons, classes=2):
    """The pair's rule, for a network of its row."""
    net, steps, loss = layered(pair.time, neurons, classes)
    g, method = generator(1), pair.time.method
    if pair.space.name == "local_errors":
        return Rule(temporal=method, spatial=LocalErrors.random(net, g, classes=classes)), net, steps, loss
    return Rule(temporal=method, spatial=pair.space.make(net, g)), net, steps, loss


@pytest.mark.parametrize("pair", COUNTED, ids=name)
def test_memory_grows_as_the_grid_says(pair):
    time, (small, large) = pair.time, SIZES.get(pair.time.name, (64, 256))

    def kept(neurons, factor=1):
        """For one sample more."""
        rule, net, steps, loss = counted(pair, neurons)
        batches = (batch(net, loss, factor * steps, samples=n) for n in (2, 3))
        two, three = (measure(rule, net, *b, loss).kept for b in batches)
        return three - two

    assert exponent(kept, small, large, large / small) == pytest.approx(time.memory.neurons, abs=0.3)
    by_steps = math.log2(kept(small, 2) / kept(small))
    assert by_steps == pytest.approx(time.memory.steps, abs=0.15)


@pytest.mark.parametrize("pair", COUNTED, ids=name)
def test_work_grows_as_the_grid_says(pair):
    time, (small, large) = pair.time, SIZES.get(pair.time.name, (512, 1024))

    def operations(neurons, steps=4):
        rule, net, _, loss = counted(pair, neurons)
        return work(rule, net, *batch(net, loss, steps), loss)

    assert exponent(operations, small, large, large / small) == pytest.approx(time.work.neurons, abs=0.3)
    if not time.work.more:
        assert math.log2(operations(16, 80) / operations(16, 40)) == pytest.approx(1, abs=0.15)


def test_kernels_cost_a_sequence_each_step():
    """The convolution of any kernel: work a step grows with T where a recursion's does not."""
    ratios = {}
    for name in ("exodus_srm", "exodus"):
        time = next(t for t in grid.TIMES if t.name == name)
        net, _, loss = layered(time, 8)
        few, many = (
            work(Rule(temporal=time.method), net, *batch(net, loss, steps), loss) / steps for steps in (20, 80)
        )
        ratios[name] = many / few
    assert ratios["exodus_srm"] > 1.5
    assert ratios["exodus"] == pytest.approx(1, abs=0.1)


def test_feedback_weights_are_kept_once():
    """They do not come with every sample: what is kept is what the row keeps."""
    time = grid.TIMES[1]
    net, steps, loss = layered(time, 64)
    x, y = batch(net, loss, steps)
    plain = measure(grid.pair("exodus", "transpose").rule(net, generator()), net, x, y, loss).kept
    for space in grid.SPACES[1:]:
        rule = grid.pair("exodus", space.name).rule(net, generator())
        assert measure(rule, net, x, y, loss).kept == pytest.approx(plain, rel=0.25)
        numbers = sum(p.numel() for p in rule.spatial.parameters())
        assert numbers == {"feedback_alignment": 64 * 64 + 2 * 64}.get(space.name, 2 * 2 * 64)


def test_work_is_counted():
    x, w = torch.rand(3, 5), torch.rand(5, 7)
    with Work() as counted:
        _ = (x @ w).relu().T
    assert counted.operations == 2 * 3 * 5 * 7 + 3 * 7


def test_costs_are_written_out():
    assert str(grid.Cost(1, 1)) == "O(T N)"
    assert str(grid.Cost(3)) == "O(N³)"
    assert str(grid.Cost(2, 0, " + T N")) == "O(N² + T N)"


def test_the_readme_has_this_grid():
    assert grid.table() in README
