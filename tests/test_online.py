"""Learning online: the same as the sequence where it must be, flat in memory, and nothing half done."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from trials import SURROGATE, B, T, alive, distance

from snnlearn import (
    RTRL,
    Adjoint,
    CrossEntropy,
    DirectFeedback,
    Eligibility,
    FeedbackAlignment,
    Layer,
    LocalErrors,
    Network,
    Rule,
    Transpose,
    Unrolled,
    lif,
    readout,
    recipes,
)
from snnlearn.footprint import Live
from snnlearn.losses import OverTime, cross_entropy, half_square, van_rossum
from snnlearn.network import decolle_layer

F64 = {"dtype": torch.float64}
CE = OverTime(cross_entropy, mean=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def deep():
    net, x = alive(3, "CuBa", layers=2)
    return net, x, torch.arange(B) % 3


def shallow():
    net, x = alive(3, "CuBa", recurrent=True)
    return net, x, torch.arange(B) % 3


RULES = {
    "ottt": (deep, Eligibility(), lambda net: Transpose()),
    "ottt aligned": (deep, Eligibility(), lambda net: FeedbackAlignment.random(net, generator())),
    "ottt learned": (deep, Eligibility(), lambda net: FeedbackAlignment.kolen_pollack(net, generator())),
    "ottt direct": (deep, Eligibility(), lambda net: DirectFeedback.random(net, generator())),
    "local": (deep, Eligibility(), lambda net: LocalErrors.random(net, generator(), trained=True)),
    "eprop": (shallow, Eligibility(through_readout=True), lambda net: Transpose()),
    "eprop adaptive": (
        shallow,
        Eligibility(through_readout=True),
        lambda net: DirectFeedback.adaptive(net, generator()),
    ),
    "rtrl": (shallow, RTRL(), lambda net: Transpose()),
}


def made(name):
    make, temporal, spatial = RULES[name]
    net, x, y = make()
    return Rule(SURROGATE, temporal, spatial(net)), net, x, y


def weights(rule, net):
    own = {f"spatial.{k}": p for k, p in rule.spatial.named_parameters() if p.requires_grad}
    return {k: p.detach().clone() for k, p in (*net.named_parameters(), *own.items())}


@pytest.mark.parametrize("name", RULES)
def test_updated_at_the_end_it_is_the_sequence(name):
    rule, net, x, y = made(name)
    before = weights(rule, net)
    value, gradients = rule.gradients(net, x, y, CE)
    learner = rule.online(net, torch.optim.SGD(rule.parameters(net), lr=0.3), CE, every=T)
    losses = [learner.step(x_n, y).loss for x_n in x]
    assert sum(losses) / T == pytest.approx(value.item(), rel=1e-10)
    after = weights(rule, net)
    assert distance({k: before[k] - after[k] for k in before}, {k: 0.3 * g for k, g in gradients.items()}) < 1e-10
    assert learner.state.waiting == 0
    assert learner.state.gradients == {}


@pytest.mark.parametrize("name", RULES)
def test_updated_at_every_step_it_is_a_loop_over_steps(name):
    """The weights change while the traces go on; the mean is then over one step's samples."""
    rule, net, x, y = made(name)
    other, twin = copy.deepcopy((rule, net))
    learner = rule.online(net, torch.optim.SGD(rule.parameters(net), lr=0.3), CE)
    optimizer = torch.optim.SGD(other.parameters(twin), lr=0.3)
    carry = other.temporal.start(twin, x[0], CE, other)
    for x_n in x:
        found = learner.step(x_n, y)
        step = other.temporal.step(twin, carry, x_n, y, CE, other)
        carry = step.carry
        assert found.loss == pytest.approx(step.loss.item() / B)
        assert torch.equal(found.output, step.output)
        named = {**dict(twin.named_parameters()), **{f"spatial.{k}": p for k, p in other.spatial.named_parameters()}}
        for k, g in step.gradients.items():
            named[k].grad = CE.weight(1, B) * g
        optimizer.step()
    online, by_hand = weights(rule, net), weights(other, twin)
    assert distance(online, by_hand) < 1e-12


def test_the_order_of_updates_matters():
    ends = []
    for every in (1, 5, T):
        rule, net, x, y = made("ottt")
        learner = rule.online(net, torch.optim.SGD(rule.parameters(net), lr=0.3), CE, every=every)
        for x_n in x:
            learner.step(x_n, y)
        ends.append(weights(rule, net))
    assert distance(ends[0], ends[2]) > 1e-3
    assert distance(ends[1], ends[2]) > 1e-3


