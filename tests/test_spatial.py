"""Credit through layers: identities between spatial rules, each with a partner that must not hold; convolutions,
recurrence, what is drawn and saved, and what is refused."""

import copy
import io
import math

import pytest
import torch
from golden import linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from trials import NEURONS, RESETS, SURROGATE, B, T, alive, distance, networks, seeds

from snnlearn import (
    RTRL,
    Adjoint,
    Analog,
    CrossEntropy,
    DirectFeedback,
    Eligibility,
    FeedbackAlignment,
    Layer,
    LocalErrors,
    Network,
    Neuron,
    Reset,
    Rule,
    SpikeCount,
    Transpose,
    Unrolled,
    no_reset,
    readout,
    recipes,
)
from snnlearn.events import EventLIF, EventNetwork
from snnlearn.firstspike import digits_loss
from snnlearn.losses import OverTime, cross_entropy, half_square, van_rossum
from snnlearn.spatial import Spatial, connect, keep_active

F64 = {"dtype": torch.float64}
SAME, OTHER = 1e-10, 1e-3
CE = OverTime(cross_entropy, mean=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gradient(net, x, temporal, spatial, loss=CE, y=None):
    y = torch.arange(x.shape[1]) % 3 if y is None else y
    return Rule(SURROGATE, temporal, spatial).gradients(net, x, y, loss)[1]


def only(gradients, *parts):
    return {name: g for name, g in gradients.items() if any(part in name for part in parts)}


def copies(net):
    """Feedback through exact copies of the forward weights."""
    own = {i: copy.deepcopy(layer.recurrent) for i, layer in enumerate(net.layers) if layer.recurrent is not None}
    return FeedbackAlignment([copy.deepcopy(layer.synapse) for layer in net.layers[1:]], own)


# Feedback alignment.


@given(networks)
@settings(max_examples=20)
def test_feedback_through_the_weights_themselves_is_backpropagation(drawn):
    net, x = alive(**drawn)
    same, random = copies(net), FeedbackAlignment.random(net, generator(drawn["seed"]))
    for temporal in (Unrolled(), Adjoint(Reset.DETACHED), RTRL()):
        wanted = gradient(net, x, temporal, Transpose())
        assert distance(gradient(net, x, temporal, same), wanted) < SAME
        assert distance(gradient(net, x, temporal, random), wanted) > OTHER


@given(networks)
@settings(max_examples=15)
def test_every_exact_way_through_time_gives_the_same_with_the_same_feedback(drawn):
    net, x = alive(**drawn)
    for spatial in (
        FeedbackAlignment.random(net, generator()),
        FeedbackAlignment.concordant(net, generator()),
        DirectFeedback.random(net, generator()),
        DirectFeedback.random(net, generator(), through_readout=True),
        LocalErrors.random(net, generator()),
    ):
        unrolled = gradient(net, x, Unrolled(), spatial)
        assert distance(gradient(net, x, Adjoint(), spatial), unrolled) < SAME
        assert distance(gradient(net, x, RTRL(), spatial), unrolled) < SAME


@pytest.mark.parametrize("seed", range(3))
def test_the_top_layer_never_depends_on_feedback(seed):
    net, x = alive(seed, "CuBa", layers=2)
    wanted = gradient(net, x, Adjoint(), Transpose())
    for spatial in (FeedbackAlignment.random(net, generator()), DirectFeedback.random(net, generator())):
        found = gradient(net, x, Adjoint(), spatial)
        assert distance(only(found, "layers.2"), only(wanted, "layers.2")) == 0
        assert distance(only(found, "layers.0"), only(wanted, "layers.0")) > OTHER


def test_feedback_by_hand():
    """One hidden layer, written out: e = kap G, and the rest as ever."""
    net, x = alive(2, "LIF", bias=False)
    G = torch.randn(3, 4, generator=generator(), **F64)
    found = gradient(net, x, Adjoint(), FeedbackAlignment([linear(G)]))
    swapped = Network(net.layers[0], Layer(linear(G), net.layers[1].neuron))
    out = net(x, Rule(SURROGATE))[-1].s
    e = torch.autograd.grad(CE(out, torch.arange(B) % 3), out)[0]
    below = Network(net.layers[0])
    late = swapped.layers[1].neuron
    kap, lam = [None] * T, torch.zeros_like(e[0])
    a = torch.zeros_like(e[0])
    for n in reversed(range(T)):
        lam = e[n] + late.beta * lam
        a = lam + late.alpha * a
        kap[n] = a @ G
    wanted = gradient(below, x, Adjoint(), Transpose(), OverTime(lambda out, y: (out * y).sum(1)), torch.stack(kap))
    assert distance(only(found, "layers.0"), wanted) < SAME


def test_sign_concordant_feedback_follows_the_signs():
    net, x = alive(1, "CuBa", layers=2, recurrent=True)
    spatial = FeedbackAlignment.concordant(net, generator())
    magnitudes = [back.weight.detach().clone() for back in spatial.backs]
    synapse = net.layers[1].synapse
    for _ in range(2):
        down = spatial.down(1, synapse)
        assert torch.equal(down.weight, magnitudes[0].abs() * synapse.weight.sign())
        assert torch.equal(spatial.backs[0].weight, magnitudes[0])
        probe = torch.zeros(1, synapse.in_features, **F64, requires_grad=True)
        connect(synapse, down, probe).sum().backward()
        assert torch.equal(probe.grad[0], down.weight.sum(0))
        own = net.layers[0].recurrent
        wanted = spatial.recurrent["0"].weight.abs() * own.weight.sign()
        assert torch.equal(spatial.back(0, own).weight, wanted)
        with torch.no_grad():
            synapse.weight.neg_()
            own.weight.neg_()
    plain = FeedbackAlignment(copy.deepcopy(spatial.backs), {int(k): v for k, v in spatial.recurrent.items()})
    assert distance(gradient(net, x, Adjoint(), spatial), gradient(net, x, Adjoint(), plain)) > OTHER


@pytest.mark.parametrize("temporal", [Unrolled(), Adjoint(), Eligibility()], ids=["bptt", "exodus", "ottt"])
def test_feedback_that_learns_receives_the_gradient_of_the_weights(temporal):
    """Kolen and Pollack: then, with weight decay, the difference of the two dies out."""
    net, x = alive(3, "CuBa", layers=2, recurrent=not isinstance(temporal, Eligibility))
    spatial = FeedbackAlignment.kolen_pollack(net, generator())
    found = gradient(net, x, temporal, spatial)
    for i in (1, 2):
        torch.testing.assert_close(found[f"spatial.backs.{i - 1}.weight"], found[f"layers.{i}.synapse.weight"])
    if net.layers[0].recurrent is not None:
        torch.testing.assert_close(found["spatial.recurrent.0.weight"], found["layers.0.recurrent.weight"])
    assert not any(name.endswith("bias") for name in found if name.startswith("spatial."))
    rule = Rule(SURROGATE, temporal, spatial)
    assert not Rule(SURROGATE, temporal, FeedbackAlignment.random(net, generator())).spatial.learns
    optimizer = torch.optim.AdamW(rule.parameters(net), lr=0.05, weight_decay=1.0)

    def gap():
        return (spatial.backs[0].weight - net.layers[1].synapse.weight).norm().item()

    before = gap()
    for _ in range(20):
        optimizer.zero_grad()
        rule.backward(net, x, torch.arange(B) % 3, CE)
        optimizer.step()
    assert gap() == pytest.approx(before * (1 - 0.05) ** 20, rel=1e-6)


def test_modules_that_are_given_stay_as_they_are():
    net, _ = alive(1, "CuBa", layers=2)
    backs = [copy.deepcopy(layer.synapse) for layer in net.layers[1:]]
    fixed, learned = FeedbackAlignment(backs), FeedbackAlignment(backs, learned=True)
    assert not fixed.learns
    assert learned.learns
    critics = [nn.Linear(4, 3, **F64) for _ in range(2)]
    assert not LocalErrors(critics).learns
    assert all(p.requires_grad for module in (*backs, *critics) for p in module.parameters())


def test_angles():
    net, x = alive(1, "CuBa", layers=2)
    assert copies(net).angles(net) == pytest.approx([0, 0], abs=1e-5)
    random, signs = (make(net, generator()) for make in (FeedbackAlignment.random, FeedbackAlignment.concordant))
    for spatial in (random, signs):
        for i, angle in enumerate(spatial.angles(net), 1):
            w, g = net.layers[i].synapse.weight.flatten(), spatial.down(i, net.layers[i].synapse).weight.flatten()
            assert math.cos(math.radians(angle)) == pytest.approx((w @ g / w.norm() / g.norm()).item())
    assert sum(signs.angles(net)) < 130 < 150 < sum(random.angles(net))
    conv, _ = convolutional()
    assert len(FeedbackAlignment.random(conv, generator()).angles(conv)) == 2
    assert max(FeedbackAlignment.concordant(conv, generator()).angles(conv)) < 60
    learned = FeedbackAlignment.kolen_pollack(net, generator())
    rule, before = Rule(SURROGATE, Adjoint(), learned), learned.angles(net)
    optimizer = torch.optim.AdamW(rule.parameters(net), lr=0.05, weight_decay=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        rule.backward(net, x, torch.arange(B) % 3, CE)
        optimizer.step()
    assert all(after < start / 2 for after, start in zip(learned.angles(net), before, strict=True))


def test_a_bias_inside_a_synapse_learns_by_the_feedback_behind_it():
    """The top layer's gradient is exact: autograd through the same feedback is the truth."""
    g = generator(4)
    net, x = alive(1, "LIF")
    top = nn.Sequential(nn.Linear(4, 4, **F64), nn.Linear(4, 3, **F64))
    net = Network(net.layers[0], Layer(top, Neuron(0.5, 0.8, fire=Analog(), reset=no_reset)))
    for spatial in (FeedbackAlignment.random(net, g), Transpose()):
        wanted = gradient(net, x, Unrolled(), spatial)
        found = gradient(net, x, Eligibility(), spatial)
        assert distance(only(found, "layers.1"), only(wanted, "layers.1")) < SAME
    other = gradient(net, x, Unrolled(), FeedbackAlignment.random(net, g))
    assert distance(only(other, "layers.1.synapse.0.bias"), only(wanted, "layers.1.synapse.0.bias")) > OTHER


def test_feedback_that_learns_is_refused_for_shared_weights():
    shared = nn.Linear(4, 4, **F64)
    net = Network(*(Layer(shared, Neuron(0.5, 0.8)) for _ in range(2)), Layer(nn.Linear(4, 3, **F64), readout()))
    with pytest.raises(ValueError, match="two layers share weights"):
        FeedbackAlignment.kolen_pollack(net, generator())
    assert len(FeedbackAlignment.random(net, generator()).backs) == 2


def test_running_statistics_of_the_feedback_do_not_move():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 3, **F64), nn.BatchNorm1d(3, **F64)

        def forward(self, x):
            return self.norm(self.linear(x))

    net, x = alive(1, "LIF")
    net = Network(net.layers[0], Layer(Normed(), readout()))
    spatial = FeedbackAlignment.random(net, generator())
    before = copy.deepcopy(spatial.state_dict())
    gradient(net, x, Unrolled(), spatial)
    assert all(torch.equal(v, before[k]) for k, v in spatial.state_dict().items())
    DirectFeedback.random(net, generator())


def test_angles_skip_what_has_no_weights():
    g = generator()
    conv = nn.Conv2d(1, 2, 3, padding=1, **F64)
    top = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, **F64))
    net = Network(*(Layer(m, Neuron(0.5, 0.8)) for m in (conv, nn.MaxPool2d(2))), Layer(top, readout()))
    assert len(FeedbackAlignment.random(net, g).angles(net)) == 1
    with pytest.raises(ValueError, match="draw it for this network"):
        FeedbackAlignment.random(net, g).angles(alive(1)[0])


