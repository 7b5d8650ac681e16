"""RTRL: the numbers of a naive forward mode, learned constants, the loss's own memory, and its limits."""

import copy

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
    SpikeCount,
    Threshold,
    Unrolled,
    cuba_lif,
    readout,
    subtract,
    to_zero,
)
from snnlearn.filters import IDENTITY
from snnlearn.losses import OverTime, cross_entropy, half_square, van_rossum

F64 = {"dtype": torch.float64}
SQUARE, CE = OverTime(half_square), OverTime(cross_entropy, mean=True)


@pytest.mark.parametrize(("tag", "reset"), [("", Reset.KEPT), ("_detached", Reset.DETACHED)])
def test_a_recurrent_network_step_by_step(tag, reset):
    g = Golden("08_rtrl")
    neuron = Neuron(g["alpha"], g["beta"], g["threshold"], subtract, Threshold(strict=True))
    net = Network(*(Layer(linear(g[f"W{i}"]), neuron, linear(g[f"V{i}"]), delay=2, lag=2) for i in (1, 2)))
    rule = Rule(FastSigmoid.from_steepness(g["surr_slope"]), RTRL(reset))
    x, y = g.tm("x").double(), g.tm("target").double()
    steps = list(rule.temporal.steps(net, x, y, SQUARE, rule))
    value, total = rule.gradients(net, x, y, SQUARE)
    assert value.item() == sum(v for v, _ in steps).item() == pytest.approx(g["loss"])
    for i in (0, 1):
        for letter, part in (("W", "synapse"), ("V", "recurrent")):
            key, name = f"grad_{letter}{i + 1}", f"layers.{i}.{part}.weight"
            equal(torch.stack([gradients[name] for _, gradients in steps]), g[f"{key}_per_step{tag}"])
            equal(total[name], g[key + tag])
    bptt = Rule(rule.surrogate, Unrolled(reset)).gradients(net, x.clone().requires_grad_(), y, SQUARE)[1]
    assert distance(total, bptt) < 1e-12


def test_the_influence_matrix_ends_as_in_the_file():
    """P of the last spikes: dS2[T-1]/dW, the entries of h that hold the top layer's spikes."""
    g = Golden("08_rtrl")
    neuron = Neuron(g["alpha"], g["beta"], g["threshold"], subtract, Threshold(strict=True))
    net = Network(*(Layer(linear(g[f"W{i}"]), neuron, linear(g[f"V{i}"]), delay=2, lag=2) for i in (1, 2)))
    rule = Rule(FastSigmoid.from_steepness(g["surr_slope"]), RTRL())
    x, y = g.tm("x").double(), g.tm("target").double()
    carry = rule.temporal.start(net, x[0], SQUARE, rule)
    for n in range(len(x)):
        carry, *_ = rule.temporal.step(net, carry, x[n], y[n], SQUARE, rule)
    P, at = carry.P, 0
    first = sum(v.numel() for v in (net.layers[0].synapse.weight,))
    last = P[:, -3:, at : at + first].unflatten(-1, (4, 5))  # the newest of the top layer's sent spikes come last
    equal(last, g["P2_last_W1"])


@pytest.mark.parametrize("reset", [subtract, to_zero])
def test_learned_constants(reset):
    net, x = alive(2, "CuBa", reset=reset.__name__)
    learned = Learned(
        cuba_lif,
        reset=reset,
        tau_mem=nn.Parameter(torch.full((4,), 6e-3, **F64)),
        tau_syn=nn.Parameter(torch.tensor(3e-3, **F64)),
        theta=nn.Parameter(torch.ones(4, **F64)),
    )
    net = Network(Layer(net.layers[0].synapse, learned), net.layers[1])
    y = torch.arange(B) % 3
    found, wanted = (Rule(SURROGATE, m).gradients(net, x, y, CE)[1] for m in (RTRL(), Unrolled()))
    assert len(found) == 7
    assert all(g.abs().max() > 0 for g in wanted.values())
    for name in wanted:
        equal(found[name], wanted[name], 1e-10)


def test_the_memory_of_a_filtered_loss():
    net, x = alive(4, "CuBa", top=False)
    y = (torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), **F64) < 0.2).double()
    found, wanted = (Rule(SURROGATE, m).gradients(net, x, y, van_rossum()) for m in (RTRL(), Unrolled()))
    assert found[0].item() == pytest.approx(wanted[0].item(), rel=1e-12)
    assert distance(found[1], wanted[1]) < 1e-12
    assert distance(Rule(SURROGATE, RTRL()).gradients(net, x, y, SQUARE)[1], wanted[1]) > 1e-2