def test_what_is_left_over_waits_for_update():
    rule, net, x, y = made("ottt")
    before = weights(rule, net)
    learner = rule.online(net, torch.optim.SGD(rule.parameters(net), lr=0.3), CE, every=4)
    learner.update()  # nothing has come together yet
    for x_n in x[:3]:
        learner.step(x_n, y)
    assert all(torch.equal(before[k], v) for k, v in weights(rule, net).items())
    learner.update()
    assert not all(torch.equal(before[k], v) for k, v in weights(rule, net).items())
    assert all(p.grad is None for p in net.parameters())


def test_the_state_can_be_kept_and_put_back():
    rule, net, x, y = made("eprop")
    learner = rule.online(net, torch.optim.SGD(rule.parameters(net), lr=0.0), CE)
    for x_n in x[:7]:
        learner.step(x_n, y)
    kept = copy.deepcopy(learner.state)
    outs = [[learner.step(x_n, y) for x_n in x[7:]]]
    learner.state = kept
    outs.append([learner.step(x_n, y) for x_n in x[7:]])
    assert [m.loss for m in outs[0]] == [m.loss for m in outs[1]]
    learner.reset()
    assert learner.state is None
    fresh = [learner.step(x_n, y).loss for x_n in x[7:]]
    assert fresh != [m.loss for m in outs[0]]


def test_filtered_losses_carry_their_target_along():
    net, x = alive(3, "CuBa", top=False)
    y = (torch.rand(T, B, 4, generator=generator(), **F64) < 0.3).double()
    rule, before = Rule(SURROGATE, Eligibility()), {k: p.detach().clone() for k, p in net.named_parameters()}
    gradients = rule.gradients(net, x, y, van_rossum())[1]
    learner = rule.online(net, torch.optim.SGD(net.parameters(), lr=0.01), van_rossum(), every=T)
    for x_n, y_n in zip(x, y, strict=True):
        learner.step(x_n, y_n)
    moved = {k: before[k] - p.detach() for k, p in net.named_parameters()}
    assert distance(moved, {k: 0.01 * g for k, g in gradients.items()}) < 1e-10