# Direct feedback.


@given(seeds, st.sampled_from(sorted(NEURONS)), st.sampled_from(sorted(RESETS)), st.integers(0, 2), st.booleans())
@settings(max_examples=20)
def test_direct_feedback_through_the_weights_of_one_hidden_layer_is_backpropagation(seed, kind, reset, delay, own):
    net, x = alive(seed, kind, reset=reset, recurrent=own)
    net.layers[1].delay = delay
    net.layers[1].gain = 1.7
    W, H = net.layers[1].synapse.weight.detach(), torch.randn(3, 4, generator=generator(seed), **F64)
    for temporal in (Unrolled(), Adjoint(), RTRL()):
        wanted = gradient(net, x, temporal, Transpose())
        assert distance(gradient(net, x, temporal, DirectFeedback([W], through_readout=True)), wanted) < SAME
        other = gradient(net, x, temporal, DirectFeedback([H], through_readout=True))
        assert distance(only(other, "layers.0"), only(wanted, "layers.0")) > OTHER


@pytest.mark.parametrize("seed", range(3))
def test_where_the_error_is_taken_matters_unless_the_readout_has_no_memory(seed):
    net, x = alive(seed, "CuBa", bias=False)
    W = net.layers[1].synapse.weight.detach()
    wanted = gradient(net, x, Adjoint(), Transpose())
    assert distance(gradient(net, x, Adjoint(), DirectFeedback([W])), wanted) > OTHER
    forgetful = Network(net.layers[0], Layer(linear(W), readout(tau_mem=1e-9)))
    wanted = gradient(forgetful, x, Adjoint(), Transpose())
    assert distance(gradient(forgetful, x, Adjoint(), DirectFeedback([W])), wanted) < SAME


