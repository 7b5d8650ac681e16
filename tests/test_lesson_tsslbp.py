"""Tutorial 07: credit through firing times against golden vectors, closed forms and the library; panels, exercises."""

import math

import numpy as np
import pytest
import torch
from golden import Golden
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_show, check_slip
from torch import nn

from snnlearn import Layer, Network, Neuron, Rule, Sigmoid, Threshold, Unrolled, to_zero
from snnlearn.filters import Exponentials
from snnlearn.lessons import tsslbp as lesson
from snnlearn.lessons import tsslbp_numbers as numbers
from snnlearn.losses import van_rossum
from snnlearn.temporal import TSSLBP

TAU_M, TAU_S = 5.0, 3.0
NO_LIMIT = numbers.CODE._replace(largest=math.inf)


def example(seed=0, steps=30, tau_m=TAU_M):
    """A neuron that fires, and errors of its current."""
    draw = np.random.default_rng(seed)
    run = numbers.forward(0.4 + 0.3 * draw.standard_normal(steps), tau_m)
    assert 4 <= run.s.sum() <= 0.6 * steps
    return run, draw.standard_normal(steps)


# The numbers.


GOLDEN = {
    "": numbers.CODE,
    "_noclamp_numpy": NO_LIMIT,
    "_nofallback_numpy": numbers.CODE._replace(fallback=False),
    "_nointra_numpy": numbers.CODE._replace(intra=False),
    "_plain_numpy": NO_LIMIT._replace(fallback=False),
}


@pytest.fixture(scope="module")
def authors():
    return Golden("05_tsslbp_fn")


@pytest.mark.parametrize("variant", GOLDEN)
def test_credit_is_that_of_the_authors_code(authors, variant):
    wanted = authors[f"grad_I{variant}"].numpy()
    tau_m, tau_s = authors["tau_m"], authors["tau_s"]
    for b, i in np.ndindex(wanted.shape[:2]):
        run = numbers.forward(authors["I"][b, i].numpy(), tau_m, authors["threshold"])
        np.testing.assert_array_equal(run.s, authors["spikes"][b, i].numpy())
        np.testing.assert_allclose(numbers.currents(run.s, tau_s), authors["psc"][b, i].numpy(), atol=1e-12)
        got = numbers.credit(run, authors["cotangent"][b, i].numpy(), tau_m, tau_s, GOLDEN[variant])
        np.testing.assert_allclose(got, wanted[b, i], atol=1e-9 * np.abs(wanted).max())


def test_every_heuristic_changes_the_credit():
    run, g = example()
    full = numbers.credit(run, g, TAU_M, TAU_S)
    for change in ({"largest": 1.0}, {"fallback": False}, {"intra": False}, {"leak": False}):
        other = numbers.credit(run, g, TAU_M, TAU_S, numbers.CODE._replace(**change))
        assert np.abs(other - full).max() > 1e-3, change


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("intra", [True, False])
def test_sum_over_pairs_is_the_recursion(leak, intra):
    run, g = example(1)
    which = numbers.EQUATIONS._replace(leak=leak, intra=intra)
    phi = numbers.pairs(run, TAU_M, TAU_S, which)
    assert not np.triu(phi, 1).any()  # the past does not depend on the future
    by_pairs = phi.T @ g
    assert np.abs(by_pairs).max() > 0.1
    np.testing.assert_allclose(numbers.credit(run, g, TAU_M, TAU_S, which), by_pairs, atol=1e-12)
    wrong = numbers.pairs(run, TAU_M, TAU_S, which._replace(intra=not intra)).T @ g
    assert np.abs(wrong - by_pairs).max() > 1e-3


def library(I, target, method):
    """dL/dI by the library, for currents straight into one neuron."""
    wire = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(wire.weight)
    neuron = Neuron(0.0, 1 - 1 / TAU_M, 1.0, to_zero, Threshold(strict=True))
    x = torch.from_numpy(I).reshape(-1, 1, 1).requires_grad_()
    loss = van_rossum(Exponentials.postsynaptic(TAU_S))
    rule = Rule(Sigmoid.from_steepness(5.0), method)
    rule.objective(Network(Layer(wire, neuron)), x, torch.from_numpy(target).reshape(-1, 1, 1), loss).backward()
    return x.grad.flatten().numpy()


