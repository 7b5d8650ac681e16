"""Rules that are the same gradient, over networks drawn at random; and beside each identity one that must not hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import NEURONS, RESETS, SURROGATE, T, alive, distance, networks, rates, seeds

from snnlearn import RTRL, Adjoint, Eligibility, Reset, Rule, Unrolled
from snnlearn.losses import OverTime, cross_entropy, half_square
from snnlearn.sparse import Near

SAME, OTHER = 1e-10, 1e-3
CE, SQUARE = OverTime(cross_entropy, mean=True), OverTime(half_square)


def labels(net, x):
    return torch.arange(x.shape[1]) % 3


def gradient(net, x, temporal, loss=CE, y=None, surrogate=SURROGATE):
    return Rule(surrogate, temporal).gradients(net, x, labels(net, x) if y is None else y, loss)[1]


@given(networks)
@settings(max_examples=25)
def test_bptt_is_exodus_is_rtrl(drawn):
    net, x = alive(**drawn)
    assert all(0.1 <= r <= 0.4 for r in rates(net, x))
    bptt = gradient(net, x, Unrolled())
    assert distance(gradient(net, x, Adjoint()), bptt) < SAME
    assert distance(gradient(net, x, RTRL()), bptt) < SAME


@given(networks)
@settings(max_examples=25)
def test_slayer_is_bptt_detached_for_reset_by_subtraction(drawn):
    net, x = alive(**(drawn | {"reset": "subtract"}))
    assert distance(gradient(net, x, Adjoint(Reset.IGNORED)), gradient(net, x, Unrolled(Reset.DETACHED))) < SAME


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reset", ["to_zero", "to_zero_with_input"])
def test_but_not_for_reset_to_zero(seed, reset):
    net, x = alive(seed, layers=2, reset=reset)
    detached = gradient(net, x, Unrolled(Reset.DETACHED))
    assert distance(gradient(net, x, Adjoint(Reset.IGNORED)), detached) > OTHER
    assert distance(gradient(net, x, Adjoint(Reset.DETACHED)), detached) < SAME


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", sorted(NEURONS))
def test_the_three_views_of_the_reset_differ_from_one_another(seed, kind):
    net, x = alive(seed, kind, layers=2)
    kept, ignored = gradient(net, x, Adjoint()), gradient(net, x, Adjoint(Reset.IGNORED))
    assert distance(ignored, kept) > OTHER
    assert distance(gradient(net, x, RTRL(Reset.DETACHED)), kept) > OTHER
    assert distance(gradient(net, x, RTRL(Reset.DETACHED)), ignored) < SAME


@given(seeds, st.sampled_from(sorted(NEURONS)), st.sampled_from(sorted(RESETS)), st.integers(0, 2))
@settings(max_examples=25)
def test_eligibility_is_slayer_in_one_layer(seed, kind, reset, delay):
    net, x = alive(seed, kind, reset=reset, delay=delay, top=False)
    y = torch.zeros(T, x.shape[1], 4, dtype=torch.float64)
    ignored = gradient(net, x, Adjoint(Reset.IGNORED), SQUARE, y)
    assert distance(gradient(net, x, Eligibility(), SQUARE, y), ignored) < SAME


@pytest.mark.parametrize("seed", range(4))
def test_but_not_with_recurrence_nor_with_a_layer_above_nor_with_the_reset_seen(seed):
    y = torch.zeros(T, 3, 4, dtype=torch.float64)
    net, x = alive(seed, top=False, recurrent=True)
    own = "layers.0.recurrent.weight"
    traced, exact = (gradient(net, x, m, SQUARE, y) for m in (Eligibility(), Adjoint(Reset.IGNORED)))
    assert distance({own: traced[own]}, {own: exact[own]}) > OTHER
    net, x = alive(seed, top=False)
    assert distance(gradient(net, x, Eligibility(), SQUARE, y), gradient(net, x, Adjoint(), SQUARE, y)) > OTHER
    net, x = alive(seed)
    first = "layers.0.synapse.weight"
    traced, exact = (gradient(net, x, m) for m in (Eligibility(), Adjoint(Reset.IGNORED)))
    assert distance({first: traced[first]}, {first: exact[first]}) > OTHER


@given(seeds, st.sampled_from(sorted(NEURONS)), st.booleans())
@settings(max_examples=15)
def test_eprop_is_slayer_with_one_hidden_layer_and_a_leaky_readout(seed, kind, bias):
    net, x = alive(seed, kind, bias=bias)
    ignored = gradient(net, x, Adjoint(Reset.IGNORED))
    assert distance(gradient(net, x, Eligibility(through_readout=True)), ignored) < SAME


@given(networks)
@settings(max_examples=15)
def test_a_band_without_end_changes_nothing(drawn):
    net, x = alive(**drawn)
    for temporal in (Unrolled(), Adjoint(), Adjoint(Reset.IGNORED)):
        all_of_it, dense = (gradient(net, x, temporal, surrogate=s) for s in (Near(SURROGATE, 1e300), SURROGATE))
        assert all(torch.equal(all_of_it[k], dense[k]) for k in dense)
        assert distance(gradient(net, x, temporal, surrogate=Near(SURROGATE, 0.2)), dense) > OTHER


@given(networks)
@settings(max_examples=15)
def test_sparse_goes_with_every_method(drawn):
    net, x = alive(**drawn)
    near = Near(SURROGATE, 0.4)
    bptt = gradient(net, x, Unrolled(), surrogate=near)
    assert distance(gradient(net, x, Adjoint(), surrogate=near), bptt) < SAME
    assert distance(gradient(net, x, RTRL(), surrogate=near), bptt) < SAME


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_truncated_bptt(seed, recurrent):
    """A window as long as the sequence is BPTT; a window of one step leaves the eligibility of one step."""
    net, x = alive(seed, "CuBa", recurrent=recurrent, lag=2, layers=2)
    full = gradient(net, x, Unrolled())
    assert distance(gradient(net, x, Unrolled(window=T)), full) == 0
    near, far = (distance(gradient(net, x, Unrolled(window=w)), full) for w in (12, 1))
    assert far > OTHER
    assert near > 0
    for window in (1, 5):
        traces, cut = (net(x, Rule(SURROGATE, m))[-1].s for m in (Unrolled(), Unrolled(window=window)))
        assert torch.equal(traces, cut)


@pytest.mark.parametrize("delay", [0, 1, 2, 7])
def test_truncated_bptt_is_pieces_by_hand(delay):
    net, x = alive(1, "CuBa", recurrent=True, lag=2, layers=2)
    if delay:
        net.layers[1].delay = net.layers[2].delay = delay
    rule, y, outs, past = Rule(SURROGATE), labels(net, x), [], None
    for piece in x.split(5):
        traces, past = net.run(piece, rule, past)
        outs.append(traces[-1].s)
        past = [torch.utils._pytree.tree_map(torch.Tensor.detach, p) for p in past]
    by_hand = torch.autograd.grad(CE(torch.cat(outs), y), list(net.parameters()))
    got = gradient(net, x, Unrolled(window=5))
    assert distance(got, dict(zip(got, by_hand, strict=True))) < SAME


class Smooth:
    """The step replaced by the surrogate's primitive: a network whose derivative is the surrogate gradient, exactly."""

    analog = False

    def __init__(self, surrogate):
        self.surrogate = surrogate

    def __call__(self, U, theta):
        return self.surrogate.primitive(U - theta)