def test_deeper_layers_are_told_nothing_by_the_layer_above():
    """With H = 0 for the first layer nothing reaches it, whatever happens above."""
    net, x = alive(1, "CuBa", layers=2)
    H = [torch.zeros(3, 4, **F64), torch.randn(3, 4, generator=generator(), **F64)]
    for through in (False, True):
        found = gradient(net, x, Adjoint(), DirectFeedback(H, through_readout=through))
        assert all(g.abs().max() == 0 for g in only(found, "layers.0").values())
        assert all(g.abs().max() > 0 for g in only(found, "layers.1").values())


def test_uniform_feedback_tells_all_neurons_the_same():
    net, x = alive(1, "CuBa", layers=2)
    spatial = DirectFeedback.uniform(net)
    out = net(x, Rule(SURROGATE))
    leaves = [o._replace(s=o.s.detach().requires_grad_()) for o in out]
    value = spatial.objective(CE, leaves, torch.arange(B) % 3)
    e = torch.autograd.grad(value, [leaf.s for leaf in leaves])
    for layer in e[:2]:
        torch.testing.assert_close(layer, e[2].sum(2, keepdim=True).expand_as(layer))


def test_adaptive_broadcast_receives_the_readouts_gradient():
    net, x = alive(3, "CuBa", bias=False)
    for temporal in (Unrolled(), Eligibility(through_readout=True)):
        found = gradient(net, x, temporal, DirectFeedback.adaptive(net, generator()))
        torch.testing.assert_close(found["spatial.H.0"], found["layers.1.synapse.weight"])


@pytest.mark.parametrize("seed", range(3))
def test_eprop_with_symmetric_broadcast_is_eprop(seed):
    net, x = alive(seed, "CuBa", recurrent=True)
    method, W = Eligibility(through_readout=True), net.layers[1].synapse.weight.detach()
    wanted = gradient(net, x, method, Transpose())
    assert distance(gradient(net, x, method, FeedbackAlignment([linear(W)])), wanted) < SAME
    for through in (False, True):
        assert distance(gradient(net, x, method, DirectFeedback([W], through_readout=through)), wanted) < SAME
        other = gradient(net, x, method, DirectFeedback.random(net, generator(), through_readout=through))
        assert distance(only(other, "layers.0"), only(wanted, "layers.0")) > OTHER


