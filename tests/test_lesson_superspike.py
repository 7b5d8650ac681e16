"""Tutorial 05: the quick training against the library's rule, closed forms, the panels, the exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip
from torch import nn

from snnlearn import FastSigmoid, Layer, Network, Reset, Rule, Unrolled, cuba_lif, losses
from snnlearn.filters import Exponentials, filtered
from snnlearn.lessons import superspike as lesson
from snnlearn.lessons import superspike_numbers as numbers
from snnlearn.lessons import superspike_training as training
from snnlearn.optim import RMaxProp
from snnlearn.temporal import Eligibility


def linear(W):
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(W))
    return layer


def network(*matrices):
    neuron = cuba_lif(tau_mem=training.TAU_MEM * 1e-3, tau_syn=training.TAU_SYN * 1e-3)
    return Network(*(Layer(linear(W), neuron) for W in matrices))


def sequence(x):
    return torch.tensor(x).reshape(len(x), 1, -1)


def library(method, matrices, x, target, width=0.3):
    found = Rule(FastSigmoid(width=width), method).gradients(
        network(*matrices), sequence(x), sequence(target), losses.van_rossum()
    )
    return found[0].item(), [g.numpy() for g in found[1].values()]


# Filters and distances.


def test_kernel_is_the_double_exponential():
    k = np.arange(60)
    raw = np.exp(-k / 10) - np.exp(-k / 5)
    np.testing.assert_allclose(numbers.kernel(numbers.error_filter(5, 10), 60), raw / raw.max(), rtol=1e-12)


def test_convolution_as_matrix_sum_and_recursion():
    x, eps = np.random.default_rng(0).normal(size=40), Exponentials((0.9, 0.5), (1.0, -0.3))
    k = numbers.kernel(eps, 40)
    wanted = filtered(eps, torch.tensor(x)).numpy()
    np.testing.assert_allclose(numbers.toeplitz(k) @ x, wanted, atol=1e-13)
    np.testing.assert_allclose(numbers.convolved(k, x), wanted, atol=1e-13)
    np.testing.assert_allclose(numbers.leaky(0.7, x), numbers.toeplitz(0.7 ** np.arange(40)) @ x, atol=1e-13)


@pytest.mark.parametrize("tau", [3.0, 10.0])
def test_distance_of_a_moved_spike(tau):
    eps = numbers.kernel(numbers.error_filter(tau / 2, tau), 400)
    alone = numbers.distance(0, 0, tau, missing=True).loss
    assert alone == pytest.approx(0.5 * eps @ eps, rel=1e-6)  # one spike missing costs half its energy
    for shift in (-9, 4, 25):
        overlap = eps[abs(shift) :] @ eps[: 400 - abs(shift)]
        assert numbers.distance(shift, 0, tau, missing=False).loss == pytest.approx(eps @ eps - overlap, rel=1e-6)
    assert numbers.distance(numbers.REACH, 0, tau, missing=False).loss == pytest.approx(2 * alone, rel=0.03)
    assert numbers.distance(0, 0, tau, missing=False).loss == 0


def test_what_the_notebook_says_of_distances():
    late, early = (numbers.distance(shift, 0, 10.0, False) for shift in (6, -6))
    for found, sign in ((late, -1), (early, 1)):
        first = found.e[np.flatnonzero(np.abs(found.e) > 0.1)[0]]
        assert np.sign(first) == sign
    curve = dict(zip(late.shifts, late.losses, strict=True))
    silent = numbers.silence(0, 10.0)
    assert curve[11] < silent < curve[13]
    relative = [
        numbers.distance(5, 0, tau, False).loss / numbers.distance(60, 0, tau, False).loss for tau in (5, 10, 40)
    ]
    assert relative[0] > 2 * relative[1] > 4 * relative[2]


def test_jitter_and_the_missing_spike():
    assert numbers.output(0, 0).sum() == 5
    assert numbers.output(0, 0, missing=True).sum() == 4
    moved = np.flatnonzero(numbers.output(0, 12)) - np.array(numbers.TARGET)
    assert np.abs(moved).max() == 12
    assert len(set(moved)) == 5


# The three factors.


def test_by_hand():
    case = numbers.by_hand()
    np.testing.assert_allclose(case.p, [1, 1.5, 0.75, 1.375, 0.6875, 0.34375])
    np.testing.assert_allclose(case.q, [1, 2, 1.75, 2.25, 1.8125, 1.25])
    np.testing.assert_allclose(case.U, [0.8, 1.6, 0.4, 1.3, 0.2, 0.375], atol=1e-12)
    np.testing.assert_allclose(case.raw, [0.8, 0.8, 0.7, 1.575, 0.3625, 0.46875], atol=1e-12)
    np.testing.assert_allclose(case.e, [0, 0, 1, -0.25, 0.6875, 0.546875], atol=1e-12)
    np.testing.assert_allclose(case.eligibility[:4], [0, 0.8, 1.4, 1.65], atol=1e-12)
    assert case.product.sum() == pytest.approx(3.968017578125)


def test_watched_synapse_is_what_autograd_finds():
    case = numbers.synapse(0.04, 0.1, 10.0, 5.0, 10.0)
    w = torch.tensor(0.04, dtype=torch.float64, requires_grad=True)
    x, rest = torch.tensor(case.x), torch.tensor(numbers.background())
    neuron = cuba_lif(tau_mem=10e-3, tau_syn=5e-3)
    gradients = {}
    for reset in (Reset.DETACHED, Reset.KEPT):
        trace = Unrolled(reset).run(neuron, FastSigmoid(0.1), (w * x + 0.04 * rest).view(-1, 1, 1))
        value = losses.van_rossum()(trace.s, sequence(case.target))
        gradients[reset] = torch.autograd.grad(value, w)[0].item()
    np.testing.assert_array_equal(trace.s.detach().flatten().numpy(), case.s)
    assert 4 <= case.s.sum() <= 12
    assert case.product.sum() == pytest.approx(gradients[Reset.DETACHED], rel=1e-10)
    assert case.product.sum() != pytest.approx(gradients[Reset.KEPT], rel=0.05)


def test_what_the_notebook_says_of_the_synapse():
    silent = numbers.synapse(0.0, 0.1, 10.0, 5.0, 10.0)
    assert silent.s.sum() == 0
    assert silent.eligibility.max() > 0.01
    assert silent.product.sum() < 0
    narrow, wide = (numbers.synapse(0.04, width, 10.0, 5.0, 10.0) for width in (0.02, 2.0))
    np.testing.assert_array_equal(narrow.e, wide.e)
    assert narrow.product.sum() > 0
    assert wide.product.sum() > narrow.product.sum()


# The quick training against the library's.


@pytest.fixture(scope="module")
def small():
    x, draw = lesson.frozen_noise(4, inputs=30, rate=20.0)
    return x, lesson.weights(2, 30, draw, scale=0.15), lesson.written()[:, :2]


def one_plain_step(x, W, target, **settings):
    """The gradient that `fit` used, read off from its update."""
    return W - lesson.fit(x, W[None], target, epochs=1, r0=1.0, gamma=None, **settings).W[0]


@pytest.mark.parametrize(
    ("kept", "method"),
    [(False, Eligibility()), (False, Unrolled(Reset.DETACHED)), (True, Unrolled(Reset.KEPT))],
    ids=["eligibility", "detached", "kept"],
)
def test_gradient_of_fit_is_the_library_s(small, kept, method):
    x, W, target = small
    value, (g,) = library(method, [W], x, target)
    found = lesson.fit(x, W[None], target, epochs=1)
    assert found.losses[0, 0] == pytest.approx(value, rel=1e-12)
    assert 0.01 < found.spikes.mean() < 0.4
    np.testing.assert_allclose(one_plain_step(x, W, target, width=0.3, reset_kept=kept), g, rtol=1e-8, atol=1e-8)
    other = one_plain_step(x, W, target, width=0.3, reset_kept=not kept)
    assert np.linalg.norm(other - g) > 0.1 * np.linalg.norm(g)


def test_fit_by_rmaxprop_is_the_library_s_training(small):
    x, W, target = small
    net, rule = network(W), Rule(FastSigmoid(width=0.3), Eligibility())
    optimizer = RMaxProp(net.parameters(), lr=3e-3, gamma=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        rule.backward(net, sequence(x), sequence(target), losses.van_rossum())
        optimizer.step()
    found = lesson.fit(x, W[None], target, epochs=3, width=0.3, r0=3e-3, gamma=0.9)
    np.testing.assert_allclose(found.W[0], net.layers[0].synapse.weight.detach().numpy(), rtol=1e-9)
    plain = lesson.fit(x, W[None], target, epochs=3, width=0.3, r0=1e-5, gamma=None)
    assert np.abs(plain.W - found.W).max() > 1e-4


def test_runs_side_by_side_do_not_touch_each_other(small):
    x, W, target = small
    both = lesson.fit(np.stack([x, x[::-1]]), np.stack([W, 2 * W]), target, epochs=4, width=(0.1, 0.7), r0=(1e-3, 5e-3))
    for i, (noise, start, width, r0) in enumerate(((x, W, 0.1, 1e-3), (x[::-1], 2 * W, 0.7, 5e-3))):
        alone = lesson.fit(noise, start[None], target, epochs=4, width=width, r0=r0)
        np.testing.assert_allclose(both.W[i], alone.W[0], rtol=1e-10)
        np.testing.assert_array_equal(both.spikes[:, i], alone.spikes[:, 0])


def test_hidden_fit_is_the_library_s_eligibility():
    x, draw = lesson.frozen_noise(2)
    W1, W2 = lesson.weights(20, 100, draw, scale=0.1), lesson.weights(1, 20, draw, scale=0.15)
    target = lesson.five_spikes()
    found = lesson.fit_hidden(x, W1, W2, target, epochs=2, width=0.3, r0=1e-3, gamma=0.0)
    value, grads = library(Eligibility(), [W1, W2], x, target)
    assert found.losses[0] == pytest.approx(value, rel=1e-12)
    assert found.hidden.mean() > 0.005
    for before, after, g in ((W1, found.W1[1], grads[0]), (W2, found.W2[1], grads[1])):
        # with gamma = 0 every weight moves by r0 against the sign of its gradient: RMaxProp hides the size
        moved = np.abs(g) > 1e-6 * np.abs(g).max()
        np.testing.assert_allclose((before - after)[moved], 1e-3 * np.sign(g)[moved], rtol=1e-6)
    only = lesson.fit_hidden(x, W1, W2, target, epochs=3, both=False)
    np.testing.assert_array_equal(only.W1[-1], W1)
    assert np.abs(only.W2[-1] - W2).max() > 1e-3


def test_learning_reaches_the_target():
    x, draw = lesson.frozen_noise(0)
    W = lesson.weights(1, 100, draw)
    found = lesson.fit(x, W[None], lesson.five_spikes(), epochs=120)
    assert found.losses[0, 0] > 25
    assert found.losses[-30:].min() < 2
    still = lesson.fit(x, W[None], lesson.five_spikes(), epochs=3, r0=1e-9)
    assert still.losses[-1, 0] > 25


def test_written_target():
    target = lesson.written()
    assert target.shape == (training.STEPS, 7)
    assert target.sum() == 51
    assert target[:, 6].sum() == 3 + 2 + 2  # the top row: three dots of the S, two of each N
    assert all(np.diff(np.flatnonzero(column)).min() >= 16 for column in target.T)


def test_sweeps_keep_settings_and_seeds_apart():
    sweep = lesson.by_width((0.1, 1.0), seeds=2, epochs=12)
    assert sweep.losses.shape == (12, 2, 2)
    for i, width in enumerate((0.1, 1.0)):
        for seed in range(2):
            x, draw = lesson.frozen_noise(seed)
            alone = lesson.fit(x, lesson.weights(1, 100, draw)[None], lesson.five_spikes(), epochs=12, width=width)
            np.testing.assert_allclose(sweep.losses[:, i, seed], alone.losses[:, 0], rtol=1e-9)
    np.testing.assert_allclose(sweep.final, sweep.losses[-1:].mean(0))
    rates = lesson.by_rate((1e-12, 3e-5), None, width=0.3, seeds=2, epochs=8)
    np.testing.assert_array_equal(rates.losses[7, 0], rates.losses[0, 0])
    assert (rates.losses[7, 1] != rates.losses[0, 1]).all()


# The panels.


@pytest.fixture(scope="module")
def fits():
    x, draw = lesson.frozen_noise(0)
    one = lesson.fit(x, lesson.weights(1, 100, draw)[None], lesson.five_spikes(), epochs=40)
    layer = lesson.fit(x, lesson.weights(7, 100, draw)[None], lesson.written(), epochs=20)
    return one, layer, lesson.by_width((0.02, 0.1, 1.0), seeds=2, epochs=12)


@pytest.fixture(params=["distance", "hand", "factors", "neuron", "layer", "width"])
def panel(request, fits):
    made = {
        "distance": lesson.distance_panel,
        "hand": lesson.hand_panel,
        "factors": lesson.factors_panel,
        "neuron": lambda: lesson.neuron_panel(fits[0]),
        "layer": lambda: lesson.layer_panel(fits[1]),
        "width": lambda: lesson.width_panel(fits[2]),
    }
    return made[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_play_shows_only_what_has_happened():
    panel = lesson.hand_panel()
    panel.set(step=1)
    assert sum(text.get_visible() and text.get_text() == "1.575" for text in panel.axes[0].texts) == 0
    panel.set(step=3)
    assert sum(text.get_visible() and text.get_text() == "1.575" for text in panel.axes[0].texts) == 1
    panel = lesson.factors_panel()
    panel.set(step=30)
    assert max(len(line.get_xdata()) for line in panel.axes[2].lines) == 31


def test_neuron_panel_shows_the_epoch(fits):
    panel = lesson.neuron_panel(fits[0])
    panel.set(epoch=7)
    assert any(f"distance {fits[0].losses[7, 0]:.2f}" in text.get_text() for text in panel.axes[2].texts)


def test_rates_are_drawn_with_their_medians(fits):
    ax = Figure().subplots()
    lesson.draw_rates(ax, {"some": fits[2]}, chance=30.0)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(fits[2].final, 1).clip(0.1))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["some", "silence"]


# The exercises.

EXERCISES = {
    "trace": lesson.trace_exercise,
    "eligibility": lesson.eligibility_exercise,
    "rmaxprop": lesson.rmaxprop_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def trace(eps, d):
    return lesson.trace_exercise.solution(eps, d, 0 * d)


def rows(p, q, x, f, a, b):
    return a * p + x, f[:, None]


SLIPS = {
    "trace": {
        "sign is turned": lambda eps, s, target: trace(eps, target - s),
        "spikes alone": lambda eps, s, target: s - target,
        "Only the output": lambda eps, s, target: trace(eps, s) - target,
        "target is missing": lambda eps, s, target: trace(eps, s),
        "into the future": lambda eps, s, target: trace(eps, (s - target).flip(0)).flip(0),
    },
    "eligibility": {
        "slope is missing": lambda p, q, x, f, a, b: (b * q + a * p + x).expand(len(f), -1),
        "the trace of the current": lambda p, q, x, f, a, b: f[:, None] * (a * p + x),
        "not of the last one": lambda p, q, x, f, a, b: f[:, None] * (b * q + p),
        "not the spike itself": lambda p, q, x, f, a, b: f[:, None] * (b * q + x),
        "other way round": lambda p, q, x, f, a, b: f[:, None] * (a * q + b * p + x),
        "traces decay": lambda p, q, x, f, a, b: f[:, None] * (q + p + x),
    },
    "rmaxprop": {
        "RMSprop": lambda g, v, r, c: (u := c * v + (1 - c) * g**2, r * g / u.sqrt()),
        "update v first": lambda g, v, r, c: (torch.maximum(c * v, g**2), r * g / v.sqrt()),
        "square root": lambda g, v, r, c: (u := torch.maximum(c * v, g**2), r * g / u),
        "The sign": lambda g, v, r, c: (u := torch.maximum(c * v, g**2), -r * g / u.sqrt()),
        "has to forget": lambda g, v, r, c: (u := torch.maximum(v, g**2), r * g / u.sqrt()),
        "rate alone": lambda g, v, r, c: (u := torch.maximum(c * v, g**2), r / u.sqrt()),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_are_the_library_s():
    eps, s, target = (torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3))
    two = Exponentials((0.8, 0.3), (1.5, -1.5))
    kernel = torch.tensor(numbers.kernel(two, 12))
    torch.testing.assert_close(lesson.trace_exercise.solution(kernel, s, target), filtered(two, s - target))
    p = nn.Parameter(torch.zeros(12, dtype=torch.float64))
    optimizer = RMaxProp([p], lr=0.01, gamma=0.9)
    v = torch.zeros(12, dtype=torch.float64)
    for g in (eps - 0.5, 0.1 * (s - 0.5)):
        before = p.detach().clone()
        p.grad = g
        optimizer.step()
        v, change = lesson.rmaxprop_exercise.solution(g, v, 0.01, 0.9)
        torch.testing.assert_close(before - p.detach(), change)
    assert math.isclose(v.max().item(), 0.9 * (eps - 0.5).square().max().item(), rel_tol=1e-12)