@pytest.mark.parametrize("reset", ["subtract", "subtract_decayed", "to_zero"])
@pytest.mark.parametrize("method", [Unrolled(), Adjoint(), RTRL()], ids=["unrolled", "adjoint", "rtrl"])
def test_surrogate_rules_are_the_derivative_of_the_smooth_twin(reset, method):
    """Central differences along random directions in the space of all weights."""
    net, x = alive(3, "CuBa", layers=2, recurrent=True, reset=reset, fire=Smooth(SURROGATE), at_rest=True)
    y = labels(net, x)
    found = gradient(net, x, method)
    kept = {name: p.detach().clone() for name, p in net.named_parameters()}
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        way = {name: torch.randn(p.shape, generator=g, dtype=p.dtype) for name, p in kept.items()}
        values, h = [], 1e-5
        for sign in (1, -1):
            net.load_state_dict({name: p + sign * h * way[name] for name, p in kept.items()})
            values.append(CE(net(x, Rule(SURROGATE))[-1].s, y).item())
        net.load_state_dict(kept)
        slope = (values[0] - values[1]) / (2 * h)
        along = sum((found[name] * way[name]).sum().item() for name in found)
        assert abs(along) > 1e-4
        assert along == pytest.approx(slope, rel=1e-6)
    other = gradient(net, x, Adjoint(Reset.IGNORED))
    assert distance(other, found) > OTHER