def test_convolution_pooling_and_recurrence():
    own = nn.Conv2d(2, 2, 3, padding=1, bias=False, **F64)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, **F64), nn.MaxPool2d(2))
    with torch.no_grad():
        conv[0].weight.mul_(5)
    top = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, **F64))
    net = Network(Layer(conv, Neuron(0.6, 0.8), own, delay=1, lag=2), Layer(top, readout(tau_mem=8e-3)))
    x = (torch.rand(10, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0), **F64) < 0.4).double()
    y = torch.tensor([0, 2])
    assert net(x, Rule())[0].s.mean() > 0.05
    found, wanted = (Rule(SURROGATE, m).gradients(net, x, y, CE)[1] for m in (RTRL(), Unrolled()))
    assert distance(found, wanted) < 1e-10


@pytest.mark.parametrize("method", [RTRL(), Eligibility(), Unrolled(Reset.DETACHED)], ids=["rtrl", "traces", "bptt"])
def test_two_layers_may_share_a_synapse(method):
    """And the network is left as it was: torch's functional_call would put tensors in the place of its parameters."""
    net, x = alive(3, "LIF", layers=2, top=False)
    shared = net.layers[1].synapse
    net = Network(net.layers[0], *(Layer(shared, net.layers[1].neuron) for _ in range(2)))
    y = torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), **F64)
    loss = SQUARE if method != Eligibility() else van_rossum(IDENTITY)
    found = Rule(SURROGATE, method).gradients(net, x, y, loss)[1]
    again = Rule(SURROGATE, method).gradients(net, x, y, loss)[1]
    assert isinstance(net.layers[2].synapse.weight, nn.Parameter)
    assert distance(again, found) == 0
    if isinstance(method, RTRL):
        assert distance(found, Rule(SURROGATE, Unrolled()).gradients(net, x, y, loss)[1]) < 1e-12
    if isinstance(method, Eligibility):  # each layer's own part, from a network of copies
        copies = Network(*(copy.deepcopy(layer) for layer in net.layers))
        parts = Rule(SURROGATE, method).gradients(copies, x, y, loss)[1]
        wanted = parts["layers.1.synapse.weight"] + parts["layers.2.synapse.weight"]
        equal(found["layers.1.synapse.weight"], wanted, 1e-12)


def test_a_module_may_be_synapse_and_recurrence_at_once():
    own = nn.Linear(4, 4, bias=False, **F64)
    net, x = alive(2, top=False)
    net = Network(net.layers[0], Layer(own, net.layers[0].neuron, own))
    y = torch.rand(T, B, 4, generator=torch.Generator().manual_seed(0), **F64)
    found, adjoint, wanted = (
        Rule(SURROGATE, m).gradients(net, x, y, SQUARE)[1] for m in (RTRL(), Adjoint(), Unrolled())
    )
    assert distance(found, wanted) < 1e-12
    assert distance(adjoint, wanted) < 1e-12
    assert isinstance(net.layers[1].synapse.weight, nn.Parameter)


def test_frozen_parameters_are_left_out():
    net, x = alive(2)
    net.layers[0].requires_grad_(False)
    y = torch.arange(B) % 3
    found, wanted = (Rule(SURROGATE, m).gradients(net, x, y, CE)[1] for m in (RTRL(), Unrolled()))
    assert set(found) == {"layers.1.synapse.weight", "layers.1.synapse.bias"}
    assert distance(found, wanted) < 1e-12


def test_a_network_too_large_is_refused_before_memory_runs_out():
    net, x = alive(2)
    with pytest.raises(ValueError, match="would carry"):
        Rule(SURROGATE, RTRL(largest=1000)).gradients(net, x, torch.arange(B) % 3, CE)


def test_bad_input():
    net, x = alive(2, top=False)
    with pytest.raises(TypeError, match="sum over time"):
        Rule(SURROGATE, RTRL()).gradients(net, x, torch.arange(B) % 3, SpikeCount(3))
    with pytest.raises(TypeError, match="reset must be"):
        RTRL("kept")
    with pytest.raises(ValueError, match="largest must be at least 1"):
        RTRL(largest=0)
    srm = Network(Layer(nn.Linear(5, 4, **F64), SRM.lif(0.8, T=T)))
    with pytest.raises(ValueError, match="an SRM, whose past"):
        Rule(SURROGATE, RTRL()).gradients(srm, x, torch.zeros(T, B, 4, **F64), SQUARE)