def test_eprop_of_two_hidden_layers_needs_a_broadcast():
    net, x = alive(1, "CuBa", layers=2)
    method = Eligibility(through_readout=True)
    with pytest.raises(ValueError, match="one layer below the readout"):
        gradient(net, x, method, Transpose())
    H = [torch.randn(3, 4, generator=generator(i), **F64) for i in range(2)]
    deep = gradient(net, x, method, DirectFeedback(H))
    alone = Network(net.layers[1], net.layers[2])
    hidden = net(x, Rule(SURROGATE))[0].s
    wanted = gradient(alone, hidden.detach(), method, DirectFeedback(H[1:]))
    for name in ("synapse.weight", "synapse.bias"):
        torch.testing.assert_close(deep[f"layers.1.{name}"], wanted[f"layers.0.{name}"])
    assert deep["layers.0.synapse.weight"].abs().max() > 0


# Local errors.


@pytest.mark.parametrize(
    "temporal", [Unrolled(), Adjoint(), RTRL(), Eligibility()], ids=["bptt", "exodus", "rtrl", "decolle"]
)
@pytest.mark.parametrize("speaks", [0, 1, 2])
def test_local_errors_send_nothing_down(temporal, speaks):
    """Only the critic of one layer speaks: every parameter below and above it has no gradient at all."""
    net, x = alive(2, "CuBa", layers=3, recurrent=not isinstance(temporal, Eligibility))
    spatial = LocalErrors.random(net, generator())
    with torch.no_grad():
        for i, critic in enumerate(spatial.readouts):
            if i != speaks:
                critic.weight.zero_()
    found = gradient(net, x, temporal, spatial)
    for i in range(3):
        for name, g in only(found, f"layers.{i}.").items():
            assert (g.abs().max() > 0) == (i == speaks), name
    assert all(g.abs().max() > 0 for g in only(found, "layers.3").values())
    through = gradient(net, x, temporal, Transpose())
    assert all(g.abs().max() > 0 for g in through.values())


def test_a_local_error_is_the_gradient_of_the_layer_with_its_critic_on_top():
    net, x = alive(2, "CuBa", layers=2)
    spatial = LocalErrors.random(net, generator())
    found = gradient(net, x, Adjoint(), spatial)
    hidden = net(x, Rule(SURROGATE))[0].s.detach()
    for i, inputs in enumerate((x, hidden)):
        critic = Layer(linear(spatial.readouts[i].weight.detach()), readout(tau_mem=1e-9))
        wanted = gradient(Network(net.layers[i], critic), inputs, Adjoint(), Transpose())
        for name in ("synapse.weight", "synapse.bias"):
            torch.testing.assert_close(found[f"layers.{i}.{name}"], wanted[f"layers.0.{name}"])


def test_local_readouts_that_are_trained_learn_by_their_own_layer():
    net, x = alive(2, "CuBa", layers=2)
    fixed, trained = (LocalErrors.random(net, generator(), trained=t) for t in (False, True))
    assert not fixed.learns
    found = gradient(net, x, Adjoint(), trained)
    wanted = gradient(net, x, Adjoint(), fixed)
    assert set(found) - set(wanted) == {"spatial.readouts.0.weight", "spatial.readouts.1.weight"}
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    out = net(x, Rule(SURROGATE))[0].s.flatten(0, 1)
    e = torch.softmax(out @ trained.readouts[0].weight.T, 1) - torch.eye(3, **F64)[torch.arange(B) % 3].repeat(T, 1)
    torch.testing.assert_close(found["spatial.readouts.0.weight"], (e.T @ out / (T * B)).detach())


def test_a_network_that_fires_at_the_top_has_a_critic_there_too():
    net, x = alive(2, "CuBa", layers=2, top=False)
    spatial = LocalErrors.random(net, generator(), classes=3)
    rule = Rule(SURROGATE, Adjoint(), spatial)
    outputs = net(x, rule)
    assert spatial.answer(outputs).shape == (T, B, 3)
    assert len(spatial.scores(outputs)) == 2
    torch.testing.assert_close(spatial.answer(outputs), outputs[1].s @ spatial.readouts[1].weight.T)
    steps = Rule(SURROGATE, Eligibility(), spatial)
    carry = steps.temporal.start(net, x[0], CE, steps)
    brought = steps.temporal.step(net, carry, x[0], torch.arange(B) % 3, CE, steps)
    assert brought.output.shape == (B, 3)


def test_the_regularizer_costs_the_same_step_by_step_and_in_a_sequence():
    net, x = alive(2, "LIF", layers=2)
    y, values = torch.arange(B) % 3, {}
    for name, regularizer in (("plain", None), ("active", lambda U: 0.3 * keep_active(U, theta=1.0, margin=0.5))):
        spatial = LocalErrors.random(net, generator(), regularizer=regularizer)
        whole = Rule(SURROGATE, Unrolled(), spatial).gradients(net, x, y, CE)[0]
        stepwise = Rule(SURROGATE, Eligibility(), spatial).gradients(net, x, y, CE)[0]
        torch.testing.assert_close(stepwise, whole)
        values[name] = whole
    outputs = net(x, Rule(SURROGATE))[:2]
    cost = sum(0.3 * keep_active(U, theta=1.0, margin=0.5) for layer in outputs for U in layer.U)
    torch.testing.assert_close(values["active"], values["plain"] + cost.detach() / (T * B))


