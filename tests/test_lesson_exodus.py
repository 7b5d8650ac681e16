"""Tutorial 06: the theorem and Eqs. 9 to 19 against solves, autograd and finite differences; panels; exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip

from snnlearn import LIF, Neuron, Unrolled, recipes
from snnlearn.lessons import exodus as lesson
from snnlearn.lessons import exodus_exercises as exercises
from snnlearn.lessons import exodus_numbers as numbers
from snnlearn.lessons import exodus_training as experiment
from snnlearn.surrogate import Exponential
from snnlearn.temporal import Adjoint, Reset

PAPER, CODE, TO_ZERO = numbers.UPDATES


def slopes(count=12, seed=0):
    return np.random.default_rng(seed).uniform(0, 1.5, count)


# Two variables.


@pytest.mark.parametrize(("s", "v"), [(0.5, 2), (0.2, 9), (0.9, -1.5), (0.5, -6)])
def test_theorem_is_the_slope_of_the_curve(s, v):
    h = 1e-6
    dz = numbers.loop_input(s + h, v) - numbers.loop_input(s - h, v)
    assert math.isclose(numbers.loop_slope(s, v), 2 * h / dz, rel_tol=1e-7)


def test_theorem_by_hand_and_where_it_fails():
    assert math.isclose(numbers.loop_slope(0.5, 2), 1 / 6)
    assert numbers.loop_slope(0.5, -4) == math.inf
    assert numbers.loop_slope(0.5, -6) == -0.5


def test_rounds_converge_to_the_theorem_only_where_the_series_does():
    assert math.isclose(numbers.rounds(0.25, 2, 60)[-1], 1 / 6)
    np.testing.assert_allclose(numbers.rounds(0.25, 8, 3), [0.25, -0.25, 0.75, -1.25])


# The layer.


def test_sigma_by_hand():
    wanted = [[0.8, 0, 0], [-0.32, 0.4, 0], [-0.048, -0.24, 0.6]]
    np.testing.assert_allclose(numbers.sigma([0.8, 0.4, 0.6], [-1, -0.5]), wanted, atol=1e-12)


@pytest.mark.parametrize("kernel", [-(0.8 ** np.arange(12)), np.random.default_rng(5).normal(size=12)])
def test_forward_substitution_solves_the_equation(kernel):
    f = slopes()
    F, N = np.diag(f), numbers.toeplitz(kernel, 12, lag=1)
    np.testing.assert_allclose(numbers.sigma(f, kernel), np.linalg.solve(np.eye(12) - F @ N, F), atol=1e-11)
    wrong = numbers.toeplitz(kernel, 12, lag=2)
    assert not np.allclose(numbers.sigma(f, kernel), np.linalg.solve(np.eye(12) - F @ wrong, F), atol=1e-3)


@pytest.mark.parametrize(("beta", "theta"), [(0.9, 1.0), (1.0, 0.7), (0.5, 1.6)])
def test_lif_equations_agree_with_the_solve(beta, theta):
    f, e = slopes(), np.random.default_rng(1).normal(size=12)
    sigma = numbers.sigma(f, -theta * beta ** np.arange(12))
    np.testing.assert_allclose(numbers.sigma_lif(f, beta, theta), sigma, atol=1e-12)  # Eqs. 16, 17
    d = e @ sigma @ numbers.toeplitz(beta ** np.arange(12), 12)  # Eq. 14
    np.testing.assert_allclose(numbers.by_sum(e, f, beta, theta), d, atol=1e-12)  # Eqs. 18, 19
    np.testing.assert_allclose(numbers.by_recursion(e, f, beta - theta * f), d, atol=1e-12)
    slayer = e @ np.diag(f) @ numbers.toeplitz(beta ** np.arange(12), 12)
    np.testing.assert_allclose(numbers.by_recursion(e, f, np.full(12, beta)), slayer, atol=1e-12)
    assert not np.allclose(slayer, d, atol=1e-2)


def test_equations_hold_for_the_authors_code_with_theta_times_beta():
    f, beta, theta = slopes(), 0.8, 1.3
    sigma = numbers.sigma(f, -theta * beta ** np.arange(1, 13))
    np.testing.assert_allclose(numbers.sigma_lif(f, beta, beta * theta), sigma, atol=1e-12)
    assert not np.allclose(numbers.sigma_lif(f, beta, theta), sigma, atol=1e-2)


@pytest.mark.parametrize("seen", Reset)
@pytest.mark.parametrize("update", numbers.UPDATES)
@pytest.mark.parametrize("theta", [1.0, 0.7])
def test_carries_are_what_autograd_does(seen, update, theta):
    draw = torch.Generator().manual_seed(1)
    a = (0.5 * torch.rand(50, 1, 1, generator=draw, dtype=torch.float64)).requires_grad_()
    e = torch.randn(50, dtype=torch.float64, generator=draw)
    surrogate, beta = Exponential(0.3), 0.9
    trace = Unrolled(seen).run(Neuron(0.0, beta, theta, numbers.UPDATES[update]), surrogate, a)
    (trace.s.flatten() * e).sum().backward()

    run = numbers.forward(a.detach().flatten(), beta, theta, numbers.UPDATES[update])
    np.testing.assert_array_equal(run.s, trace.s.detach().flatten())
    assert 5 < run.s.sum() < 25
    f = surrogate.slope(torch.from_numpy(run.U - theta)).numpy()
    c = numbers.carries(run.U, run.s, f, beta, theta, numbers.UPDATES[update], seen)
    np.testing.assert_allclose(numbers.by_recursion(e, f, c), a.grad.flatten(), rtol=1e-10, atol=1e-12)
    through_z = e.numpy() @ numbers.jacobian(f, c, beta) @ numbers.toeplitz(beta ** np.arange(50), 50)
    np.testing.assert_allclose(through_z, a.grad.flatten(), rtol=1e-9, atol=1e-11)


def test_jacobian_is_eq_16_and_diagonal_for_slayer():
    f = slopes()
    np.testing.assert_allclose(numbers.jacobian(f, 0.9 - 1.2 * f, 0.9), numbers.sigma_lif(f, 0.9, 1.2), atol=1e-12)
    np.testing.assert_allclose(numbers.jacobian(f, np.full(12, 0.9), 0.9), np.diag(f), atol=1e-12)


def test_carries_refuse_a_reset_they_do_not_know():
    run = numbers.forward([1.0], 1.0)
    with pytest.raises(ValueError, match="subtract θ"):
        numbers.carries(run.U, run.s, run.U, 1.0, 1.0, lambda U, s, I, beta, theta: U, Reset.KEPT)


# What the notebook says.


def dial(seen=Reset.KEPT, update=PAPER, tau=math.inf, width=0.2, peak=1.0, steps=60, error="count"):
    return numbers.dial(seen, update, tau, width, peak, steps, error)


def test_the_dial():
    found = dial()
    assert 0.1 < found.run.s.mean() < 0.4
    assert found.d[Reset.KEPT][:50] == pytest.approx(1, abs=0.05)
    assert found.d[Reset.IGNORED][0] == pytest.approx(25, abs=1)
    np.testing.assert_array_equal(found.d[Reset.DETACHED], found.d[Reset.IGNORED])
    assert dial(steps=30).d[Reset.IGNORED][0] == pytest.approx(found.d[Reset.IGNORED][0] / 2, rel=0.15)
    leaky = [dial(tau=5.0, steps=n).d[Reset.IGNORED][0] for n in (50, 100)]
    assert leaky[0] == pytest.approx(leaky[1], rel=1e-3)
    at_start = [dial(width=w, peak=p).d[Reset.KEPT][0] for w in (0.1, 1.0) for p in (0.3, 1.0, 2.0)]
    assert min(at_start) > 0.99
    assert max(at_start) < 1.005
    zero = dial(update=TO_ZERO)
    assert not np.allclose(zero.d[Reset.DETACHED], zero.d[Reset.IGNORED], rtol=0.5)
    assert abs(dial(peak=5.0, error="end").d[Reset.KEPT][0]) < 1e-3
    assert abs(dial(peak=5.0, width=1.0, error="end").d[Reset.KEPT][0]) > 1e28


def test_exodus_predicts_the_number_of_spikes_and_slayer_does_not():
    measured = numbers.count_slope(1.0)
    assert measured == pytest.approx(100, rel=0.03)  # T / theta
    for peak in (0.5, 1.0, 2.0):
        d = dial(peak=peak, steps=100).d
        assert d[Reset.KEPT].sum() == pytest.approx(measured, rel=0.05)
        assert d[Reset.IGNORED].sum() > 10 * measured


def test_deep_network_fires_in_every_layer():
    for tau in numbers.LEAKS.values():
        assert numbers.deep_network(tau).rates == pytest.approx([0.15] * 6, abs=0.01)


@pytest.mark.parametrize("kept", [True, False])
def test_norms_are_those_of_autograd(kept):
    net, steps = numbers.deep_network(20.0), 40
    at = int(np.abs(numbers.PEAKS - 1).argmin())
    surrogate, e = Exponential(0.35, numbers.PEAKS[at]), torch.from_numpy(net.error[:steps])
    sizes = []
    for i in reversed(range(6)):
        # the membranes are given, so a neuron of the same slope: dL/da by the library's adjoint
        U = torch.from_numpy(net.U[i][:steps])[:, None]
        fired = torch.cat([torch.zeros_like(U[:1]), (U[:-1] >= 1).double()])
        before = torch.cat([torch.zeros_like(U[:1]), U[:-1]])
        a = (U - net.beta * before + fired).requires_grad_()
        method = Adjoint(Reset.KEPT if kept else Reset.IGNORED)
        LIF(Neuron(beta=net.beta), surrogate=surrogate, temporal=method)(a).backward(e[:, None])
        sizes.append(a.grad.norm() / np.linalg.norm(net.error[:steps]))
        e = a.grad[:, 0] @ torch.from_numpy(net.W[i - 1]) if i else e
    found = numbers.norms(20.0, 0.35, steps, kept).layers[at]
    np.testing.assert_allclose(10**found, [size.item() for size in sizes[::-1]], rtol=1e-6)


def test_where_each_explodes():
    exodus, slayer = (numbers.norms(math.inf, 0.35, 60, kept) for kept in (True, False))
    power = np.polyfit(np.log10(numbers.PEAKS), slayer.layers[:, 0], 1)[0]
    assert power == pytest.approx(6)
    np.testing.assert_allclose(slayer.memory, 0, atol=1e-12)
    at = {peak: int(np.abs(numbers.PEAKS - peak).argmin()) for peak in (0.2, 0.3, 1, 2, 3.2, 4, 5)}
    layer1 = exodus.layers[:, 0]
    assert 1 < layer1[at[2]] - layer1[at[0.3]] < 1.6
    assert layer1[at[5]] - layer1[at[2]] > 19
    assert layer1[at[3.2]] < slayer.layers[at[3.2], 0]
    assert layer1[at[4]] > slayer.layers[at[4], 0]
    assert np.ptp(slayer.layers[at[0.2]]) < 0.6
    short = [numbers.norms(5.0, 0.35, 60, kept).layers[at[1], 0] for kept in (True, False)]
    assert layer1[at[1]] - short[0] < 0.5
    assert slayer.layers[at[1], 0] - short[1] > 2.8


def test_memory_is_the_product_of_carries():
    net, found = numbers.deep_network(20.0), numbers.norms(20.0, 0.35, 30, True)
    f = Exponential(0.35, numbers.PEAKS[7]).slope(torch.from_numpy(net.U[0][:30] - 1)).numpy()
    c = net.beta - f
    assert found.memory[7, 0] == 0
    np.testing.assert_allclose(10 ** found.memory[7, 2], np.sqrt(((c[-2] * c[-3]) ** 2).mean()))


# The small experiment.


def test_experiment_gradients():
    surrogate = Exponential.from_scale(1.0, 0.5)
    assert all(0.02 < share < 0.2 for share in experiment.activity(recipes.exodus()))
    bptt = experiment.gradients(recipes.bptt(surrogate=surrogate), samples=16)
    exodus = experiment.gradients(recipes.exodus(surrogate=surrogate), samples=16)
    slayer = experiment.gradients(recipes.slayer(surrogate=surrogate), samples=16)
    for g, h in zip(bptt, exodus, strict=True):
        torch.testing.assert_close(h, g, rtol=1e-10, atol=1e-12)
    first, last = ([rule[i].norm() for rule in (exodus, slayer)] for i in (0, -1))
    assert first[0] / last[0] < 10
    assert first[1] / last[1] > 50


def test_experiment_learns_and_repeats():
    rule = recipes.exodus(surrogate=Exponential.from_scale(1.0, 0.5))
    one, two = (experiment.learn(rule, torch.optim.Adam, 3e-3, epochs=1) for _ in range(2))
    assert one == two
    assert len(one) == 1
    assert 0.3 < one[0] < 0.8


# The panels.

PANELS = {"theorem": lesson.theorem_panel, "dial": lesson.dial_panel, "norms": lesson.norms_panel}


@pytest.fixture(params=PANELS)
def panel(request):
    return PANELS[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    if "update" in panel.values:
        panel.set(update=TO_ZERO)  # with subtraction "detached" and "absent" are the same
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_theorem_panel_at_a_vertical_tangent():
    panel = lesson.theorem_panel()
    panel.set(v=-4.0, s=0.5)
    assert not panel.error
    tangent = next(line for line in panel.axes[0].lines if line.get_label() == "tangent, by the theorem")
    assert np.ptp(tangent.get_xdata()) < 1e-9
    assert any("vertical" in text.get_text() for text in panel.axes[1].texts)


def test_dial_draws_the_chosen_place_thick():
    panel = lesson.dial_panel()
    for name in lesson.SEEN:
        panel.set(seen=name)
        widths = {line.get_label(): line.get_linewidth() for line in panel.axes[3].lines}
        assert max(lesson.SEEN, key=widths.get) == name


@pytest.mark.parametrize(("values", "wanted"), [([0.02], 0.1), ([-2.9], 3), ([3.1, 1], 10), ([10.0], 10), ([40], 100)])
def test_coarse_size(values, wanted):
    assert lesson.coarse_size(values) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("values", "wanted"), [([0.2], (-0.03, 0.42)), ([1, 25], (-3, 42)), ([-0.5, 2], (-3.3, 4.2)), ([3.0], (-0.3, 4.2))]
)
def test_signed_limits(values, wanted):
    assert lesson.signed_limits(values) == pytest.approx(wanted)


def test_matrix_and_graphs_are_drawn():
    figure = Figure()
    axes = figure.subplots(1, 4)
    lesson.draw_matrix(axes[0], [[0.8, 0], [-0.32, 0.4]], "small")
    assert [text.get_text() for text in axes[0].texts] == ["0.8", "0", "−0.32", "0.4"]
    assert axes[0].images[0].get_clim() == (-1, 1)
    lesson.draw_matrix(axes[1], np.eye(7), "large")
    assert not axes[1].texts
    lesson.draw_graphs(axes[2], axes[3], steps=3)
    assert len(axes[2].patches) == 3 * 2 + 3  # a reset arrow for each pair of steps
    assert len(axes[3].patches) == 3


# The exercises.

EXERCISES = {
    "theorem": lesson.theorem_exercise,
    "recursion": lesson.recursion_exercise,
    "zero": lesson.to_zero_exercise,
    "code": lesson.code_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise, hints=(2, 3))


def f_of(s):
    return s * (1 - s)


def chain(e, f, c):
    return torch.from_numpy(numbers.by_recursion(e, f, c))


def three(kept=None, detached=None, absent=None):
    """The right answer with one of its parts replaced."""

    def answer(U, s, f, beta):
        parts = list(exercises.three_carries(U, s, f, beta))
        for i, wrong in enumerate((kept, detached, absent)):
            if wrong is not None:
                parts[i] = wrong(U, s, f, beta) + 0 * U
        return tuple(parts)

    return answer


SLIPS = {
    "theorem": {
        "left out": lambda s, v: f_of(s),
        "sign inside": lambda s, v: f_of(s) / (1 - v * f_of(s)),
        "one round": lambda s, v: f_of(s) - v * f_of(s) ** 2,
        "Turned over": lambda s, v: (1 + v * f_of(s)) / f_of(s),
        "minus sign": lambda s, v: -f_of(s) / (1 + v * f_of(s)),
        "Above the line": lambda s, v: 1 / (1 + v * f_of(s)),
    },
    "recursion": {
        "SLAYER": lambda e, f, beta, theta: chain(e, f, torch.full_like(f, beta)),
        "lowers the membrane": lambda e, f, beta, theta: chain(e, f, beta + theta * f),
        "theta, not 1": lambda e, f, beta, theta: chain(e, f, beta - f),
        "not f[n+1]": lambda e, f, beta, theta: chain(e, f, (beta - theta * f).roll(-1)),
        "multiply e[n]": lambda e, f, beta, theta: chain(e, torch.ones_like(f), beta - theta * f),
        "begin at the last": lambda e, f, beta, theta: chain(e.flip(0), f.flip(0), beta - theta * f.flip(0)).flip(0),
        "own error": lambda e, f, beta, theta: f * e,
    },
    "zero": {
        "for subtraction": three(kept=lambda U, s, f, beta: beta - f),
        "product rule": three(kept=lambda U, s, f, beta: beta * (1 - s)),
        "cuts the memory": three(kept=lambda U, s, f, beta: beta - beta * U * f),
        "carries beta * U": three(kept=lambda U, s, f, beta: beta * (1 - s) - f),
        "still multiplies": three(detached=lambda U, s, f, beta: beta),
        "no slope": three(detached=lambda U, s, f, beta: beta * (1 - s) - beta * U * f),
        "no reset at all": three(absent=lambda U, s, f, beta: beta * (1 - s)),
    },
    "code": {
        "paper's reset": lambda f, beta, theta: beta - theta * f,
        "SLAYER": lambda f, beta, theta: torch.full_like(f, beta),
        "not 1": lambda f, beta, theta: beta * (1 - f),
        "sign": lambda f, beta, theta: beta * (1 + theta * f),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_against_the_panels_functions():
    f, e = slopes(9), np.random.default_rng(3).normal(size=9)
    found = exercises.exodus(torch.from_numpy(e), torch.from_numpy(f), 0.9, 1.1)
    np.testing.assert_allclose(found, numbers.by_sum(e, f, 0.9, 1.1), atol=1e-12)
    U, s = np.linspace(0, 2, 9), (np.linspace(0, 2, 9) >= 1).astype(float)
    wanted = [numbers.carries(U, s, f, 0.9, 1.0, numbers.UPDATES[TO_ZERO], seen) for seen in Reset]
    answer = exercises.three_carries(*(torch.from_numpy(v) for v in (U, s, f)), 0.9)
    np.testing.assert_allclose(torch.stack(answer), np.stack(wanted), atol=1e-12)
    wanted = numbers.carries(U, s, f, 0.9, 1.3, numbers.UPDATES[CODE], Reset.KEPT)
    np.testing.assert_allclose(exercises.code_carry(torch.from_numpy(f), 0.9, 1.3), wanted, atol=1e-12)
