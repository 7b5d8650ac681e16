"""Tutorial 09: Eqs. 5-13 against the library, autograd and lists; what the notebook says; panels; exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip
from torch import nn

from snnlearn import FastSigmoid, datasets
from snnlearn.lessons import sparse_gradients as lesson
from snnlearn.lessons import sparse_gradients_exercises as exercises
from snnlearn.lessons import sparse_gradients_numbers as numbers
from snnlearn.network import Layer, Network
from snnlearn.sparse import activities, multiplications
from snnlearn.temporal import Reset

K = numbers.STEEPNESS
BANDS = [math.inf, 0.2, 0.05]


def library(batch=numbers.BATCH):
    task, net = numbers.digits(), numbers.network(torch.Generator().manual_seed(0))
    split = task.load().train
    return net, task.encode(split.x[:batch]), split.y[:batch], task.loss


def close(got, wanted, rtol=1e-11):
    wanted = np.asarray(wanted)
    assert abs(wanted).max() > 0
    np.testing.assert_allclose(got, wanted, rtol=0, atol=rtol * abs(wanted).max())


# Slope, traces, the two products.


def test_slope_by_hand_and_as_the_library():
    np.testing.assert_allclose(numbers.slope([0, 0.01, -0.01, 1]), [1, 0.25, 0.25, 1 / 101**2])
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)
    np.testing.assert_allclose(numbers.slope(x, 7), FastSigmoid.from_steepness(7).slope(x), rtol=1e-12)


@pytest.mark.parametrize(("within", "steepness"), [(0.2, 100), (0.2, 5), (1.0, 1)])
def test_area_within_is_the_integral(within, steepness):
    x = np.linspace(-within, within, 200_001)
    inside = np.trapezoid(numbers.slope(x, steepness), x)
    assert numbers.area_within(within, steepness) == pytest.approx(inside * steepness / 2, rel=1e-5)


def test_trace_by_hand_and_one_step_late():
    np.testing.assert_allclose(numbers.trace_of(np.array([1.0, 0, 0, 1, 0]), 0.5), [0, 1, 0.5, 0.25, 1.125])


def test_the_trial_is_the_networks_forward_pass_and_alive():
    t = numbers.trial()
    for i, V in enumerate(t.V):
        assert 0.03 < t.S[i].mean() < 0.4
        np.testing.assert_array_equal(t.S[i], V > 1)  # Eq. 4, strict
    V = np.zeros_like(t.V[1])
    for n in range(numbers.STEPS - 1):
        V[n + 1] = t.alpha * V[n] + t.S[0][n] @ t.W - (V[n] > 1)  # Eq. 2
    close(t.V[1], V)
    assert t.alpha == pytest.approx(math.exp(-0.1))


@pytest.mark.parametrize("steepness", [100.0, 5.0])
@pytest.mark.parametrize("within", BANDS)
def test_gradients_are_the_librarys(within, steepness):
    net, x, y, loss = library()
    wanted = numbers.rule(within, steepness).gradients(net, x, y, loss)[1]
    found = numbers.gradients(numbers.trial(), within, steepness)
    for name, dW in zip(("layers.0", "layers.1"), found.dW, strict=True):
        close(dW.T, wanted[f"{name}.synapse.weight"])
    control = numbers.rule(within, steepness, Reset.KEPT).gradients(net, x, y, loss)[1]["layers.0.synapse.weight"]
    assert not np.allclose(found.dW[0].T, control, rtol=0, atol=1e-3 * float(control.abs().max()))


def test_gradients_by_the_papers_sums():
    """Eqs. 5 and 6 as printed, for three neurons of one image."""
    t = numbers.trial()
    f, found = [np.where(abs(V - 1) < 0.2, numbers.slope(V - 1), 0) for V in t.V], numbers.gradients(t, 0.2, K)
    steps, b = range(numbers.STEPS), 1
    for n in (0, 4, 11):
        delta = sum((t.alpha ** (k - n - 1) * t.e[k, b] * f[1][k, b] for k in steps if k > n), np.zeros(numbers.HIDDEN))
        np.testing.assert_allclose(found.e[n, b], t.W @ delta, rtol=1e-10, atol=1e-18)
    tr = [sum(t.alpha ** (n - k - 1) * t.S[0][k] for k in range(n)) for n in steps]
    dW = sum(np.einsum("bi,bj->ij", tr[n], t.e[n] * f[1][n]) for n in steps[1:])
    close(found.dW[1], dW)


def test_the_write_mask_changes_no_bit_of_dW():
    t = numbers.trial()
    complete, written = (numbers.gradients(t, 0.2, K, write=write) for write in (False, True))
    for a, b in zip(complete.dW, written.dW, strict=True):
        np.testing.assert_array_equal(a, b)
    gone = (written.e == 0) & (complete.e != 0)
    assert gone.mean() > 0.8
    np.testing.assert_array_equal(written.e[written.active[0]], complete.e[written.active[0]])
    # without a band below it would matter
    g = numbers.slope(t.V[0] - 1)
    a, b = (np.einsum("tbi,tbj->ij", t.tr[0], g * e) for e in (complete.e, written.e))
    assert np.linalg.norm(a - b) > 0.01 * np.linalg.norm(a)


def test_likeness_counts_as_the_library():
    net, x, *_ = library()
    like, rule = numbers.likeness(0.2, K)[1], numbers.rule(0.2)
    assert like.activity == pytest.approx(activities(net, x, rule)[:2], abs=1e-12)
    counts = multiplications(net, x, rule)[:2]
    left = sum(p.dW + p.dS for p in counts) / sum(p.dense_dW + p.dense_dS for p in counts)
    assert like.saved == pytest.approx(1 - left, rel=1e-12)
    dense = numbers.likeness(math.inf, K)[1]
    assert (dense.activity, dense.error, dense.saved) == ((1.0, 1.0), (0.0, 0.0), 0.0)
    assert dense.cosine == pytest.approx((1, 1))
    found = numbers.likeness(0.2, K)[0].dW[0]
    full = numbers.likeness(math.inf, K)[0].dW[0]
    assert like.error[0] == pytest.approx(np.linalg.norm(found - full) / np.linalg.norm(full))
    assert like.cosine[0] == pytest.approx((found * full).sum() / np.linalg.norm(found) / np.linalg.norm(full))


def test_a_band_that_holds_nobody():
    like = numbers.likeness(1e-9, K)[1]
    assert (like.activity, like.cosine, like.error, like.saved) == ((0, 0), (0, 0), (1, 1), 1)


def test_credit_within():
    t = numbers.trial()
    size = abs(numbers.slope(t.V[1] - 1, 20) * t.e)
    wanted = [size[abs(t.V[1] - 1) < d].sum() / size.sum() for d in (0.01, 0.2, 1.0, 1.01)]
    np.testing.assert_allclose(numbers.credit_within([0.01, 0.2, 1.0, 1.01], 20), wanted, rtol=1e-10)
    assert numbers.credit_within(0.0, 20) == 0
    assert numbers.credit_within(1e3, 20) == pytest.approx(1)


def test_the_two_products_agree():
    dense, sparse = numbers.products(30, 0.1, inputs=20, entries=100)
    torch.testing.assert_close(dense(), sparse())
    assert dense().abs().max() > 1


def test_milliseconds_takes_the_fastest():
    calls = []
    assert 0 <= numbers.milliseconds(lambda: calls.append(1), times=4) < math.inf
    assert len(calls) == 4


# What the notebook says.


def spikes_only():
    t = numbers.trial()
    f = [np.where(S > 0, numbers.slope(V - 1), 0) for S, V in zip(t.S, t.V, strict=True)]
    fe = f[1] * t.e
    delta = np.zeros_like(fe)
    for n in range(len(fe) - 2, -1, -1):
        delta[n] = fe[n + 1] + t.alpha * delta[n + 1]
    return np.einsum("tbi,tbj->ij", t.tr[0], f[0] * (delta @ t.W.T)), np.einsum("tbi,tbj->ij", t.tr[1], fe)


def test_what_the_notebook_says_of_the_band():
    like = {(w, k): numbers.likeness(w, k)[1] for w in (0.2, 0.05) for k in (100.0, 5.0)}
    assert like[0.2, 100].cosine[0] > 0.999
    assert 0.975 < like[0.05, 100].cosine[0] < 0.99
    assert 0.84 < like[0.2, 5].cosine[0] < 0.88
    assert like[0.05, 5].cosine[0] < 0.5
    assert 0.95 < like[0.2, 100].saved < 0.97
    assert like[0.05, 100].saved > 0.985
    assert 0.94 < float(numbers.credit_within(0.2, K)) < 0.96
    full = numbers.likeness(math.inf, K)[0].dW
    for got, wanted in zip(spikes_only(), full, strict=True):
        assert (got * wanted).sum() / np.linalg.norm(got) / np.linalg.norm(wanted) < 0.65
    shorter = np.linalg.norm(numbers.likeness(0.2, K)[0].dW[0]) / np.linalg.norm(full[0])
    assert 0.97 < shorter < 0.99


def test_membranes_at_rest_are_credit_that_teaches_nothing():
    t = numbers.trial()
    rest = t.V[1] == 0
    assert rest.mean() > 0.05
    assert not (t.tr[1] * rest.any(2, keepdims=True))[:2].any()
    before, after = numbers.credit_within([1.0, 1.0 + 1e-9], 1.0)
    assert after - before > 0.05


# Training.


def test_the_task_has_the_papers_layers_in_double_precision_whatever_the_default():
    first = numbers.network(torch.Generator().manual_seed(0))
    torch.set_default_dtype(torch.float64)
    try:
        second = numbers.network(torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)
    assert [layer.delay for layer in first.layers] == [1, 1, 1]
    assert all(layer.neuron.fire.strict for layer in first.layers[:2])
    data, whole = numbers.digits().load(), datasets.digits()
    assert len(data.train) == numbers.SAMPLES
    assert torch.equal(data.test.x, whole.test.x.double())


def test_learning_and_its_floor():
    dense, near, floor = (
        numbers.learn(math.inf, epochs=2),
        numbers.learn(0.2, epochs=2),
        numbers.learn(0.2, epochs=2, frozen=True),
    )
    assert dense.activity == 1
    assert 0.02 < near.activity < 0.1
    assert floor.activity == 0
    assert dense.validation > floor.validation + 0.05
    assert near != dense != numbers.learn(math.inf, epochs=2, seed=1)


# The pictures and the panels.


@pytest.fixture(params=["dial", "price"])
def panel(request):
    return lesson.dial_panel() if request.param == "dial" else lesson.price_panel()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel, gaps=True)  # the slope is drawn within the band only


def test_the_dial_shows_the_numbers():
    panel = lesson.dial_panel()
    found, like = numbers.likeness(0.2, K)
    lower, _, scatter, curves = panel.axes
    np.testing.assert_array_equal(lower.images[0].get_array(), found.active[0][:, 0].T)
    assert f"{like.activity[0]:.2%}" in lower.texts[0].get_text()
    assert f"{like.cosine[0]:.4f}" in scatter.texts[0].get_text()
    dots = [line.get_xydata()[0] for line in curves.lines if line.get_marker() == "o"]
    wanted = [like.cosine[0], like.error[0], like.saved, sum(like.activity) / 2]
    np.testing.assert_allclose(dots, [[0.2, y] for y in wanted], rtol=1e-9)
    assert "b_th = 0.800" in curves.texts[0].get_text()
    assert f"{like.saved:.2%}" in panel._repr_mimebundle_()[0]["text/plain"]


def test_the_curves_and_the_image_hold_the_same_numbers():
    at = 18
    like = numbers.likeness(float(numbers.BANDS[at]), K)[1]
    found = numbers.curves(K)
    assert (found["cosine"][at], found["error"][at], found["saved"][at]) == (like.cosine[0], like.error[0], like.saved)
    assert found["activity"][at] == pytest.approx(sum(like.activity) / 2)
    row = numbers.cosines()[5]
    assert row[at] == numbers.likeness(float(numbers.BANDS[at]), float(numbers.STEEP[5]))[1].cosine[0]
    assert numbers.cosines().shape == (len(numbers.STEEP), len(numbers.BANDS))


def test_still_pictures():
    t = numbers.trial()
    one, two, three = Figure().subplots(1, 3)
    lesson.draw_histogram(one, t.V[1], 0.2)
    bars = [p.get_height() for p in one.patches if p.get_width() < 0.3]
    assert sum(bars) == pytest.approx(100 * np.mean((t.V[1] >= -4) & (t.V[1] <= 4)))
    lesson.draw_mask(two, abs(t.V[0][:, 3] - 1) < 0.2, t.S[0][:, 3], "lower")
    assert len(two.lines[0].get_xdata()) == t.S[0][:, 3].sum()
    runs = {100.0: {math.inf: numbers.Learned(0.9, 0.9, 1.0), 0.2: numbers.Learned(0.8, 0.8, 0.04)}}
    runs[5.0] = {math.inf: numbers.Learned(0.95, 0.9, 1.0)}
    lesson.draw_accuracy(three, runs, 0.6)
    np.testing.assert_allclose(three.lines[0].get_xydata(), [[100, 90], [4, 80]])
    assert [text.get_text() for text in three.texts] == ["dense", "0.2", "dense"]
    np.testing.assert_allclose(three.lines[2].get_ydata(), [60, 60])


# The exercises.

EXERCISES = {
    "activity": lesson.activity_exercise,
    "survivors": lesson.survivors_exercise,
    "band": lesson.band_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def percent(mask):
    return 100 * mask.double().mean()


def first_band(score):
    def attempt(V, fe, tr, bands, wanted):
        return next((B for B in bands if score(torch.where((V - 1).abs() < B, fe, 0.0), fe, tr) >= wanted), torch.inf)

    return attempt


def both_there(inputs, active):
    return inputs.T.double() @ active.double() > 0


SLIPS = {
    "activity": {
        "strict": lambda V, theta, B: percent((V - theta).abs() <= B),
        "two sides": lambda V, theta, B: percent((theta <= V) & (theta + B > V)),
        "far below": lambda V, theta, B: percent(theta + B > V),
        "silent": lambda V, theta, B: percent(theta < V),
        "code's b_th": lambda V, theta, B: percent((V > B) & (2 * theta - B > V)),
        "not 1 here": lambda V, theta, B: percent((V - 1).abs() < B),
        "in percent": lambda V, theta, B: percent((V - theta).abs() < B) / 100,
        "Divide by B T N": lambda V, theta, B: ((V - theta).abs() < B).sum(),
        "T alone": lambda V, theta, B: 100 * ((V - theta).abs() < B).sum() / V.shape[0],
        "N alone": lambda V, theta, B: 100 * ((V - theta).abs() < B).sum() / V.shape[2],
        "batch is missing": lambda V, theta, B: 100 * ((V - theta).abs() < B).sum() / (V.shape[0] * V.shape[2]),
    },
    "survivors": {
        "too late": lambda S, active: both_there(S.cumsum(0) > 0, active),
        "remembers": lambda S, active: both_there(S, active),
        "too short": lambda S, active: both_there(S[:-1], active[1:]),
        "order": lambda S, active: (S.sum(0) > 0)[:, None] & active.any(0),
        "has to be active": lambda S, active: (S.sum(0) > 0)[:, None].expand(-1, active.shape[1]),
        "never fired": lambda S, active: active.any(0).expand(S.shape[1], -1),
        "other way round": lambda S, active: ~exercises.survivors(S, active),
    },
    "band": {
        "widest": lambda V, fe, tr, bands, wanted: bands[-1],
        "Compare dW": first_band(lambda m, fe, tr: torch.cosine_similarity(m.flatten(), fe.flatten(), 0)),
        "no cosine": first_band(lambda m, fe, tr: (tr.T @ m).norm() / (tr.T @ fe).norm()),
        "relative error": first_band(lambda m, fe, tr: 1 - (tr.T @ (m - fe)).norm() / (tr.T @ fe).norm()),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_activity_exercise_against_the_library():
    t = numbers.trial()
    got = exercises.percent_active(torch.from_numpy(t.V[1]), 1.0, 0.2)
    assert got.item() == pytest.approx(100 * numbers.likeness(0.2, K)[1].activity[1])


def test_survivors_are_the_entries_that_the_librarys_gradient_has():
    """For one image and random errors, nothing survives by accident and nothing is lost."""
    t, b = numbers.trial(), 2
    lower = numbers.network(torch.Generator().manual_seed(0)).layers[0]
    synapse = nn.Linear(1, 1, bias=False).to(torch.float64)
    synapse.weight = nn.Parameter(lower.synapse.weight.detach().clone())
    net = Network(Layer(synapse, lower.neuron, delay=1))
    e = torch.randn(numbers.STEPS, 1, numbers.HIDDEN, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = torch.from_numpy(t.x[:, b : b + 1])
    dW = numbers.rule(0.2).gradients(net, x, e, lambda out, y: (out * y).sum())[1]["layers.0.synapse.weight"]
    wanted = exercises.survivors(x[:, 0], torch.from_numpy(abs(t.V[0][:, b] - 1) < 0.2))
    assert 0.05 < wanted.double().mean() < 0.6
    assert torch.equal(dW.T != 0, wanted)


def test_no_band_is_good_enough():
    V, fe, tr, _, _ = exercises._band_case(20, 0.99)
    assert exercises.smallest_band(V, fe, tr, torch.tensor([0.001, 0.002]), 0.999).isinf()