def test_keep_active():
    U = torch.tensor([[-1.0, 0.2, 0.5]])
    wanted = (0.0 + 0.21 + 0.51) / 3 + 3e-3 * max(0.0, 0.1 - torch.sigmoid(U).mean().item())
    assert keep_active(U).item() == pytest.approx(wanted)
    silent = keep_active(torch.full((1, 3), -9.0))
    assert silent.item() == pytest.approx(3e-3 * (0.1 - torch.sigmoid(torch.tensor(-9.0)).item()), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_eprop_with_local_errors_has_critics_that_remember_as_the_readout(seed):
    net, x = alive(seed, "CuBa")
    spatial = LocalErrors.random(net, generator())
    found = gradient(net, x, Eligibility(through_readout=True), spatial)
    critic = Layer(linear(spatial.readouts[0].weight.detach()), net.layers[1].neuron)
    wanted = gradient(Network(net.layers[0], critic), x, Adjoint(Reset.IGNORED), Transpose())
    assert distance(only(found, "layers.0"), only(wanted, "layers.0")) < SAME
    forgets = gradient(net, x, Eligibility(), spatial)
    assert distance(only(forgets, "layers.0"), only(wanted, "layers.0")) > OTHER


def test_a_piece_may_go_on_under_another_rule():
    """What an earlier piece did not keep for direct feedback is taken to be at rest."""
    net, x = alive(1, "CuBa", layers=2)
    net.layers[2].delay = 2
    past = net.run(x[:5], Rule(SURROGATE))[1]
    direct = DirectFeedback.random(net, generator(), through_readout=True)
    traces = net.run(x[5:], Rule(SURROGATE, Unrolled(), direct), past)[0]
    assert torch.equal(traces[-1].s, net(x, Rule(SURROGATE))[-1].s[5:])


def test_direct_feedback_of_a_network_without_hidden_layers_is_nothing():
    net, x = alive(1, top=False)
    y = torch.zeros(T, B, 4, **F64)
    wanted = gradient(net, x, Unrolled(), Transpose(), OverTime(half_square), y)
    for through in (False, True):
        spatial = DirectFeedback.random(net, generator(), through_readout=through)
        assert distance(gradient(net, x, Unrolled(), spatial, OverTime(half_square), y), wanted) == 0


# Convolutions, pooling, recurrent convolutions.


def convolutional(recurrent=False):
    g = generator(5)

    def conv(inputs, outputs):
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, **F64)
        with torch.no_grad():
            layer.weight.copy_(0.5 * torch.randn(layer.weight.shape, generator=g, **F64))
            layer.bias.fill_(0.1)
        return layer

    neuron = Neuron(0.5, 0.8)
    own = nn.Conv2d(4, 4, 3, padding=1, bias=False, **F64) if recurrent else None
    if own is not None:
        with torch.no_grad():
            own.weight.copy_(0.1 * torch.randn(own.weight.shape, generator=g, **F64))
    top = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, **F64))
    net = Network(
        Layer(conv(2, 4), neuron, own),
        Layer(nn.Sequential(conv(4, 3), nn.AvgPool2d(2)), neuron),
        Layer(top, readout(tau_mem=8e-3)),
    )
    x = (torch.rand(T, B, 2, 4, 4, generator=g, **F64) < 0.4).double()
    rates = [trace.s.mean().item() for trace in net(x, Rule(SURROGATE))[:2]]
    assert all(0.05 < rate < 0.6 for rate in rates), rates
    return net, x


@pytest.mark.parametrize("recurrent", [False, True])
def test_convolutions(recurrent):
    net, x = convolutional(recurrent)
    for temporal in (Unrolled(), Adjoint()):
        wanted = gradient(net, x, temporal, Transpose())
        assert distance(gradient(net, x, temporal, copies(net)), wanted) < SAME
    shape = {"features": (2, 4, 4)}
    for spatial in (
        FeedbackAlignment.random(net, generator()),
        FeedbackAlignment.concordant(net, generator()),
        DirectFeedback.random(net, generator(), **shape),
        DirectFeedback.random(net, generator(), through_readout=True, **shape),
        LocalErrors.random(net, generator(), **shape),
    ):
        found = gradient(net, x, Unrolled(), spatial)
        assert distance(only(found, "layers.0"), only(wanted, "layers.0")) > OTHER
        assert distance(gradient(net, x, Adjoint(), spatial), found) < SAME
        traced = gradient(net, x, Eligibility(), spatial)
        assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in traced.values())
    learned = FeedbackAlignment.kolen_pollack(net, generator())
    found = gradient(net, x, Adjoint(), learned)
    torch.testing.assert_close(found["spatial.backs.0.0.weight"], found["layers.1.synapse.0.weight"])