LIBRARY = {
    "code": (numbers.CODE, TSSLBP.authors_code(TAU_S)),
    "equations": (numbers.EQUATIONS, TSSLBP(largest=1e9, leak=False, fallback=None)),
    "no leak": (numbers.CODE._replace(leak=False), TSSLBP(leak=False, tau_s=TAU_S)),
    "no intra": (numbers.CODE._replace(intra=False), TSSLBP(intra=False, tau_s=TAU_S)),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_credit_is_that_of_the_library(name):
    which, method = LIBRARY[name]
    draw = np.random.default_rng(2)
    I, target = 0.4 + 0.3 * draw.standard_normal(30), (draw.random(30) < 0.3).astype(float)
    run = numbers.forward(I, TAU_M)
    g = numbers.currents(run.s, TAU_S) - numbers.currents(target, TAU_S)
    got = library(I, target, method)
    assert np.abs(got).max() > 0.1
    np.testing.assert_allclose(numbers.credit(run, g, TAU_M, TAU_S, which), got, atol=1e-12)


def test_surrogate_credit_is_bptt():
    draw = np.random.default_rng(2)
    I, target = 0.4 + 0.3 * draw.standard_normal(30), (draw.random(30) < 0.3).astype(float)
    run = numbers.forward(I, TAU_M)
    g = numbers.currents(run.s, TAU_S) - numbers.currents(target, TAU_S)
    np.testing.assert_allclose(
        numbers.surrogate_credit(run, g, TAU_M, TAU_S), library(I, target, Unrolled()), atol=1e-12
    )


def test_errors_are_the_derivative_of_the_loss_by_the_spikes():
    run, g = example()
    bump = np.eye(30)[12]
    slope = (numbers.currents(run.s + bump, TAU_S) - numbers.currents(run.s, TAU_S)) @ g
    np.testing.assert_allclose(numbers.errors(g, TAU_S)[12], slope, rtol=1e-10)


def test_a_silent_neuron_gets_credit_from_the_fallback_alone():
    run = numbers.forward(np.full(20, 0.1), TAU_M)
    assert not run.s.any()
    for name in ("limit", "fallback", "intra", "leak"):
        change = {"largest": math.inf} if name == "limit" else {name: False}
        found = numbers.credit(run, -np.ones(20), TAU_M, TAU_S, numbers.CODE._replace(**change))
        assert found.any() == lesson.silent_exercise.solution(name)


# A spike that moves.


def test_crossing_by_hand():
    assert numbers.crossing(np.array([0.2, 0.8, 1.2])) == (2, pytest.approx(1.5))
    assert numbers.crossing(np.array([2.0])) == (0, pytest.approx(-0.5))
    assert numbers.crossing(np.array([0.2, 1.0])) == (None, math.inf)  # strict


def test_a_small_nudge_moves_the_spike_by_one_over_the_rise():
    found = numbers.shift(2.4, 1e-6, 4.0)
    moved = found.times[0] - found.times[1]
    assert moved / 1e-6 == pytest.approx(1 / found.rise, rel=1e-5)


def test_a_shifted_current_keeps_its_area_and_the_printed_equation_is_what_it_loses_behind_the_front():
    found = numbers.shift(2.4, 1e-5, 2.0)
    assert abs(found.exact.sum()) < 1e-4 * np.abs(found.exact).sum()
    front = int(np.argmax(found.exact))
    assert (found.exact[front + 1 :] < 0).all()
    assert (found.code[found.step :] > 0).all()
    # far behind the front the average over a step is the value in its middle, but for the kernel's curvature
    tail = slice(found.step + 1, found.step + 8)
    ahead = 0.5 ** (found.step - found.times[0])  # the printed kernel starts at the step, the current at the crossing
    curved = math.sinh(math.log(2) / 2) / (math.log(2) / 2)
    np.testing.assert_allclose(found.exact[tail], found.printed[tail] * ahead * curved, rtol=1e-3)


@pytest.mark.parametrize("late", [-4.0, -1.0, 0.5, 3.0])
def test_what_happens_to_the_loss_is_its_finite_difference(late):
    t = np.arange(-10, 80, 1e-3)
    tau_s, rise = 4.0, 0.2

    def psc(fired):
        return np.where(t >= fired - 1e-9, np.exp(-(t - fired) / tau_s) / tau_s, 0.0)

    def loss(fired):
        return 0.5 * np.sum((psc(fired) - psc(0.0)) ** 2) * 1e-3

    by_time = (loss(late + 0.01) - loss(late - 0.01)) / 0.02
    exact, printed, code = numbers.pushes(late, tau_s, rise)
    assert exact == pytest.approx(-by_time / rise, rel=5e-3)
    assert printed == pytest.approx(-code / tau_s)
    e = np.sum(psc(late) * (psc(late) - psc(0.0))) * 1e-3
    assert code == pytest.approx(e / rise, rel=5e-3)
    assert (np.sign(exact) == np.sign(printed)) == (late > 0)
    assert (np.sign(exact) == np.sign(code)) == (late < 0)


@pytest.mark.parametrize("top", [1.05, 1.5, 3.0])
def test_the_next_spike_by_the_reset_alone(top):
    P, tau_m = numbers.period(top, 8.0), 8.0
    assert numbers.charged(P, top, tau_m) == pytest.approx(1.0)
    h = 1e-5
    reset = (-math.exp(-(P - h) / tau_m) + math.exp(-(P + h) / tau_m)) / (2 * h)  # dnu/dt_m, theta = 1
    rise = (numbers.charged(P + h, top, tau_m) - numbers.charged(P - h, top, tau_m)) / (2 * h)
    assert numbers.reset_share(top, tau_m) == pytest.approx(-reset / rise, rel=1e-6)
    assert numbers.reset_share(top, tau_m) == pytest.approx(1 / top)
    assert numbers.period(0.9, 8.0) == math.inf


# The referee.


def test_losses_of_a_layer_are_those_of_its_neurons():
    draw = np.random.default_rng(5)
    W, a_in, wanted = draw.standard_normal((4, 6)), draw.random((20, 6)), draw.random(20)
    got = numbers.layer_losses(W, a_in, wanted, TAU_M, TAU_S)
    for w, loss in zip(W, got, strict=True):
        a = numbers.currents(numbers.forward(a_in @ w, TAU_M).s, TAU_S)
        assert loss == pytest.approx(0.5 * np.sum((a - wanted) ** 2))
    assert np.ptp(got) > 0.01


def test_smoothed_gradient_of_one_weight_against_quadrature():
    a_in, wanted = np.full((12, 1), 0.5), numbers.currents(np.arange(12) % 3 == 1, TAU_S)
    grid = np.linspace(-1, 3, 40001)[:, None]
    losses = numbers.layer_losses(grid, a_in, wanted, TAU_M, TAU_S)

    def smoothed(w):
        weight = np.exp(-0.5 * ((grid[:, 0] - w) / 0.1) ** 2)
        return losses @ weight / weight.sum()

    wanted_slope = (smoothed(0.61) - smoothed(0.59)) / 0.02
    got = numbers.smoothed_gradient(np.array([0.6]), a_in, wanted, TAU_M, TAU_S, noise=0.1, draws=100_000)
    assert abs(wanted_slope) > 0.1
    np.testing.assert_allclose(got, wanted_slope, rtol=0.01)


def test_likeness():
    a = np.array([3.0, 4.0])
    assert numbers.likeness(a, 2 * a) == pytest.approx((1.0, 0.5))
    assert numbers.likeness(a, np.array([4.0, -3.0]))[0] == pytest.approx(0)
    assert numbers.likeness(a, 0 * a) == (0.0, 0.0)
    assert numbers.mean_likeness([a, a], [a, -a]) == pytest.approx((0.0, 1.0))


def test_what_the_notebook_says_of_the_panel():
    on = numbers.CODE
    silent = numbers.trial(0.1, 3.0, on._replace(fallback=False))
    assert not silent.run.s.any()
    assert not silent.chosen.any()
    assert silent.code.any()
    off = numbers.trial(0.28, 3.0, on._replace(fallback=False))
    last = np.flatnonzero(off.run.s).max()
    assert not off.chosen[last + 1 :].any()
    assert off.code[last + 1 :].any()
    strong = [numbers.trial(0.6, 3.0, on._replace(fallback=False, **c)).chosen for c in ({}, {"leak": False})]
    fired = numbers.trial(0.6, 3.0, on).run.s > 0
    assert strong[0][~fired].any()
    assert not strong[1][~fired].any()
    no_intra = numbers.trial(0.6, 3.0, on._replace(fallback=False, intra=False)).chosen
    assert np.linalg.norm(no_intra) < 0.8 * np.linalg.norm(strong[0])
    slow = numbers.trial(0.28, 3.0, on).run
    assert np.median(1 / slow.rise[slow.s > 0]) > 1


# The panels.

PANELS = {"shift": lesson.shift_panel, "trial": lesson.trial_panel}


@pytest.fixture(params=PANELS)
def panel(request):
    return PANELS[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel, alike={"largest": (16.0, math.inf)})  # no 1/u' is larger than 8 there


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_the_panel_says_so_where_there_is_no_spike():
    panel = lesson.shift_panel()
    panel.set(w=1.4)
    assert "no crossing" in " ".join(text.get_text() for text in panel.axes[0].texts)
    assert not any(bar.get_height() for bar in panel.axes[2].patches)
    panel = lesson.trial_panel()
    panel.set(drive=0.1, fallback=False)
    assert "no credit at all" in [text.get_text() for text in panel.axes[2].texts]


def test_still_pictures():
    pushes, spikes = Figure().subplots(1, 2)
    lesson.draw_pushes(pushes, 4.0, 0.2)
    (early, late) = (line.get_ydata() for line in pushes.lines[2:4])
    assert min(early) > 0 > max(late)
    lesson.draw_next_spike(spikes, 1.5, 8.0, 1.0)
    ticks = [line.get_xdata()[0] for line in spikes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[1] > 1]
    np.testing.assert_allclose(np.subtract(ticks[:3], ticks[3:]), 1.0)


def test_show_displays_with_a_text_alternative_and_closes(monkeypatch):
    check_show(lesson.show, monkeypatch)


# The exercises.

EXERCISES = {"slope": lesson.slope_exercise, "carry": lesson.carry_exercise, "silent": lesson.silent_exercise}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def rise_of(U, s):
    return U - torch.cat([torch.zeros(1), (U * (1 - s))[:-1]])


SLIPS = {
    "slope": {
        "The sign": lambda U, s, m: -lesson.slope_exercise.solution(U, s, m),
        "limit is missing": lambda U, s, m: s / rise_of(U, s),
        "without a spike": lambda U, s, m: (1 / rise_of(U, s)).clamp(0, m),
        "after the reset": lambda U, s, m: s * (1 / torch.diff(U, prepend=torch.zeros(1))).clamp(0, m),
        "u' itself": lambda U, s, m: s * rise_of(U, s).clamp(max=m),
    },
    "carry": {
        "cuts the leak": lambda U, s, f, tau: 1 - 1 / tau + f * U / tau,
        "firing time is missing": lambda U, s, f, tau: (1 - 1 / tau) * (1 - s),
        "leaks with beta": lambda U, s, f, tau: f * U / tau,
        "U, not 1": lambda U, s, f, tau: (1 - 1 / tau) * (1 - s) + f / tau,
        "factor 1/tau_m": lambda U, s, f, tau: (1 - 1 / tau) * (1 - s) + f * U,
        "The sign": lambda U, s, f, tau: (1 - 1 / tau) * (1 - s) - f * U / tau,
        "carry of BPTT": lambda U, s, f, tau: (1 - 1 / tau) * (1 - s - U * f),
    },
    "silent": {
        "No spike, no firing time": lambda without: True,
        "no later spike": lambda without: without not in ("fallback", "leak"),
        "joins two spikes": lambda without: without not in ("fallback", "intra"),
        "0 already": lambda without: without not in ("fallback", "limit"),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_are_the_numbers():
    run, _ = example()
    U, s, _ = (torch.from_numpy(v) for v in (run.U, run.s, run.rise))
    f = lesson.slope_exercise.solution(U, s, 8.0)
    np.testing.assert_allclose(f, numbers.slope(run, 8.0))
    np.testing.assert_allclose(lesson.carry_exercise.solution(U, s, f, TAU_M), numbers.carry(run, f.numpy(), TAU_M))