def test_local_errors_learn_a_stream():
    """Two classes, told apart by which inputs fire: the running loss falls while the stream runs."""
    g = generator()
    first = nn.Linear(20, 16)
    with torch.no_grad():
        first.weight.normal_(0, 0.8, generator=g)
        first.bias.zero_()
    top = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        top.weight.normal_(0, 0.25, generator=g)
    net = Network(decolle_layer(first), Layer(top, readout(tau_mem=10e-3), gain=0.1))
    rule = recipes.decolle(net, g)
    learner = rule.online(net, torch.optim.Adam(rule.parameters(net), lr=1e-2), OverTime(cross_entropy, mean=True))
    rates = torch.rand(2, 20, generator=g) * 0.3
    losses = []
    for n in range(1200):
        y = torch.tensor([(n // 50) % 2])
        losses.append(learner.step((torch.rand(1, 20, generator=g) < rates[y]).float(), y).loss)
    assert sum(losses[-100:]) < 0.7 * sum(losses[:100])


def stream(net, rule, loss=CE):
    g, y = generator(1), torch.tensor([1])
    learner = rule.online(net, torch.optim.SGD(rule.parameters(net), lr=1e-4), loss)
    while True:
        learner.step((torch.rand(1, 6, generator=g) < 0.2).float(), y)
        yield learner


def small():
    g = generator()

    def plain(inputs, outputs, size):
        layer = nn.Linear(inputs, outputs, bias=False)
        with torch.no_grad():
            layer.weight.normal_(0, size, generator=g)
        return layer

    return Network(Layer(plain(6, 8, 0.8), lif(), plain(8, 8, 0.1)), Layer(plain(8, 2, 0.3), readout()))


@pytest.mark.parametrize("name", ["ottt", "eprop", "local", "adaptive", "rtrl"])
def test_what_is_carried_does_not_grow(name):
    """Bytes of the state, and of all tensors alive, after 50 and after 500 steps."""
    net = small()
    temporal, spatial = {
        "ottt": (Eligibility(), Transpose()),
        "eprop": (Eligibility(through_readout=True), Transpose()),
        "local": (Eligibility(), LocalErrors.random(net, generator())),
        "adaptive": (Eligibility(through_readout=True), DirectFeedback.adaptive(net, generator())),
        "rtrl": (RTRL(), Transpose()),
    }[name]
    sizes, alive_bytes = [], []
    with Live() as live:
        steps = stream(net, Rule(SURROGATE, temporal, spatial))
        for n in range(1, 501 if name != "rtrl" else 201):
            learner = next(steps)
            if n in (50, 500, 200):
                sizes.append(sum(t.nbytes for t in tree_leaves(learner.state) if isinstance(t, torch.Tensor)))
                alive_bytes.append(live.alive)
    assert sizes[0] == sizes[-1] > 0
    assert alive_bytes[0] == alive_bytes[-1]


def test_a_late_input_does_not_keep_the_sequence_that_it_came_from():
    net, x = alive(3, "CuBa", delay=2)
    rule = Rule(SURROGATE, Eligibility())
    learner = rule.online(net, torch.optim.SGD(net.parameters(), lr=0.1), CE)
    learner.step(x[0], torch.arange(B) % 3)
    kept = learner.state.carry.layers[0].inputs
    assert torch.equal(kept[-1], x[0])
    assert all(v.untyped_storage().nbytes() == v.nbytes for v in kept)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_hundred_thousand_steps_take_no_more_memory():
    try:
        resident()
    except OSError:
        pytest.skip("the resident size is read from /proc, which is not here")
    net = small()
    net.layers[0].recurrent = None
    steps = stream(net, Rule(SURROGATE, Eligibility(), LocalErrors.random(net, generator())))
    for _ in range(2000):
        next(steps)
    before = resident()
    for _ in range(98_000):
        next(steps)
    assert resident() - before < 5e6


def test_what_makes_no_sense_is_refused():
    rule, net, x, y = made("ottt")
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    for temporal in (Unrolled(), Adjoint()):
        with pytest.raises(TypeError, match=r"needs the whole sequence; learn online by Eligibility\(\)"):
            Rule(SURROGATE, temporal).online(net, sgd, CE)
    with pytest.raises(TypeError, match="sum over time"):
        rule.online(net, sgd, CrossEntropy())
    with pytest.raises(ValueError, match="every must be at least 1"):
        rule.online(net, sgd, CE, every=0)
    with pytest.raises(TypeError, match="optimizer must be"):
        rule.online(net, net.parameters(), CE)
    learns = Rule(SURROGATE, Eligibility(), FeedbackAlignment.kolen_pollack(net, generator()))
    with pytest.raises(ValueError, match=r"rule\.parameters\(net\)"):
        learns.online(net, sgd, CE)
    with pytest.raises(ValueError, match="none of the network's"):
        rule.online(net, torch.optim.SGD(alive(1)[0].parameters(), lr=0.1), CE)
    with pytest.raises(TypeError, match="LBFGS"):
        rule.online(net, torch.optim.LBFGS(net.parameters()), CE)
    with pytest.raises(ValueError, match="patterns are targets"):
        rule.online(net, sgd, van_rossum(patterns=torch.zeros(T, 3, 3, **F64)))
    learner = rule.online(net, sgd, CE)
    learner.step(x[0], y)
    kept = copy.deepcopy(learner.state)
    nan = x[1].clone()
    nan[0, 0] = torch.nan
    for bad, target, error, message in (
        (nan, y, ValueError, "NaN"),
        (x[1, :2], y[:2], ValueError, "call reset"),
        (x[1], y[:2], ValueError, "for 2 samples"),
        (x[1], y[0], ValueError, "single number"),
        (x[1], y.tolist(), TypeError, "target must be a tensor"),
        (x[1].float(), y, TypeError, "float32"),
        (x[1], y + 7, ValueError, "labels must lie"),
        (x[1], torch.full((B, 3), torch.nan), ValueError, "target holds NaN"),
        (x[1].tolist(), y, TypeError, "must be a tensor"),
    ):
        with pytest.raises(error, match=message):
            learner.step(bad, target)
    assert all(
        map(torch.equal, *([t for t in tree_leaves(s) if isinstance(t, torch.Tensor)] for s in (learner.state, kept)))
    )


def test_values_as_targets():
    net, x = alive(3, "CuBa")
    rule = Rule(SURROGATE, Eligibility())
    learner = rule.online(net, torch.optim.SGD(net.parameters(), lr=0.1), OverTime(half_square))
    found = learner.step(x[0], torch.zeros(B, 3, **F64))
    assert found.loss == pytest.approx(0.5 * found.output.square().sum().item())


def test_only_what_the_optimizer_has_is_changed_and_no_gradient_stays():
    rule, net, x, y = made("ottt")
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    frozen = net.layers[2].synapse.weight.requires_grad_(False)
    learner = rule.online(net, torch.optim.SGD(net.layers[1].parameters(), lr=0.3), CE, every=2)
    for n, x_n in enumerate(x):
        learner.step(x_n, y)
        if n == 2:
            frozen.requires_grad_(True)  # thawed in the middle: from the next sum on it has a gradient
    learner.update()
    assert all(p.grad is None for p in net.parameters())
    for k, p in net.named_parameters():
        assert torch.equal(p, before[k]) == (not k.startswith("layers.1.")), k


def test_a_state_that_was_kept_is_not_touched_by_the_update():
    rule, net, x, y = made("ottt")
    learner = rule.online(net, torch.optim.SGD(net.parameters(), lr=0.3), CE, every=2)
    learner.step(x[0], y)
    kept = learner.state
    before = {k: g.clone() for k, g in kept.gradients.items()}
    learner.step(x[1], y)
    assert all(torch.equal(before[k], g) for k, g in kept.gradients.items())