def test_rtrl_of_a_small_convolution_with_feedback():
    net, x = convolutional(True)
    for spatial in (
        FeedbackAlignment.random(net, generator()),
        DirectFeedback.random(net, generator(), features=(2, 4, 4)),
    ):
        wanted = gradient(net, x[:6], Unrolled(), spatial)
        assert distance(gradient(net, x[:6], RTRL(), spatial), wanted) < SAME


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["average", "max"])
def test_pooling_keeps_its_own_derivative(pool):
    synapse = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, **F64), pool, nn.Conv2d(2, 1, 3, padding=1, **F64))
    back = copy.deepcopy(synapse)
    x = torch.rand(2, 1, 4, 4, generator=generator(), **F64).requires_grad_()
    out = connect(synapse, back, x)
    assert torch.equal(out, synapse(x))
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (out, synapse(x))))
    with torch.no_grad():
        back[0].weight.zero_()
    assert torch.autograd.grad(connect(synapse, back, x).sum(), x)[0].abs().max() == 0


def test_pieces_of_a_sequence():
    """What is still on its way to the last layer comes with the next piece, for errors that go there directly too."""
    net, x = alive(3, "CuBa", layers=2, recurrent=True, lag=2)
    net.layers[1].delay, net.layers[2].delay = 2, 3
    y = torch.arange(B) % 3
    for spatial in (
        FeedbackAlignment.random(net, generator()),
        DirectFeedback.random(net, generator(), through_readout=True),
    ):
        for temporal in (Unrolled(), Adjoint()):
            rule, outs, past = Rule(SURROGATE, temporal, spatial), [], None
            for piece in x.split(5):
                traces, past = net.run(piece, rule, past)
                outs.append(traces[-1].s)
            found = torch.autograd.grad(CE(torch.cat(outs), y), list(net.parameters()))
            wanted = gradient(net, x, temporal, spatial)
            assert distance(dict(zip(wanted, found, strict=True)), wanted) < SAME


# What is drawn, saved, and refused.


