"""What every rule holds to: shapes, no error no gradient, linear in the error, samples add up; and a rule forward in
time knows nothing of the future."""

import pytest
import torch
from trials import SURROGATE, B, T, alive, distance, flat

from snnlearn import (
    RTRL,
    SRM,
    TSSLBP,
    Adjoint,
    AdjointSRM,
    DirectFeedback,
    Eligibility,
    FeedbackAlignment,
    Layer,
    LocalErrors,
    Memory,
    Near,
    Network,
    Reset,
    Rule,
    Threshold,
    Unrolled,
    recipes,
)
from snnlearn.events import EventProp
from snnlearn.filters import Exponentials
from snnlearn.losses import OverTime
from snnlearn.temporal import Forward

F64 = {"dtype": torch.float64}


def product(out, target):
    """A cost whose error is the target."""
    return (out * target).flatten(1).sum(1)


PLAIN = OverTime(product)
SMOOTH = OverTime(product, filter=Exponentials.double(tau_rise=2e-3, tau_decay=6e-3))
RULES = {
    "bptt": (Rule(SURROGATE, Unrolled()), PLAIN),
    "bptt detached": (Rule(SURROGATE, Unrolled(Reset.DETACHED)), PLAIN),
    "bptt truncated": (Rule(SURROGATE, Unrolled(window=5)), PLAIN),
    "rtrl": (Rule(SURROGATE, RTRL()), PLAIN),
    "rtrl filtered": (Rule(SURROGATE, RTRL()), SMOOTH),
    "exodus": (Rule(SURROGATE, Adjoint()), PLAIN),
    "exodus detached": (Rule(SURROGATE, Adjoint(Reset.DETACHED)), PLAIN),
    "slayer": (Rule(SURROGATE, Adjoint(Reset.IGNORED)), PLAIN),
    "exodus srm": (Rule(SURROGATE, AdjointSRM()), PLAIN),
    "slayer srm": (Rule(SURROGATE, AdjointSRM(Reset.IGNORED)), PLAIN),
    "sparse": (Rule(Near(SURROGATE, 0.3), Adjoint(Reset.IGNORED)), PLAIN),
    "sparse kept": (Rule(Near(SURROGATE, 0.3), Adjoint()), PLAIN),
    "tssl_bp": (Rule(temporal=TSSLBP()), PLAIN),
    "tssl_bp paper": (Rule(temporal=TSSLBP.paper()), PLAIN),
    "ottt": (Rule(SURROGATE, Eligibility()), PLAIN),
    "eprop": (Rule(SURROGATE, Eligibility(through_readout=True)), PLAIN),
    "superspike": (Rule(SURROGATE, Eligibility()), SMOOTH),
    "eprop sltt": (Rule(SURROGATE, Eligibility(memory=Memory.NONE)), PLAIN),
}
SPATIAL = {
    "aligned": FeedbackAlignment.random,
    "concordant": FeedbackAlignment.concordant,
    "kolen pollack": FeedbackAlignment.kolen_pollack,
    "direct": DirectFeedback.random,
    "uniform": lambda net, g: DirectFeedback.uniform(net),
    "direct through readout": lambda net, g: DirectFeedback.random(net, g, through_readout=True),
    "adaptive": DirectFeedback.adaptive,
    "local": LocalErrors.random,
    "local trained": lambda net, g: LocalErrors.random(net, g, trained=True),
}
ALONG = {  # through layers, on each way through time that sends errors
    f"{time} {space}": (temporal, make, loss)
    for space, make in SPATIAL.items()
    for time, temporal, loss in (
        ("bptt", Unrolled(), PLAIN),
        ("exodus", Adjoint(), PLAIN),
        ("rtrl", RTRL(), PLAIN),
        ("ottt", Eligibility(), PLAIN),
        ("eprop", Eligibility(through_readout=True), PLAIN),
    )
    if not (time == "rtrl" and space in ("kolen pollack", "adaptive", "local trained"))
    and not (time == "eprop" and space == "kolen pollack")
    and not (time == "ottt" and space == "adaptive")  # of two hidden layers
}
NAMES = [*RULES, *ALONG]
FORWARD = [
    *(name for name, (rule, _) in RULES.items() if isinstance(rule.temporal, Forward)),
    *(name for name, (temporal, *_) in ALONG.items() if isinstance(temporal, Forward)),
]