@pytest.mark.parametrize(
    "make",
    [
        FeedbackAlignment.random,
        FeedbackAlignment.concordant,
        FeedbackAlignment.kolen_pollack,
        DirectFeedback.random,
        DirectFeedback.adaptive,
        LocalErrors.random,
    ],
)
def test_the_same_seed_draws_the_same_and_a_state_dict_brings_it_back(make):
    net, x = alive(1, "CuBa", layers=2, recurrent=True)
    before = copy.deepcopy(net.state_dict())
    one, same, other = (make(net, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    found, twin, rest = (gradient(net, x, Adjoint(), spatial) for spatial in (one, same, other))
    assert all(torch.equal(found[k], twin[k]) for k in found)
    assert distance(rest, found) > OTHER
    file = io.BytesIO()
    torch.save({"network": net.state_dict(), "feedback": one.state_dict()}, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True)["feedback"])
    again = gradient(net, x, Adjoint(), other)
    assert all(torch.equal(found[k], again[k]) for k in found)


def test_feedback_is_drawn_at_the_scale_of_the_weights():
    wide = Network(Layer(nn.Linear(20, 300, **F64), Neuron(0.5, 0.8)), Layer(nn.Linear(300, 200, **F64), readout()))
    with torch.no_grad():
        wide.layers[1].synapse.weight.normal_(0, 0.37, generator=generator())
    back = FeedbackAlignment.random(wide, generator(1)).backs[0]
    assert back.weight.std().item() == pytest.approx(0.37, rel=0.02)
    assert back.bias.abs().max() == 0
    with torch.no_grad():
        wide.layers[1].synapse.weight.zero_()
    assert FeedbackAlignment.random(wide, generator(1)).backs[0].weight.std().item() == pytest.approx(
        300**-0.5, rel=0.02
    )
    assert DirectFeedback.random(wide, generator()).H[0].std().item() == pytest.approx(200**-0.5, rel=0.02)
    assert DirectFeedback.random(wide, generator(), std=2.0).H[0].std().item() == pytest.approx(2, rel=0.02)
    local = LocalErrors.random(wide, generator(), scale=3.0).readouts[0].weight
    assert local.std().item() == pytest.approx(3 * 300**-0.5, rel=0.02)


class OneForAll(Spatial):
    """A spatial rule of a reader's own: the layer above is told, and every layer besides, the sign of each weight."""

    def down(self, i, synapse):
        back = copy.deepcopy(synapse).requires_grad_(False)
        back.weight.sign_()
        return back if i else synapse


def test_a_spatial_rule_of_ones_own():
    net, x = alive(1, "CuBa", layers=2)
    found = gradient(net, x, Adjoint(), OneForAll())
    signs = FeedbackAlignment.concordant(net, generator())
    with torch.no_grad():
        for back in signs.backs:
            back.weight.fill_(1.0)
    assert distance(found, gradient(net, x, Adjoint(), signs)) < SAME


def refused():
    net, _ = alive(1, "CuBa", layers=2, recurrent=True)
    shallow, _ = alive(1, "CuBa")
    wide = Network(Layer(nn.Linear(5, 7, **F64), Neuron(0.5, 0.8)), Layer(nn.Linear(7, 3, **F64), readout()))
    fires, _ = alive(1, top=False)
    late, _ = alive(1, "CuBa")
    late.layers[1].delay = 1
    three = Network(*shallow.layers[:1], Layer(nn.Linear(4, 4, **F64), Neuron(0.5, 0.8)), shallow.layers[1])
    fa, dfa, local = FeedbackAlignment.random, DirectFeedback.random, LocalErrors.random
    g = generator()
    unrolled, rtrl, ottt, eprop = Unrolled(), RTRL(), Eligibility(), Eligibility(through_readout=True)
    floats = FeedbackAlignment.random(copy.deepcopy(net).float(), g)
    yield "fa depth", net, unrolled, fa(shallow, g), CE, ValueError, "feedback for 2 layers"
    yield "fa shape", shallow, unrolled, fa(wide, g), CE, ValueError, "draw it for this network"
    yield "fa recurrence", three, unrolled, fa(net, g), CE, ValueError, "which has none"
    yield "fa dtype", net, unrolled, floats, CE, TypeError, "float32"
    yield "dfa depth", net, unrolled, dfa(shallow, g), CE, ValueError, "H for 1 hidden layers"
    yield "dfa shape", shallow, unrolled, dfa(wide, g), CE, ValueError, "feeds 7 neurons"
    yield "dfa outputs", shallow, unrolled, DirectFeedback([torch.ones(2, 4, **F64)]), CE, ValueError, "from 2 outputs"
    yield "dfa dtype", shallow, unrolled, DirectFeedback([torch.ones(3, 4)]), CE, TypeError, "float32"
    yield "local depth", net, unrolled, local(shallow, g), CE, ValueError, "1 local readouts"
    yield "local shape", shallow, unrolled, local(wide, g), CE, ValueError, "takes 7 neurons"
    yield "local count", fires, unrolled, local(fires, g, classes=3), SpikeCount(3), ValueError, "counts spikes"
    cheap = local(shallow, g, regularizer=keep_active)
    yield "local regularizer", shallow, unrolled, cheap, CrossEntropy(), TypeError, "sum over time"
    yield "rtrl learns", shallow, rtrl, FeedbackAlignment.kolen_pollack(shallow, g), CE, ValueError, "influence"
    yield "rtrl regularizer", shallow, rtrl, cheap, CE, ValueError, "looks at the batch"
    yield "eprop regularizer", shallow, eprop, cheap, CE, ValueError, "looks at membranes"
    yield "ottt adaptive", net, ottt, DirectFeedback.adaptive(net, g), CE, ValueError, "no trace"
    nan = fa(shallow, g)
    with torch.no_grad():
        nan.backs[0].weight[0, 0] = torch.nan
    yield "fa nan", shallow, unrolled, nan, CE, ValueError, "feedback weight of layer 1 holds NaN"
    nan = dfa(shallow, g)
    with torch.no_grad():
        nan.H[0][0, 0] = torch.nan
    yield "dfa nan", shallow, unrolled, nan, CE, ValueError, r"H\[0\] holds NaN"
    nan = local(shallow, g)
    with torch.no_grad():
        nan.readouts[0].weight[0, 0] = torch.nan
    yield "local nan", shallow, unrolled, nan, CE, ValueError, "readout of layer 0 holds NaN"
    bias = LocalErrors([nn.Linear(4, 3, **F64)])
    yield "filtered bias", shallow, ottt, bias, van_rossum(), ValueError, "without bias"
    yield "rtrl filter", shallow, rtrl, local(shallow, g), van_rossum(), ValueError, "filter of one output"
    yield "ottt late", late, ottt, dfa(late, g, through_readout=True), CE, ValueError, "DirectFeedback"
    learns = FeedbackAlignment.kolen_pollack(shallow, g)
    yield "eprop learns", shallow, eprop, learns, CE, ValueError, "adaptive"


REFUSED = {name: case for name, *case in refused()}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    net, temporal, spatial, loss, error, message = REFUSED[name]
    y = (
        torch.zeros(T, B, 3, **F64)
        if loss != CE and isinstance(loss, OverTime) and loss.filter
        else torch.zeros(B).long()
    )
    with pytest.raises(error, match=message):
        Rule(SURROGATE, temporal, spatial).gradients(net, torch.ones(T, B, 5, **F64), y, loss)


def test_direct_feedback_works_where_layers_are_late():
    """Told at the output, an error needs no way through the delays."""
    net, x = alive(1, "CuBa")
    net.layers[1].delay = 2
    found = gradient(net, x, Eligibility(), DirectFeedback.random(net, generator()))
    assert found["layers.0.synapse.weight"].abs().max() > 0


def test_wrong_arguments_are_refused():
    net, _ = alive(1, "CuBa")
    fires, _ = alive(1, top=False)
    conv, _ = convolutional()
    with pytest.raises(TypeError, match="generator must be"):
        FeedbackAlignment.random(net, 3)
    with pytest.raises(TypeError, match="drawn for a Network"):
        DirectFeedback.random(nn.Linear(2, 2), generator())
    with pytest.raises(ValueError, match="features="):
        DirectFeedback.random(conv, generator())
    with pytest.raises(ValueError, match="does not take inputs of shape"):
        LocalErrors.random(conv, generator(), features=(9, 4, 4))
    with pytest.raises(ValueError, match="give its classes"):
        LocalErrors.random(fires, generator())
    with pytest.raises(ValueError, match="std must be a positive"):
        DirectFeedback.random(net, generator(), std=0)
    with pytest.raises(ValueError, match="must be a floating-point matrix"):
        DirectFeedback([torch.ones(3)])
    with pytest.raises(ValueError, match="NaN"):
        DirectFeedback([torch.full((3, 4), torch.nan)])
    for wrong in ([torch.ones(3, 4)], nn.Linear(3, 4), 5):
        with pytest.raises(TypeError, match="feedback weights must be"):
            FeedbackAlignment(wrong)
        with pytest.raises(TypeError, match="local readouts must be"):
            LocalErrors(wrong)
    for key, error in ((-1, ValueError), ("a", TypeError), (True, TypeError)):
        with pytest.raises(error, match="number of a recurrent layer"):
            FeedbackAlignment([], {key: nn.Linear(2, 2)})
    for make in (
        lambda: FeedbackAlignment([], signs="no"),
        lambda: FeedbackAlignment([], learned=2),
        lambda: DirectFeedback([], through_readout="no"),
        lambda: DirectFeedback([], learned=1),
        lambda: LocalErrors([], trained="x"),
        lambda: recipes.ottt(authors_code="x"),
    ):
        with pytest.raises(TypeError, match="must be True or False"):
            make()
    with pytest.raises(TypeError, match="H must be a list"):
        DirectFeedback(None)
    with pytest.raises(TypeError, match="features is the shape"):
        DirectFeedback.random(conv, generator(), features=6)
    with pytest.raises(ValueError, match="no weights"):
        FeedbackAlignment.random(Network(Layer(nn.Identity(), Neuron())), generator())
    with pytest.raises(ValueError, match="nothing is left to learn"):
        FeedbackAlignment([nn.Linear(2, 2)], signs=True, learned=True)
    with pytest.raises(TypeError, match="must be a spatial rule"):
        Rule(spatial=nn.Linear(2, 2))


def test_events_take_errors_from_layer_to_layer_only():
    layers = [EventLIF(nn.Linear(n, m, bias=False, **F64), horizon=0.1) for n, m in ((4, 8), (8, 10))]
    net = EventNetwork(*layers)
    with torch.no_grad():
        for layer in layers:
            layer.synapse.weight.uniform_(2.0, 6.0, generator=generator())
    x, y = torch.rand(3, 4, generator=generator(), **F64) * 0.03, torch.tensor([0, 1, 2])
    exact = recipes.eventprop()
    wanted = exact.gradients(net, x, y, digits_loss())[1]
    random = FeedbackAlignment.random(net, generator())
    for signs in (random, FeedbackAlignment.concordant(net, generator())):
        found = Rule(temporal=exact.temporal, spatial=signs).gradients(net, x, y, digits_loss())[1]
        assert distance(only(found, "layers.0"), only(wanted, "layers.0")) > OTHER
        assert distance(only(found, "layers.1"), only(wanted, "layers.1")) == 0
    same = FeedbackAlignment([layers[1].synapse])
    assert distance(Rule(temporal=exact.temporal, spatial=same).gradients(net, x, y, digits_loss())[1], wanted) == 0
    for spatial in (
        DirectFeedback([torch.ones(10, 8, **F64)]),
        LocalErrors([nn.Linear(8, 10)]),
        FeedbackAlignment.kolen_pollack(net, generator()),
    ):
        with pytest.raises(ValueError, match="spike times have none"):
            Rule(temporal=exact.temporal, spatial=spatial).gradients(net, x, y, digits_loss())
    with pytest.raises(TypeError, match="drawn for a Network, got EventNetwork"):
        LocalErrors.random(net, generator())


def test_half_square_local_targets():
    """A loss on values instead of labels, for every layer's critic (Eq. 19)."""
    net, x = alive(2, "LIF", layers=2)
    spatial = LocalErrors.random(net, generator())
    y = torch.randn(T, B, 3, generator=generator(), **F64)
    loss = OverTime(half_square)
    value = Rule(SURROGATE, Adjoint(), spatial).gradients(net, x, y, loss)[0]
    outputs = net(x, Rule(SURROGATE))
    wanted = sum(0.5 * (score - y).square().sum() for score in spatial.scores(outputs))
    torch.testing.assert_close(value, wanted.detach())


def test_a_convolution_on_top_is_told_directly_too():
    """Its outputs have more than one axis: H has a row for each, in their order."""
    net, x = convolutional()
    net = Network(*net.layers[:2])
    net.layers[1].source = readout(tau_mem=8e-3)
    loss, y = OverTime(half_square), torch.zeros(T, B, 3, 2, 2, **F64)
    shape = {"features": (2, 4, 4)}
    for through in (False, True):
        spatial = DirectFeedback.random(net, generator(), through_readout=through, **shape)
        assert spatial.H[0].shape == (12, 64)
        if not through:
            found = gradient(net, x, Adjoint(), spatial, loss, y)
            outputs = net(x, Rule(SURROGATE))
            e = (outputs[1].s.detach().flatten(2) @ spatial.H[0]).reshape(outputs[0].s.shape)
            below = OverTime(lambda out, y: (out * y).flatten(1).sum(1))
            wanted = gradient(Network(net.layers[0]), x, Adjoint(), Transpose(), below, e)
            assert distance(only(found, "layers.0"), wanted) < SAME
    wrong = DirectFeedback([torch.ones(5, 64, **F64)])
    with pytest.raises(ValueError, match="from 5 outputs"):
        gradient(net, x, Adjoint(), wrong, loss, y)