def trial(name):
    """A living network that the rule can train, its input, and two errors."""
    if name in ALONG:
        temporal, make, loss = ALONG[name]
        net, x = alive(4, "CuBa", layers=1 if temporal == Eligibility(through_readout=True) else 2)
        return _errors(Rule(SURROGATE, temporal, make(net, torch.Generator().manual_seed(3))), loss, net, x)
    rule, loss = RULES[name]
    if isinstance(rule.temporal, TSSLBP):
        net, x = alive(4, "CuBa", layers=2, reset="to_zero", fire=Threshold(strict=True))
    elif isinstance(rule.temporal, AdjointSRM):
        net, x = alive(4, "LIF", layers=2, top=False)
        net = Network(*(Layer(layer.synapse, SRM.lif(0.85, T=T)) for layer in net.layers))
    else:
        net, x = alive(4, "CuBa", top=loss is PLAIN)
    if rule.temporal == Eligibility() and loss is SMOOTH:
        assert len(net.layers) == 1
    return _errors(rule, loss, net, x)


def _errors(rule, loss, net, x):
    g = torch.Generator().manual_seed(9)
    out = net(x, Rule(SURROGATE, rule.temporal))[-1].s
    return rule, loss, net, x, [torch.randn(out.shape, generator=g, **F64) for _ in range(2)]


def test_every_recipe_is_here():
    here = {(type(rule.temporal), getattr(rule.temporal, "reset", None)) for rule, _ in RULES.values()}
    net, _ = alive(4)
    for name in recipes.listing():
        temporal = recipes.make(name, net, torch.Generator()).temporal
        if isinstance(temporal, EventProp):
            continue  # spike times instead of steps: the same contract is in test_events.py
        assert (type(temporal), getattr(temporal, "reset", None)) in here, name


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_life(name):
    rule, loss, net, x, (e, _) = trial(name)
    value, gradients = rule.gradients(net, x, e, loss)
    assert value.shape == ()
    own = {f"spatial.{k}": p for k, p in rule.spatial.named_parameters() if p.requires_grad}
    assert {k: g.shape for k, g in gradients.items()} == {
        k: p.shape for k, p in (*net.named_parameters(), *own.items())
    }
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in gradients.values())


@pytest.mark.parametrize("name", NAMES)
def test_no_error_no_gradient(name):
    rule, loss, net, x, (e, _) = trial(name)
    assert flat(rule.gradients(net, x, torch.zeros_like(e), loss)[1]).abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_linear_in_the_error(name):
    rule, loss, net, x, (e1, e2) = trial(name)
    one, two, both = (rule.gradients(net, x, e, loss)[1] for e in (e1, e2, e1 - 3 * e2))
    assert distance({k: one[k] - 3 * two[k] for k in one}, both) < 1e-12
    assert distance({k: one[k] - two[k] for k in one}, both) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_is_the_sum_of_its_samples(name):
    rule, loss, net, x, (e, _) = trial(name)
    whole = rule.gradients(net, x, e, loss)[1]
    each = [rule.gradients(net, x[:, [b]], e[:, [b]], loss)[1] for b in range(B)]
    assert distance({k: sum(g[k] for g in each) for k in whole}, whole) < 1e-12
    assert distance(each[0], whole) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_the_same_twice_and_nothing_is_written(name):
    rule, loss, net, x, (e, _) = trial(name)
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    one, two = (rule.gradients(net, x, e, loss) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert all(torch.equal(one[1][k], two[1][k]) for k in one[1])
    assert all(p.grad is None and torch.equal(p, before[k]) for k, p in net.named_parameters())
    for _ in range(2):
        rule.backward(net, x, e, loss)
    twice = {k: 2 * g for k, g in one[1].items() if not k.startswith("spatial.")}
    assert distance({k: p.grad for k, p in net.named_parameters()}, twice) < 1e-12
    for k, p in rule.spatial.named_parameters():
        assert (p.grad is not None) == p.requires_grad
        if p.requires_grad:
            torch.testing.assert_close(p.grad, 2 * one[1][f"spatial.{k}"])


@pytest.mark.parametrize("name", FORWARD)
def test_rules_forward_in_time_do_not_know_the_future(name):
    rule, loss, net, x, (e, other) = trial(name)
    cut = 9
    later = torch.cat([x[:cut], 1 - x[cut:]]), torch.cat([e[:cut], other[cut:]])
    steps = [list(rule.temporal.steps(net, *pair, loss, rule)) for pair in ((x, e), later)]
    for n, ((v, g), (w, h)) in enumerate(zip(*steps, strict=True)):
        if n < cut:
            assert torch.equal(v, w)
            assert all(torch.equal(g[k], h[k]) for k in g)
    assert not all(torch.equal(g[k], h[k]) for (_, g), (_, h) in zip(*steps, strict=True) for k in g)


@pytest.mark.parametrize("name", FORWARD)
def test_rules_forward_in_time_leave_no_graph(name):
    rule, loss, net, x, (e, _) = trial(name)
    for value, gradients in rule.temporal.steps(net, x, e, loss, rule):
        assert not value.requires_grad
        assert not any(g.requires_grad for g in gradients.values())
    with pytest.raises(TypeError, match="forward in time"):
        rule.objective(net, x, e, loss)
